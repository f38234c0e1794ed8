//! One look at one Connector: its Lease and this process's part of its status.

use std::{sync::Arc, time::Duration};

use adit_api::{
    labels::{MANAGED_BY, MANAGED_BY_LABEL},
    networking::Connector,
};
use adit_control::Class as ErrorClass;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{Condition, OwnerReference},
};
use kube::{Resource as _, ResourceExt as _, core::ObjectMeta};
use serde_json::json;

use super::{
    super::{
        conditions::{self, Conditions},
        kept::Key,
        queue::Outcome,
        writer::WriteError,
    },
    Connectors, failed,
    ready::{self, ACCEPTED, Class, DNS_PUBLISHED, LeaseState, READY},
};

/// The conditions of this process, in their order.
const OWNED: &[&str] = &[ACCEPTED, READY, DNS_PUBLISHED];
/// How soon a name that somebody else's Lease has is looked at again.
const TAKEN: Duration = Duration::from_secs(60);

impl Connectors {
    pub(super) async fn connector(&self, key: &Key) -> Outcome {
        let Some(connector) = self.context.stores.connectors.get(key) else {
            if let Some(malformed) = self.context.stores.connectors.malformed(key) {
                tracing::warn!(object = %key, error = malformed.error, "not a Connector that can be read; it is left alone");
            }
            self.known().verdicts.remove(key);
            return Outcome::Done;
        };
        let class = self.class(&connector);
        // Another controller's Connectors are its own; one that is being
        // deleted needs nothing more.
        if class == Class::Foreign || connector.metadata.deletion_timestamp.is_some() {
            return Outcome::Done;
        }
        let lease = match class {
            Class::Ours => match self.lease_of(&connector, key).await {
                Ok(lease) => lease,
                Err(error) => {
                    return failed("its Lease", key, error.class(), &error);
                }
            },
            _ => LeaseState::NotMade,
        };
        self.status(&connector, key, class, lease).await
    }

    /// The Lease, made when it is not there.
    async fn lease_of(&self, connector: &Connector, key: &Key) -> Result<LeaseState, WriteError> {
        let stores = &self.context.stores;
        let writer = &self.context.writer;
        let there = stores.leases.get(key);
        if let Some(lease) = &there {
            match owner(lease) {
                Some(uid) if Some(uid) == connector.metadata.uid.as_deref() => {
                    let spec = lease.spec.as_ref();
                    if spec.is_some_and(|s| s.lease_duration_seconds.is_some()) {
                        return Ok(self.liveness(key));
                    }
                }
                // Of a Connector of this name that is gone: Kubernetes removes
                // it, and then this one's is made.
                Some(_) => return Ok(LeaseState::NotMade),
                None => return Ok(LeaseState::Taken),
            }
        }
        match writer
            .apply(&stores.leases, &self.new_lease(connector, key))
            .await
        {
            Ok(Some(_)) => Ok(self.liveness(key)),
            Ok(None) => Ok(LeaseState::NotMade),
            Err(WriteError::Foreign { .. }) => Ok(LeaseState::Taken),
            Err(error) => Err(error),
        }
    }

    fn liveness(&self, key: &Key) -> LeaseState {
        let now = self.clock.now();
        let known = self.known();
        let lease = known.leases.get(key);
        lease.map_or(LeaseState::NotMade, |(_, l)| {
            LeaseState::There(l.state(now))
        })
    }

    fn new_lease(&self, connector: &Connector, key: &Key) -> Lease {
        let seconds = self.context.config.lease_duration.as_secs().max(1);
        Lease {
            metadata: ObjectMeta {
                name: Some(key.name.clone()),
                namespace: Some(key.namespace.clone()),
                labels: Some([(MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned())].into()),
                owner_references: connector.controller_owner_ref(&()).map(|o| vec![o]),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                lease_duration_seconds: Some(i32::try_from(seconds).unwrap_or(i32::MAX)),
                ..LeaseSpec::default()
            }),
        }
    }

    async fn status(
        &self,
        connector: &Connector,
        key: &Key,
        class: Class,
        lease: LeaseState,
    ) -> Outcome {
        let now = self.clock.now();
        let status = connector.status.clone().unwrap_or_default();
        let (contested, duration, allowed, verdict) = {
            let known = self.known();
            let live = known.leases.get(key).map(|(_, l)| l);
            (
                live.is_some_and(|l| l.is_contested(now)),
                live.map(super::liveness::Liveness::duration),
                known.allowed.clone(),
                known.verdicts.get(key).cloned(),
            )
        };
        let old = &status.conditions;
        let was_ready = conditions::holds(old, READY);
        let generation = connector.metadata.generation;
        let mut new = Conditions::new(OWNED, old, generation, now.wall);
        ready::accepted(&mut new, connector, class);
        ready::ready(&mut new, connector, class, lease, was_ready, contested);
        if self.publisher.is_some() {
            match (&verdict, conditions::find(old, DNS_PUBLISHED)) {
                (Some(verdict), _) => verdict.set(&mut new),
                // Until the first answer, what was said before still stands.
                (None, Some(said)) => keep(&mut new, said),
                (None, None) => {}
            }
        }
        let (list, mut changed) = new.finish();
        let lease_ref = match lease {
            LeaseState::There(_) => Some(key.name.clone()),
            LeaseState::NotMade | LeaseState::Taken => None,
        };
        let allowed: &[String] = if class == Class::Ours { &allowed } else { &[] };
        changed |= status.lease_ref.as_ref().map(|l| &l.name) != lease_ref.as_ref();
        changed |= !same_set(&status.allowed_dialers, allowed);
        if changed {
            let mut part = json!({"conditions": list});
            if let Some(name) = &lease_ref {
                part["leaseRef"] = json!({"name": name});
            }
            if !allowed.is_empty() {
                part["allowedDialers"] = json!(allowed);
            }
            let uid = connector.uid().unwrap_or_default();
            let store = &self.context.stores.connectors;
            let written = self
                .context
                .writer
                .apply_status(store, key, &uid, part)
                .await;
            match written {
                Ok(()) => self.tell(connector, old, &list).await,
                // It is gone; the watch says so too.
                Err(error) if error.class() == ErrorClass::NotFound => {}
                Err(error) => return failed("its status", key, error.class(), &error),
            }
        }
        match (lease, duration) {
            (LeaseState::There(state), Some(duration)) => match state.ends(duration) {
                Some(left) => Outcome::After(left + jitter(duration / 10)),
                None => Outcome::Done,
            },
            // That Lease has no label that we watch.
            (LeaseState::Taken, _) => Outcome::After(TAKEN + jitter(TAKEN / 10)),
            _ => Outcome::Done,
        }
    }

    /// Events for what a person must act on.
    async fn tell(&self, connector: &Connector, old: &[Condition], new: &[Condition]) {
        for condition in new {
            let before = conditions::find(old, &condition.type_);
            let same = before.is_some_and(|b| {
                b.status == condition.status
                    && b.reason == condition.reason
                    && (condition.type_ != DNS_PUBLISHED || b.message == condition.message)
            });
            let wants_a_person = match condition.reason.as_str() {
                "ConnectorClassNotFound" | "ServerRefused" | "DeferredToOwner" => true,
                "ConnectorNotReady" => condition.message.contains("not valid"),
                _ => false,
            };
            if wants_a_person && !same {
                let context = Arc::clone(&self.context);
                let (reason, note) = (&condition.reason, &condition.message);
                context.tell(connector, true, reason, note).await;
            }
        }
    }
}

fn keep(conditions: &mut Conditions<'_>, said: &Condition) {
    use super::super::conditions::State;
    let state = match said.status.as_str() {
        "True" => State::True,
        "False" => State::False,
        _ => State::Unknown,
    };
    conditions.set(DNS_PUBLISHED, state, &said.reason, &said.message);
}

/// The UID of the Connector that owns a Lease.
fn owner(lease: &Lease) -> Option<&str> {
    let references = lease.metadata.owner_references.as_deref()?;
    let is_ours = |o: &&OwnerReference| {
        o.kind == Connector::kind(&()) && o.api_version == Connector::api_version(&())
    };
    references.iter().find(is_ours).map(|o| o.uid.as_str())
}

fn same_set(there: &[String], wanted: &[String]) -> bool {
    let mut there: Vec<_> = there.iter().collect();
    there.sort();
    there.iter().copied().eq(wanted)
}

fn jitter(most: Duration) -> Duration {
    most.mul_f64(rand::random_range(0.0..1.0))
}
