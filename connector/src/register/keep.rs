//! Keeps the agent's objects as it wants them: Connector, its status, its
//! advertisement, and once the HTTPProxy.
//!
//! One round looks at what is known and writes what differs. A round comes
//! with every change, its own writes' included, and after a failure.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use adit_control::{Class, Contact, apply, pace};
use k8s_openapi::jiff::Timestamp;
use kube::{Api, core::DynamicObject};
use serde_json::Value;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::{
    addresses::Details,
    lease::Standing,
    objects::{Identity, MANAGER, Seen},
    watch::Known,
};
use crate::policy::Policy;

const CONNECTOR: &str = "write the Connector";
const STATUS: &str = "write the Connector's status";
const ADVERTISEMENT: &str = "write the ConnectorAdvertisement";
const PROXY: &str = "apply the HTTPProxy";

/// Changes that come together are one write.
const SETTLE: Duration = Duration::from_millis(100);
/// So many rounds with a write in [`WINDOW`] are usual; more mean that somebody
/// else undoes what this agent writes, and then it waits.
const USUAL: usize = 12;
const WINDOW: Duration = Duration::from_secs(60);
const CALM: Duration = Duration::from_secs(15);

pub(crate) struct Keeper {
    pub(crate) connectors: Api<DynamicObject>,
    pub(crate) advertisements: Api<DynamicObject>,
    pub(crate) proxies: Api<DynamicObject>,
    pub(crate) contact: Contact,
    pub(crate) identity: Identity,
    pub(crate) advertise: bool,
    /// Until it was applied.
    pub(crate) proxy: Option<Value>,
    pub(crate) connector: watch::Receiver<Known>,
    pub(crate) advertisement: watch::Receiver<Known>,
    pub(crate) details: watch::Receiver<Option<Details>>,
    pub(crate) policy: watch::Receiver<Arc<Policy>>,
    pub(crate) standing: watch::Receiver<Standing>,
    pub(crate) done: Done,
}

/// What this process has written.
#[derive(Debug, Default)]
pub(crate) struct Done {
    /// The Connector, by its UID: at the start once, so that a label that is
    /// no longer wanted goes.
    spec: Option<String>,
    /// The details, in the Connector of this UID.
    status: Option<(String, Details)>,
    /// What the log said about the advertisement.
    left_out: Vec<String>,
    /// When rounds wrote.
    writes: VecDeque<Instant>,
}

impl Keeper {
    /// Until the task is dropped.
    pub(crate) async fn run(mut self) {
        let mut failures = 0;
        loop {
            let result = self.round().await;
            let retry = match result {
                Ok(wrote) => {
                    failures = 0;
                    if wrote {
                        self.done.writes.push_back(Instant::now());
                    }
                    None
                }
                Err(()) => {
                    let pause = pace::retry_pause(failures);
                    failures += 1;
                    Some(pause)
                }
            };
            sleep(self.calm()).await;
            let again = async {
                match retry {
                    Some(pause) => sleep(pause).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = again => {}
                Ok(()) = self.connector.changed() => {}
                Ok(()) = self.advertisement.changed() => {}
                Ok(()) = self.details.changed() => {}
                Ok(()) = self.policy.changed() => {}
                Ok(()) = self.standing.changed() => {}
                else => return,
            }
            sleep(SETTLE).await;
        }
    }

    /// Writes what differs. Says whether anything did.
    async fn round(&mut self) -> Result<bool, ()> {
        let contender = match self.standing.borrow_and_update().clone() {
            Standing::Unknown | Standing::Back => return Ok(false),
            Standing::Unleased => None,
            Standing::Held { contender } => contender,
        };
        let Some(known) = self.connector.borrow_and_update().clone() else {
            return Ok(false);
        };
        let mut wrote = false;
        let known = known.map(|object| Seen(object.as_ref().clone()));
        let seen = match known {
            Some(seen) if self.has_spec(&seen) => seen,
            _ => {
                let seen = self.write_connector().await?;
                wrote = true;
                seen
            }
        };
        // What follows does not wait for one another: an advertisement that is
        // refused must not cost the addresses.
        let status = self.keep_status(&seen, contender.as_deref()).await;
        let advertisement = self.keep_advertisement().await;
        let proxy = self.apply_proxy().await;
        for result in [status, advertisement, proxy] {
            wrote |= result?;
        }
        Ok(wrote)
    }

    fn has_spec(&self, seen: &Seen) -> bool {
        self.done.spec.as_deref() == Some(seen.uid()) && self.identity.is_written(seen)
    }

    async fn write_connector(&mut self) -> Result<Seen, ()> {
        let object = self.identity.connector();
        let name = &self.identity.name;
        let write = apply::object(&self.connectors, MANAGER, &object, name);
        let written = self.said(CONNECTOR, "Connector", write).await?;
        let seen = Seen(written);
        self.done.spec = Some(seen.uid().to_owned());
        Ok(seen)
    }

    async fn keep_status(&mut self, seen: &Seen, contender: Option<&str>) -> Result<bool, ()> {
        let Some(details) = self.details.borrow_and_update().clone() else {
            return Ok(false);
        };
        let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let status = self.identity.status(seen, &details, contender, &now);
        let unleased = *self.standing.borrow() == Standing::Unleased;
        if seen.has_status(&status) {
            self.contact.ok(STATUS);
            if unleased {
                self.contact.notice(None);
            }
            return Ok(false);
        }
        let ours = (seen.uid().to_owned(), details);
        let replaced = seen.key().is_some_and(|key| key != ours.1.id);
        if unleased && replaced && self.done.status.as_ref() == Some(&ours) {
            self.contact.notice(Some(
                "another agent with another key writes this Connector, and there is no Lease to tell \
                 whose it is: this one stands back; give one of the two another --name"
                    .to_owned(),
            ));
            return Ok(false);
        }
        let object = self.identity.with_status(&status);
        let name = &self.identity.name;
        let write = apply::status(&self.connectors, MANAGER, &object, name);
        self.said(STATUS, "Connector/status", write).await?;
        tracing::info!(
            addresses = ours.1.addresses.len(),
            relay = ours.1.relay.as_deref().unwrap_or("none"),
            "the Connector says where this agent is"
        );
        self.done.status = Some(ours);
        Ok(true)
    }

    async fn keep_advertisement(&mut self) -> Result<bool, ()> {
        let policy = self.policy.borrow_and_update().clone();
        let known = self.advertisement.borrow_and_update().clone();
        let (true, Some(known)) = (self.advertise, known) else {
            return Ok(false);
        };
        let (object, left_out) = self.identity.advertisement(&policy.targets);
        if left_out != self.done.left_out {
            if !left_out.is_empty() {
                tracing::warn!(
                    count = left_out.len(),
                    first = left_out[0],
                    "targets that a ConnectorAdvertisement cannot hold are not advertised; use fewer \
                     entries, or wildcards"
                );
            }
            self.done.left_out = left_out;
        }
        if known.is_some_and(|known| known.data["spec"] == object["spec"]) {
            self.contact.ok(ADVERTISEMENT);
            return Ok(false);
        }
        let name = &self.identity.name;
        let write = apply::object(&self.advertisements, MANAGER, &object, name);
        self.said(ADVERTISEMENT, "ConnectorAdvertisement", write)
            .await?;
        Ok(true)
    }

    async fn apply_proxy(&mut self) -> Result<bool, ()> {
        let Some(object) = &self.proxy else {
            return Ok(false);
        };
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let write = apply::object(&self.proxies, MANAGER, object, name);
        match pace::request(pace::REQUEST, write).await {
            Ok(_) => {
                self.contact.ok(PROXY);
                self.contact.wrote("HTTPProxy");
                tracing::info!(name, "the HTTPProxy was applied");
                self.proxy = None;
                Ok(true)
            }
            // Trying again does not help; the next start reads the file again.
            Err(failure) if failure.class == Class::Invalid => {
                self.contact.failed(PROXY, failure);
                self.proxy = None;
                Ok(false)
            }
            Err(failure) => {
                self.contact.failed(PROXY, failure);
                Err(())
            }
        }
    }

    /// A write, with its place in log, status and metrics.
    async fn said(
        &self,
        step: &'static str,
        kind: &'static str,
        write: impl Future<Output = kube::Result<DynamicObject>>,
    ) -> Result<DynamicObject, ()> {
        match pace::request(pace::REQUEST, write).await {
            Ok(object) => {
                self.contact.ok(step);
                self.contact.wrote(kind);
                Ok(object)
            }
            Err(failure) => {
                self.contact.failed(step, failure);
                Err(())
            }
        }
    }

    /// How long to let things rest after a round.
    fn calm(&mut self) -> Duration {
        let now = Instant::now();
        let writes = &mut self.done.writes;
        while writes.front().is_some_and(|at| now - *at > WINDOW) {
            writes.pop_front();
        }
        if writes.len() <= USUAL {
            return Duration::ZERO;
        }
        if writes.len() == USUAL + 1 {
            tracing::warn!(
                "this agent's objects keep changing, or somebody else keeps changing them: writing \
                 more slowly"
            );
        }
        CALM
    }
}
