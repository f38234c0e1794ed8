//! What one HTTPProxy depends on: enough to compile it, and no more.

use std::{collections::BTreeSet, sync::Arc};

use adit_api::{
    ResourceExt as _, Severity,
    networking::{Connector, ConnectorReference, HttpProxy},
    validate,
};

use crate::{
    Snapshot, compile,
    kubernetes::{
        ground::{self, Wanted},
        kept::Key,
        options::Config,
        stores::Stores,
    },
};

/// The HTTPProxy, those that share a host name with it on the same Gateway,
/// and its connectors with what belongs to them. Only what is valid.
pub fn snapshot(
    stores: &Stores,
    config: &Config,
    proxy: &Arc<HttpProxy>,
    wanted: &Wanted,
) -> Snapshot {
    let namespace = proxy.namespace().unwrap_or_default();
    let connectors = connectors(stores, proxy);
    let names: BTreeSet<_> = connectors.iter().map(|c| c.name_any()).collect();
    let advertisements = stores.advertisements.filter_in(&namespace, |a| {
        names.contains(&a.spec.connector_ref.name)
            && a.metadata.deletion_timestamp.is_none()
            && valid(&validate::advertisement(a))
    });
    let connectors = connectors
        .into_iter()
        .filter(|c| c.metadata.deletion_timestamp.is_none() && valid(&validate::connector(c)));
    Snapshot {
        proxies: neighbours(stores, config, proxy, wanted),
        connectors: connectors.map(|c| Connector::clone(&c)).collect(),
        advertisements: copies(&advertisements),
        classes: copies(&stores.classes.all()),
    }
}

/// All connectors of a namespace and what belongs to them: enough to say what
/// may be reached, but not who wants to.
pub fn offers(stores: &Stores, namespace: &str) -> Snapshot {
    let connectors = stores.connectors.filter_in(namespace, |c| {
        c.metadata.deletion_timestamp.is_none() && valid(&validate::connector(c))
    });
    let advertisements = stores.advertisements.filter_in(namespace, |a| {
        a.metadata.deletion_timestamp.is_none() && valid(&validate::advertisement(a))
    });
    Snapshot {
        proxies: Vec::new(),
        connectors: copies(&connectors),
        advertisements: copies(&advertisements),
        classes: copies(&stores.classes.all()),
    }
}

fn copies<K: Clone>(objects: &[Arc<K>]) -> Vec<K> {
    objects.iter().map(|o| K::clone(o)).collect()
}

/// Every connector that any backend names or selects, by name.
pub fn connectors(stores: &Stores, proxy: &HttpProxy) -> Vec<Arc<Connector>> {
    let references: Vec<_> = references(proxy).collect();
    if references.is_empty() {
        return Vec::new();
    }
    let namespace = proxy.namespace().unwrap_or_default();
    stores
        .connectors
        .filter_in(&namespace, |c| references.iter().any(|r| refers(r, c)))
}

/// The references of all backends.
pub fn references(proxy: &HttpProxy) -> impl Iterator<Item = &ConnectorReference> {
    let backends = proxy.spec.rules.iter().flat_map(|r| &r.backends);
    backends.filter_map(|b| b.connector.as_ref())
}

/// Whether a reference means a connector of its namespace.
pub fn refers(reference: &ConnectorReference, connector: &Connector) -> bool {
    match (&reference.name, &reference.selector) {
        (Some(name), _) => connector.name_any() == *name,
        (None, Some(selector)) => compile::selects(selector, connector),
        (None, None) => false,
    }
}

/// Whether two HTTPProxies could claim the same requests, were they on one Gateway.
pub fn share_a_hostname(a: &HttpProxy, b: &HttpProxy) -> bool {
    match (a.spec.hostnames.as_slice(), b.spec.hostnames.as_slice()) {
        ([], []) => true,
        (a, b) => a.iter().any(|host| b.contains(host)),
    }
}

/// The HTTPProxy and those it could conflict with: the oldest first.
fn neighbours(
    stores: &Stores,
    config: &Config,
    proxy: &Arc<HttpProxy>,
    wanted: &Wanted,
) -> Vec<HttpProxy> {
    let own = Key::of(&**proxy);
    let mut all = vec![proxy.clone()];
    if !wanted.made {
        all.extend(stores.proxies.filter(|other| {
            share_a_hostname(proxy, other)
                && Key::of(other) != own
                && other.metadata.deletion_timestamp.is_none()
                && ground::wanted(other, config).is_ok_and(|w| w.place == wanted.place)
                && valid(&validate::http_proxy(other, validate::Scope::Shared))
        }));
    }
    all.sort_by_key(|p| {
        let created = p.creation_timestamp().map(|t| t.0);
        (created.is_none(), created, Key::of(&**p))
    });
    all.iter().map(|p| p.as_ref().clone()).collect()
}

fn valid(problems: &[adit_api::Problem]) -> bool {
    problems.iter().all(|p| p.severity != Severity::Error)
}
