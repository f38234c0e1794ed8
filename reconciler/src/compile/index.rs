//! A snapshot's objects by what they are looked up by: a compilation is linear
//! in the number of its objects.

use std::collections::{BTreeMap, BTreeSet};

use adit_api::{
    ResourceExt as _,
    networking::{Connector, ConnectorAdvertisement},
};
use adit_wire::Target;

use super::{Classes, Options};
use crate::Snapshot;

/// The index.
pub(super) struct Index<'a> {
    /// By namespace; the oldest first, then by name.
    connectors: BTreeMap<String, Vec<&'a Connector>>,
    /// By namespace and connector.
    advertisements: BTreeMap<String, BTreeMap<String, Vec<&'a ConnectorAdvertisement>>>,
    classes: BTreeSet<String>,
    classes_required: bool,
}

/// Which targets may be reached: for routes that are there from before.
pub struct Permits<'a> {
    index: Index<'a>,
}

impl<'a> Index<'a> {
    pub(super) fn of(snapshot: &'a Snapshot, options: &Options) -> Self {
        let mut connectors: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for connector in &snapshot.connectors {
            let namespace = connector.namespace().unwrap_or_default();
            connectors.entry(namespace).or_default().push(connector);
        }
        for list in connectors.values_mut() {
            list.sort_by_cached_key(|c: &&Connector| {
                let time = c.creation_timestamp().map(|t| t.0);
                (time.is_none(), time, c.name_any())
            });
        }
        let mut advertisements: BTreeMap<_, BTreeMap<_, Vec<_>>> = BTreeMap::new();
        for advertisement in &snapshot.advertisements {
            let namespace = advertisement.namespace().unwrap_or_default();
            let connector = advertisement.spec.connector_ref.name.clone();
            let there = advertisements.entry(namespace).or_default();
            there.entry(connector).or_default().push(advertisement);
        }
        let classes: BTreeSet<_> = snapshot.classes.iter().map(|c| c.name_any()).collect();
        Self {
            connectors,
            advertisements,
            classes_required: options.classes == Classes::Required || !classes.is_empty(),
            classes,
        }
    }

    /// The connectors of a namespace, the oldest first, then by name.
    pub(super) fn connectors(&self, namespace: &str) -> &[&'a Connector] {
        self.connectors.get(namespace).map_or(&[], Vec::as_slice)
    }

    /// A connector by name.
    pub(super) fn connector(&self, namespace: &str, name: &str) -> Option<&'a Connector> {
        let mut list = self.connectors(namespace).iter();
        list.find(|c| c.metadata.name.as_deref() == Some(name))
            .copied()
    }

    /// What a connector advertises.
    pub(super) fn advertisements(
        &self,
        namespace: &str,
        connector: &str,
    ) -> &[&'a ConnectorAdvertisement] {
        let there = self.advertisements.get(namespace);
        let own = there.and_then(|a| a.get(connector));
        own.map_or(&[], Vec::as_slice)
    }

    /// Whether a class exists, or need not.
    pub(super) fn has_class(&self, name: &str) -> bool {
        !self.classes_required || self.classes.contains(name)
    }
}

impl<'a> Permits<'a> {
    /// For the connectors of a snapshot.
    pub fn of(snapshot: &'a Snapshot, options: &Options) -> Self {
        Self {
            index: Index::of(snapshot, options),
        }
    }

    /// Whether a route of this namespace may reach a target: each of its
    /// connectors is there, and would be taken for the service now.
    pub fn allows(&self, namespace: &str, target: &Target) -> bool {
        target.connectors.iter().all(|id| {
            let mut connectors = self.index.connectors(namespace).iter();
            connectors.any(|c| {
                let hint = self.index.judge(c, &target.service);
                hint.is_ok_and(|hint| hint.endpoint_id == *id)
            })
        })
    }
}
