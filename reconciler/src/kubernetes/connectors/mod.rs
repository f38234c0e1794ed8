//! Connectors: are they accepted, there, published; and whom they let in.
//!
//! ```text
//! Connector ─┐                              ┌─► Lease (made once)
//! class ─────┼─► look at one Connector ─────┼─► status: conditions, leaseRef,
//! Lease ─────┤                              │           allowedDialers
//! dialers ───┘        ▲                     │
//!                     └── verdict ◄── publish: DNS records
//! ```
//!
//! The agent owns the rest of the status. A heartbeat that changes nothing is
//! noted and nothing else happens; the next look is when it would be missed.

mod advertisement;
mod clock;
mod connector;
pub mod dialers;
mod endpoint;
pub mod liveness;
mod publish;
pub mod ready;
mod sweep;
mod update;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use adit_api::networking::{Connector, ConnectorClass};
use adit_control::Class as ErrorClass;
use adit_wire::EndpointId;
use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt as _;
use tokio_util::sync::CancellationToken;

use self::{
    clock::Clock,
    dialers::Dialers,
    liveness::{Heartbeat, Liveness},
    publish::{Publisher, Verdict},
    ready::Class,
};
use super::{
    context::Context,
    kept::{Change, Key},
    queue::{Outcome, Queue},
};

/// Looks at once. Each is a few requests to the API server.
const WORKERS: usize = 4;
/// Exchanges with the DNS server at once.
const DNS_WORKERS: usize = 4;
/// After a failed look that no queue counts.
const DIALERS_DUE_AT_LEAST: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Work {
    Dialers,
    Connector(Key),
    Advertisement(Key),
}

/// Shared by listeners and workers.
struct Connectors {
    context: Arc<Context>,
    clock: Clock,
    queue: Queue<Work>,
    known: Mutex<Known>,
    publisher: Option<Publisher>,
}

#[derive(Default)]
struct Known {
    /// By the key of the Lease, which is the Connector's.
    leases: BTreeMap<Key, (String, Liveness)>,
    dialers: Dialers,
    /// What `dialers` came to last.
    allowed: Arc<Vec<String>>,
    verdicts: BTreeMap<Key, Verdict>,
}

/// Looks after Connectors and their advertisements until `shutdown`.
pub async fn run(context: Arc<Context>, shutdown: CancellationToken) {
    let publisher = context.config.dns.clone().map(Publisher::new);
    let connectors = Arc::new(Connectors {
        context,
        clock: Clock::start(),
        queue: Queue::new(),
        known: Mutex::default(),
        publisher,
    });
    connectors.listen();
    let stores = &connectors.context.stores;
    tokio::select! {
        () = stores.settled() => {}
        () = shutdown.cancelled() => return,
    }
    // What was known before the listeners were there.
    for lease in stores.leases.all() {
        connectors.lease(&Key::of(&*lease), Some(&lease));
    }
    for lease in stores.dialers.all() {
        connectors.dialer(&Key::of(&*lease), Some(&lease));
    }
    connectors.update_dialers();
    // Again, for the moment when the first of them expires.
    connectors.queue.push(Work::Dialers);
    for object in stores.connectors.all() {
        connectors.queue.push(Work::Connector(Key::of(&*object)));
    }
    for object in stores.advertisements.all() {
        connectors
            .queue
            .push(Work::Advertisement(Key::of(&*object)));
    }
    let work = connectors.queue.work(WORKERS, |work| connectors.look(work));
    let publish = connectors.publish(&shutdown);
    let end = async {
        shutdown.cancelled().await;
        connectors.queue.close();
        if let Some(publisher) = &connectors.publisher {
            publisher.queue.close();
        }
    };
    tokio::join!(work, publish, end);
}

impl Connectors {
    fn listen(self: &Arc<Self>) {
        let stores = &self.context.stores;
        let this = Arc::downgrade(self);
        stores.connectors.on_change(move |change| {
            if let Some(this) = this.upgrade() {
                this.connector_changed(change);
            }
        });
        let this = Arc::downgrade(self);
        stores.classes.on_change(move |change| {
            if let Some(this) = this.upgrade() {
                this.class_changed(change);
            }
        });
        let this = Arc::downgrade(self);
        stores.advertisements.on_change(move |change| {
            let own = change.own;
            if let Some(this) = this.upgrade().filter(|_| !own) {
                this.queue.push(Work::Advertisement(change.key.clone()));
            }
        });
        if let Some(publisher) = &self.publisher {
            let this = Arc::downgrade(self);
            publisher.endpoints.on_change(move |change| {
                let this = this.upgrade().filter(|_| !change.own);
                if let Some(publisher) = this.as_ref().and_then(|t| t.publisher.as_ref()) {
                    publisher.queue.push(change.key.clone());
                }
            });
        }
        let this = Arc::downgrade(self);
        stores.leases.on_change(move |change| {
            if let Some(this) = this.upgrade() {
                this.lease(&change.key, change.new.as_deref());
            }
        });
        let this = Arc::downgrade(self);
        stores.dialers.on_change(move |change| {
            if let Some(this) = this.upgrade()
                && this.dialer(&change.key, change.new.as_deref())
            {
                this.queue.push(Work::Dialers);
            }
        });
    }

    fn connector_changed(&self, change: &Change<Connector>) {
        let uid = |c: &Option<Arc<Connector>>| c.as_ref().and_then(|c| c.uid());
        if !change.own {
            self.queue.push(Work::Connector(change.key.clone()));
        }
        if uid(&change.old) != uid(&change.new) {
            self.push_advertisements(&change.key);
        }
        let Some(publisher) = &self.publisher else {
            return;
        };
        let (old, new) = (facts(&change.old), facts(&change.new));
        if old == new {
            return;
        }
        publisher.queue.push(change.key.clone());
        // Whoever waits for the key that this one had may have it now.
        if let Some(id) = old.and_then(|f| f.id) {
            let others = self
                .context
                .stores
                .connectors
                .filter(|c| ready::details(c).is_ok_and(|hint| hint.endpoint_id == id));
            for other in others {
                publisher.queue.push(Key::of(&*other));
            }
        }
    }

    fn class_changed(&self, change: &Change<ConnectorClass>) {
        let controller =
            |c: &Option<Arc<ConnectorClass>>| c.as_ref().map(|c| c.spec.controller_name.clone());
        if controller(&change.old) == controller(&change.new) {
            return;
        }
        let name = &change.key.name;
        let connectors = self
            .context
            .stores
            .connectors
            .filter(|c| c.spec.connector_class_name == *name);
        for connector in connectors {
            let key = Key::of(&*connector);
            self.push_advertisements(&key);
            if let Some(publisher) = &self.publisher {
                publisher.queue.push(key.clone());
            }
            self.queue.push(Work::Connector(key));
        }
    }

    fn push_advertisements(&self, connector: &Key) {
        let all = self
            .context
            .stores
            .advertisements
            .in_namespace(&connector.namespace);
        for advertisement in all {
            if advertisement.spec.connector_ref.name == connector.name {
                self.queue
                    .push(Work::Advertisement(Key::of(&*advertisement)));
            }
        }
    }

    /// Notes a Lease; its Connector is looked at only if that may matter.
    fn lease(&self, key: &Key, lease: Option<&Lease>) {
        let now = self.clock.now();
        let mut known = self.known();
        let Some(lease) = lease else {
            if known.leases.remove(key).is_some() {
                drop(known);
                self.queue.push(Work::Connector(key.clone()));
            }
            return;
        };
        let heartbeat = Heartbeat::of(lease.spec.as_ref());
        let uid = lease.uid().unwrap_or_default();
        let push = match known.leases.get_mut(key) {
            Some((same, liveness)) if *same == uid => {
                let before = liveness.state(now);
                let duration = liveness.duration();
                if liveness.look(heartbeat, now) {
                    tracing::info!(connector = %key, "another agent renews the Lease now");
                }
                let after = liveness.state(now);
                let fresh = |s| matches!(s, liveness::State::Fresh(_));
                !fresh(before)
                    || !fresh(after)
                    || duration != liveness.duration()
                    || liveness.is_contested(now)
            }
            _ => {
                let liveness = Liveness::first(heartbeat, now);
                known.leases.insert(key.clone(), (uid, liveness));
                true
            }
        };
        drop(known);
        if push {
            self.queue.push(Work::Connector(key.clone()));
        }
    }

    /// Notes a dialer's Lease; whether the set may be another now.
    fn dialer(&self, key: &Key, lease: Option<&Lease>) -> bool {
        let now = self.clock.now();
        let mut known = self.known();
        match lease {
            None => known.dialers.gone(&key.name),
            Some(lease) => {
                if let Err(error) = known.dialers.look(lease, now) {
                    tracing::warn!("{error}; it lets nobody in");
                }
            }
        }
        let (allowed, _, _) = known.dialers.allowed(now);
        allowed != *known.allowed
    }

    async fn look(&self, work: Work) -> Outcome {
        let started = Instant::now();
        let (kind, outcome) = match &work {
            Work::Dialers => return self.update_dialers(),
            Work::Connector(key) => ("Connector", self.connector(key).await),
            Work::Advertisement(key) => ("ConnectorAdvertisement", self.advertisement(key).await),
        };
        let failed = match outcome {
            Outcome::Failed(class) => Some(class),
            _ => None,
        };
        let metrics = &self.context.metrics;
        metrics.reconciled(kind, started.elapsed(), failed);
        outcome
    }

    /// Takes the set of dialers anew; every Connector hears of another one.
    fn update_dialers(&self) -> Outcome {
        let now = self.clock.now();
        let mut known = self.known();
        let (allowed, next, left_out) = known.dialers.allowed(now);
        if allowed != *known.allowed {
            if left_out > 0 {
                tracing::warn!(left_out, "more dialers than a Connector can list");
            }
            known.allowed = Arc::new(allowed);
            drop(known);
            for object in self.context.stores.connectors.all() {
                self.queue.push(Work::Connector(Key::of(&*object)));
            }
        }
        next.map_or(Outcome::Done, |next| {
            Outcome::After(next.max(DIALERS_DUE_AT_LEAST))
        })
    }

    /// Whose a Connector is.
    fn class(&self, connector: &Connector) -> Class {
        let key = Key::new("", &connector.spec.connector_class_name);
        ready::class_of(self.context.stores.classes.get(&key).as_deref())
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What of a Connector matters to its records.
#[derive(Debug, PartialEq, Eq)]
struct Facts {
    uid: Option<String>,
    class: String,
    deleting: bool,
    id: Option<EndpointId>,
    hint: Result<adit_api::ConnectorHint, String>,
}

fn facts(connector: &Option<Arc<Connector>>) -> Option<Facts> {
    let connector = connector.as_ref()?;
    let hint = ready::details(connector);
    Some(Facts {
        uid: connector.uid(),
        class: connector.spec.connector_class_name.clone(),
        deleting: connector.metadata.deletion_timestamp.is_some(),
        id: hint.as_ref().ok().map(|h| h.endpoint_id),
        hint,
    })
}

/// The outcome of a write that failed, said once in the log by its class.
fn failed(what: &str, key: &Key, class: ErrorClass, error: &dyn std::fmt::Display) -> Outcome {
    match class {
        ErrorClass::Conflict | ErrorClass::NotFound => {
            tracing::debug!(object = %key, %error, "{what}; looking again");
        }
        _ => tracing::warn!(object = %key, %error, "{what}; trying again"),
    }
    Outcome::Failed(class)
}
