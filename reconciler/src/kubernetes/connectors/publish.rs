//! One look at one Connector's records in DNS.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use adit_api::{
    external_dns::DNSEndpoint,
    labels::{MANAGED_BY, MANAGED_BY_LABEL},
    networking::Connector,
};
use adit_control::Class as ErrorClass;
use adit_wire::EndpointId;
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, ResourceExt as _, runtime::watcher};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    super::{
        conditions::{Conditions, State},
        kept::{Kept, Key},
        options::{self, DnsConfig},
        queue::{Outcome, Queue},
        watch,
    },
    Connectors, DNS_WORKERS, Work, failed,
    ready::{self, Class, DNS_PUBLISHED},
};
use crate::dns::{
    Layout, RecordSet,
    claim::{Claim, Owner},
    rfc2136::ServerError,
};

/// How soon a name of somebody who does not tell us is looked at again.
pub(super) const FOREIGN: Duration = Duration::from_secs(300);
/// The records may change between question and update so often.
pub(super) const ATTEMPTS: usize = 4;
/// For one request to the API server.
const TIME: Duration = Duration::from_secs(15);
/// Its UID names the cluster: it lives as long.
const CLUSTER_NAMESPACE: &str = "kube-system";

/// What DNS came to for one Connector: the condition DNSPublished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    state: State,
    reason: &'static str,
    message: String,
}

/// Publishes.
pub(super) struct Publisher {
    pub(super) queue: Queue<Key>,
    pub(super) how: DnsConfig,
    pub(super) endpoints: Kept<DNSEndpoint>,
    memory: Mutex<Memory>,
}

#[derive(Default)]
pub(super) struct Memory {
    cluster: Option<String>,
    pub(super) published: BTreeMap<Key, Published>,
}

/// What this process has made sure of.
#[derive(Debug, Clone)]
pub(super) struct Published {
    pub(super) claim: Claim,
    pub(super) id: EndpointId,
    pub(super) records: RecordSet,
    pub(super) checked: Instant,
}

/// What could not be done.
#[derive(Debug, thiserror::Error)]
pub(super) enum PublishError {
    #[error(transparent)]
    Server(#[from] ServerError),
    #[error("ask the API server {what}: {source}")]
    Api {
        what: String,
        source: Box<kube::Error>,
    },
    #[error("ask the API server {0}: no answer in time")]
    Silent(String),
    #[error("the records changed each of {ATTEMPTS} times between question and update")]
    Restless,
    #[error("this reconciler does not lead any more")]
    NotLeading,
}

impl Verdict {
    pub(super) fn new(state: State, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            state,
            reason,
            message: message.into(),
        }
    }

    /// Sets the condition.
    pub(super) fn set(&self, conditions: &mut Conditions<'_>) {
        conditions.set(DNS_PUBLISHED, self.state, self.reason, &self.message);
    }

    pub(super) fn published(message: String) -> Self {
        Self::new(State::True, "Published", message)
    }

    pub(super) fn pending(message: impl Into<String>) -> Self {
        Self::new(State::False, "Pending", message)
    }

    pub(super) fn deferred(name: &str, owner: &Owner) -> Self {
        Self::new(
            State::False,
            "DeferredToOwner",
            format!(
                "{name} is published by {owner}; give each agent a key of its own, or remove the other"
            ),
        )
    }
}

impl PublishError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Server(ServerError::Unreachable { .. }) => ErrorClass::Unreachable,
            Self::Server(ServerError::Changed(_)) | Self::Restless => ErrorClass::Conflict,
            Self::Server(_) => ErrorClass::Invalid,
            Self::Api { source, .. } => ErrorClass::of(source),
            Self::Silent(_) | Self::NotLeading => ErrorClass::Unreachable,
        }
    }

    fn verdict(&self) -> Verdict {
        let reason = match self {
            Self::Server(error) => error.reason(),
            _ => "Pending",
        };
        Verdict::new(State::False, reason, format!("{self}; trying again"))
    }
}

impl Publisher {
    pub(super) fn new(how: DnsConfig) -> Self {
        Self {
            queue: Queue::new(),
            how,
            endpoints: Kept::new(),
            memory: Mutex::default(),
        }
    }

    pub(super) fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connectors {
    /// Looks after DNS until the queue is closed.
    pub(super) async fn publish(&self, shutdown: &CancellationToken) {
        let Some(publisher) = &self.publisher else {
            return;
        };
        let tasks = TaskTracker::new();
        if matches!(publisher.how.publisher, options::Publisher::Endpoint) {
            self.watch_endpoints(publisher, &tasks, shutdown);
        }
        for object in self.context.stores.connectors.all() {
            publisher.queue.push(Key::of(&*object));
        }
        let work = publisher.queue.work(DNS_WORKERS, async |key: Key| {
            let started = Instant::now();
            let outcome = self.publish_one(publisher, &key).await;
            let class = match outcome {
                Outcome::Failed(class) => Some(class),
                _ => None,
            };
            let metrics = &self.context.metrics;
            metrics.reconciled("DNS", started.elapsed(), class);
            outcome
        });
        let sweep = async {
            if let options::Publisher::Rfc2136(server) = &publisher.how.publisher {
                self.sweep(publisher, server, shutdown).await;
            }
        };
        tokio::join!(work, sweep);
        tasks.close();
        tasks.wait().await;
    }

    fn watch_endpoints(
        &self,
        publisher: &Publisher,
        tasks: &TaskTracker,
        shutdown: &CancellationToken,
    ) {
        let config = watcher::Config::default().labels(&format!("{MANAGED_BY_LABEL}={MANAGED_BY}"));
        let client = self.context.writer.client();
        let scopes: Vec<Option<String>> = match self.context.config.namespaces.as_slice() {
            [] => vec![None],
            some => some.iter().cloned().map(Some).collect(),
        };
        for scope in scopes {
            let api = match &scope {
                None => Api::all(client.clone()),
                Some(namespace) => Api::namespaced(client.clone(), namespace),
            };
            let metrics = self.context.metrics.clone();
            tasks.spawn(watch::watch(
                publisher.endpoints.clone(),
                api,
                config.clone(),
                scope,
                move || metrics.watch_failed("DNSEndpoint"),
                shutdown.clone(),
            ));
        }
    }

    async fn publish_one(&self, publisher: &Publisher, key: &Key) -> Outcome {
        let connector = self.context.stores.connectors.get(key);
        // A class that is missing for a moment takes nobody's records away.
        let unclear = |c: &Connector| {
            self.class(c) == Class::Missing && c.metadata.deletion_timestamp.is_none()
        };
        if connector.as_deref().is_some_and(unclear) {
            return Outcome::Done;
        }
        let layout = &publisher.how.layout;
        let result = match &publisher.how.publisher {
            options::Publisher::Rfc2136(server) => {
                let connector = connector.as_deref();
                self.update(publisher, layout, server, key, connector).await
            }
            options::Publisher::Endpoint => {
                let Some(connector) = connector else {
                    // The object goes with its owner.
                    self.set_verdict(key, None);
                    return Outcome::Done;
                };
                return self.endpoint(publisher, layout, key, &connector).await;
            }
        };
        match result {
            Ok((verdict, next)) => {
                self.set_verdict(key, verdict);
                next.map_or(Outcome::Done, Outcome::After)
            }
            Err(error) => {
                self.set_verdict(key, Some(error.verdict()));
                failed("its DNS records", key, error.class(), &error)
            }
        }
    }

    /// What a Connector is to have in DNS; `None`: it is not ours, or gone.
    pub(super) fn wanted(&self, layout: &Layout, connector: Option<&Connector>) -> Option<Wanted> {
        let connector = connector?;
        let ours = self.class(connector) == Class::Ours;
        if !ours || connector.metadata.deletion_timestamp.is_some() {
            return None;
        }
        Some(match ready::details(connector) {
            Err(why) => Wanted::Nothing(why),
            Ok(hint) => match layout.records(&hint) {
                None => Wanted::Nothing("The agent reports nothing that can be published.".into()),
                Some(records) => Wanted::Records(hint.endpoint_id, records),
            },
        })
    }

    pub(super) async fn cluster(&self, publisher: &Publisher) -> Result<String, PublishError> {
        if let Some(cluster) = publisher.memory().cluster.clone() {
            return Ok(cluster);
        }
        let api: Api<Namespace> = Api::all(self.context.writer.client().clone());
        let what = format!("for the namespace {CLUSTER_NAMESPACE}, whose UID names the cluster");
        let namespace = ask(what, api.get(CLUSTER_NAMESPACE)).await?;
        let cluster = namespace.uid().unwrap_or_default();
        publisher.memory().cluster = Some(cluster.clone());
        Ok(cluster)
    }

    pub(super) fn set_verdict(&self, key: &Key, verdict: Option<Verdict>) {
        let mut known = self.known();
        if known.verdicts.get(key) == verdict.as_ref() {
            return;
        }
        match verdict {
            Some(verdict) => known.verdicts.insert(key.clone(), verdict),
            None => known.verdicts.remove(key),
        };
        drop(known);
        self.queue.push(Work::Connector(key.clone()));
    }
}

pub(super) enum Wanted {
    /// Why not.
    Nothing(String),
    Records(EndpointId, RecordSet),
}

pub(super) async fn ask<T>(
    what: String,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, PublishError> {
    match tokio::time::timeout(TIME, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(source)) => Err(PublishError::Api {
            what,
            source: Box::new(source),
        }),
        Err(_) => Err(PublishError::Silent(what)),
    }
}
