//! One look at one ConnectorAdvertisement: is its Connector there, and who
//! owns it.

use adit_api::{
    networking::{Connector, ConnectorAdvertisement},
    validate,
};
use adit_control::Class as ErrorClass;
use kube::{Resource as _, ResourceExt as _};
use serde_json::json;

use super::{
    super::{
        conditions::{Conditions, State, bounded},
        kept::Key,
        queue::Outcome,
        writer::WriteError,
    },
    Connectors, failed,
    ready::{ACCEPTED, Class},
};

const OWNED: &[&str] = &[ACCEPTED];

impl Connectors {
    pub(super) async fn advertisement(&self, key: &Key) -> Outcome {
        let stores = &self.context.stores;
        let Some(object) = stores.advertisements.get(key) else {
            return Outcome::Done;
        };
        if object.metadata.deletion_timestamp.is_some() {
            return Outcome::Done;
        }
        let name = &object.spec.connector_ref.name;
        let connector = stores.connectors.get(&Key::new(&key.namespace, name));
        // It belongs to whom its connector belongs to.
        if connector
            .as_ref()
            .is_some_and(|c| self.class(c) == Class::Foreign)
        {
            return Outcome::Done;
        }
        if let Some(connector) = &connector
            && connector.metadata.deletion_timestamp.is_none()
            && let Err(error) = self.own(&object, connector, key).await
        {
            let class = error.class();
            if class != ErrorClass::NotFound {
                return failed("its owner reference", key, class, &error);
            }
        }
        let old = object.status.as_ref().map_or(&[][..], |s| &s.conditions);
        let now = self.clock.now().wall;
        let mut conditions = Conditions::new(OWNED, old, object.metadata.generation, now);
        let problems = validate::advertisement(&object);
        let (state, reason, message) = match (&connector, problems.first()) {
            _ if name.is_empty() => (
                State::False,
                "Pending",
                "connectorRef.name is required".to_owned(),
            ),
            (None, _) => (
                State::False,
                "ConnectorNotFound",
                format!(
                    "Connector \"{}\" not found in this namespace: create it, or correct spec.connectorRef.name",
                    bounded(name, 253)
                ),
            ),
            (Some(_), Some(problem)) => (
                State::False,
                "Invalid",
                format!("{}: {}", problem.path, problem.message),
            ),
            (Some(_), None) => (
                State::True,
                "Accepted",
                "Connector reference resolved".to_owned(),
            ),
        };
        conditions.set(ACCEPTED, state, reason, &message);
        let (list, changed) = conditions.finish();
        if !changed {
            return Outcome::Done;
        }
        let uid = object.uid().unwrap_or_default();
        let part = json!({"conditions": list});
        let writer = &self.context.writer;
        match writer
            .apply_status(&stores.advertisements, key, &uid, part)
            .await
        {
            Ok(()) => Outcome::Done,
            Err(error) if error.class() == ErrorClass::NotFound => Outcome::Done,
            Err(error) => failed("its status", key, error.class(), &error),
        }
    }

    /// Makes the connector the advertisement's owner, so that it goes with it.
    async fn own(
        &self,
        object: &ConnectorAdvertisement,
        connector: &Connector,
        key: &Key,
    ) -> Result<(), WriteError> {
        let there = object.owner_references();
        if there
            .iter()
            .any(|o| Some(&o.uid) == connector.metadata.uid.as_ref())
        {
            return Ok(());
        }
        // There may be one controller only.
        let controlled = there
            .iter()
            .any(|o| o.controller == Some(true) && o.kind != Connector::kind(&()).as_ref());
        let owner = if controlled {
            connector.owner_ref(&())
        } else {
            connector.controller_owner_ref(&())
        };
        let body = json!({
            "apiVersion": ConnectorAdvertisement::api_version(&()),
            "kind": ConnectorAdvertisement::kind(&()),
            "metadata": {
                "name": key.name,
                "namespace": key.namespace,
                "uid": object.uid(),
                "ownerReferences": owner.into_iter().collect::<Vec<_>>(),
            },
        });
        let store = &self.context.stores.advertisements;
        self.context.writer.apply_part(store, key, body).await?;
        Ok(())
    }
}
