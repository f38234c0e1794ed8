//! One Connector's records by a DNSEndpoint, for external-dns.

use std::{sync::Arc, time::Duration};

use adit_api::networking::Connector;
use adit_control::Class as ErrorClass;
use adit_wire::EndpointId;

use super::{
    super::{
        conditions::State,
        kept::{Health, Key},
        queue::Outcome,
        writer::WriteError,
        written::is_as_written,
    },
    Connectors, failed,
    publish::{FOREIGN, Publisher, Verdict, Wanted},
    ready::{self, Class},
};
use crate::dns::{Layout, endpoint};

/// While what is there is still being listed.
const SOON: Duration = Duration::from_millis(200);

impl Connectors {
    pub(super) async fn endpoint(
        &self,
        publisher: &Publisher,
        layout: &Layout,
        key: &Key,
        connector: &Connector,
    ) -> Outcome {
        let health = publisher.endpoints.health().borrow().clone();
        match health {
            Health::Synced => {}
            Health::Absent => {
                let text =
                    "The API server does not know DNSEndpoint: install external-dns and its CRD.";
                self.set_verdict(key, Some(Verdict::pending(text)));
                return Outcome::Failed(ErrorClass::NotFound);
            }
            Health::Starting => return Outcome::After(SOON),
            Health::Failing(why) => {
                let text = format!("DNSEndpoints cannot be watched: {why}");
                self.set_verdict(key, Some(Verdict::pending(text)));
                return Outcome::Failed(ErrorClass::Other);
            }
        }
        let there = publisher.endpoints.get(key);
        let writer = &self.context.writer;
        let (verdict, wish) = match self.wanted(layout, Some(connector)) {
            None => (None, None),
            Some(Wanted::Nothing(why)) => (Some(Verdict::pending(why)), None),
            Some(Wanted::Records(id, records)) => match self.older(connector, id) {
                Some(older) => {
                    let owner = format!("Connector {}", Key::of(&*older));
                    let text = format!(
                        "{} is published by {owner}, which is older; give each agent a key of its own, or remove the other",
                        records.name
                    );
                    (
                        Some(Verdict::new(State::False, "DeferredToOwner", text)),
                        None,
                    )
                }
                None => {
                    let text = format!("DNSEndpoint {key} asks external-dns for {}", records.name);
                    let wish = endpoint::object(connector, &records);
                    (Some(Verdict::published(text)), Some(wish))
                }
            },
        };
        let written = match (wish, there) {
            (Some(wish), Some(there)) if is_as_written(&wish, &*there) => Ok(()),
            (Some(wish), _) => writer.apply(&publisher.endpoints, &wish).await.map(drop),
            (None, Some(there)) => writer.delete(&publisher.endpoints, &*there).await,
            (None, None) => Ok(()),
        };
        match written {
            Ok(()) => {
                self.set_verdict(key, verdict);
                Outcome::Done
            }
            Err(error @ WriteError::Foreign { .. }) => {
                let verdict = Verdict::new(State::False, "DeferredToOwner", error.to_string());
                self.set_verdict(key, Some(verdict));
                Outcome::After(FOREIGN)
            }
            Err(error) => {
                self.set_verdict(key, Some(Verdict::pending(error.to_string())));
                failed("its DNSEndpoint", key, error.class(), &error)
            }
        }
    }

    /// The oldest other Connector with this key, if it is older.
    fn older(&self, connector: &Connector, id: EndpointId) -> Option<Arc<Connector>> {
        let age = |c: &Connector| {
            (
                c.metadata.creation_timestamp.clone().map(|t| t.0),
                Key::of(c),
            )
        };
        let mine = age(connector);
        let same = self.context.stores.connectors.filter(|c| {
            self.class(c) == Class::Ours
                && c.metadata.deletion_timestamp.is_none()
                && ready::details(c).is_ok_and(|h| h.endpoint_id == id)
        });
        same.into_iter()
            .filter(|c| age(c) < mine)
            .min_by_key(|c| age(c))
    }
}
