//! One look at one Connector's records in DNS.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use adit_api::{external_dns::DNSEndpoint, networking::Connector};
use adit_control::Class as ErrorClass;
use adit_wire::EndpointId;
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, ResourceExt as _, runtime::watcher};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    super::{
        conditions::{Conditions, State},
        kept::{Health, Kept, Key},
        options::{self, DnsConfig},
        queue::{Outcome, Queue},
        stores::MANAGED_BY,
        watch,
        writer::{WriteError, is_as_written},
    },
    Connectors, DNS_WORKERS, Work, failed,
    ready::{self, Class, DNS_PUBLISHED},
};
use crate::dns::{
    Layout, RecordSet, Server,
    claim::{Decision, Found, Owner, decide},
    endpoint,
    records::Claim,
    rfc2136::ServerError,
};

/// What was right is looked at again after this time: somebody may have
/// emptied the zone.
const RECHECK: Duration = Duration::from_secs(3600);
/// How soon a name of somebody who does not tell us is looked at again.
const FOREIGN: Duration = Duration::from_secs(300);
/// While what is there is still being listed.
const SOON: Duration = Duration::from_millis(200);
/// The records may change between question and update so often.
const ATTEMPTS: usize = 4;
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
struct Memory {
    cluster: Option<String>,
    published: BTreeMap<Key, Published>,
}

/// What this process has made sure of.
#[derive(Debug, Clone)]
struct Published {
    claim: Claim,
    id: EndpointId,
    records: RecordSet,
    checked: Instant,
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
}

impl Verdict {
    fn new(state: State, reason: &'static str, message: impl Into<String>) -> Self {
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

    fn published(message: String) -> Self {
        Self::new(State::True, "Published", message)
    }

    fn pending(message: impl Into<String>) -> Self {
        Self::new(State::False, "Pending", message)
    }

    fn deferred(name: &str, owner: &Owner) -> Self {
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
            Self::Silent(_) => ErrorClass::Unreachable,
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

    fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
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
        let (label, value) = MANAGED_BY;
        let config = watcher::Config::default().labels(&format!("{label}={value}"));
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
    fn wanted(&self, layout: &Layout, connector: Option<&Connector>) -> Option<Wanted> {
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

    async fn update(
        &self,
        publisher: &Publisher,
        layout: &Layout,
        server: &Server,
        key: &Key,
        connector: Option<&Connector>,
    ) -> Result<(Option<Verdict>, Option<Duration>), PublishError> {
        let wanted = self.wanted(layout, connector);
        let uid = connector.and_then(|c| c.uid()).unwrap_or_default();
        let before = publisher.memory().published.get(key).cloned();
        if let Some(before) = before {
            let same = match &wanted {
                Some(Wanted::Records(id, records)) => {
                    let same_name = before.claim.uid == uid && before.id == *id;
                    if same_name && before.records == *records {
                        let age = before.checked.elapsed();
                        if age < RECHECK {
                            return Ok((Some(said(server, records)), Some(RECHECK - age)));
                        }
                    }
                    same_name
                }
                _ => false,
            };
            if !same {
                self.remove(layout, server, before.id, &before.claim)
                    .await?;
                publisher.memory().published.remove(key);
            }
        }
        let (id, records) = match wanted {
            None => return Ok((None, None)),
            Some(Wanted::Nothing(why)) => return Ok((Some(Verdict::pending(why)), None)),
            Some(Wanted::Records(id, records)) => (id, records),
        };
        let claim = Claim {
            uid,
            cluster: self.cluster(publisher).await?,
            namespace: key.namespace.clone(),
            connector: key.name.clone(),
        };
        if self.context.config.dry_run {
            tracing::info!(object = %key, ?records, "dry run: would publish");
            return Ok((Some(Verdict::pending("This is a dry run.")), None));
        }
        if let Some(owner) = self.write(layout, server, id, &claim, &records).await? {
            let verdict = Verdict::deferred(&records.name, &owner);
            return Ok((Some(verdict), Some(FOREIGN)));
        }
        let verdict = said(server, &records);
        let published = Published {
            claim,
            id,
            records,
            checked: Instant::now(),
        };
        publisher.memory().published.insert(key.clone(), published);
        Ok((Some(verdict), Some(RECHECK)))
    }

    /// Brings the server to have these records; who has the name if not us.
    async fn write(
        &self,
        layout: &Layout,
        server: &Server,
        id: EndpointId,
        claim: &Claim,
        records: &RecordSet,
    ) -> Result<Option<Owner>, PublishError> {
        let claim_name = layout.claim_name(id);
        for _ in 0..ATTEMPTS {
            let found = server.find(&records.name, &claim_name).await?;
            let done = match decide(&found, claim, Some(records)) {
                Decision::Nothing | Decision::Remove => return Ok(None),
                Decision::Leave(owner) => return Ok(Some(owner)),
                Decision::Create => server.create(&claim_name, claim, records).await,
                Decision::Replace => server.replace(&claim_name, &found, claim, records).await,
                Decision::AskAbout(other) => {
                    if self.publishes(&other, id).await? {
                        return Ok(Some(Owner::Connector(other)));
                    }
                    tracing::info!(
                        name = records.name,
                        "taking over from a Connector that is gone"
                    );
                    server.replace(&claim_name, &found, claim, records).await
                }
            };
            match done {
                Ok(()) => {
                    tracing::info!(name = records.name, "published in DNS");
                    self.context.metrics.wrote("DNS", "update");
                    return Ok(None);
                }
                Err(ServerError::Changed(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(PublishError::Restless)
    }

    /// Removes what a claim of ours covers.
    pub(super) async fn remove(
        &self,
        layout: &Layout,
        server: &Server,
        id: EndpointId,
        claim: &Claim,
    ) -> Result<(), PublishError> {
        let (name, claim_name) = (layout.name(id), layout.claim_name(id));
        for _ in 0..ATTEMPTS {
            let found: Found = server.find(&name, &claim_name).await?;
            if decide(&found, claim, None) != Decision::Remove {
                return Ok(());
            }
            if self.context.config.dry_run {
                tracing::info!(name, "dry run: would remove from DNS");
                return Ok(());
            }
            match server.remove(&name, &claim_name, &found).await {
                Ok(()) => {
                    tracing::info!(name, "removed from DNS");
                    self.context.metrics.wrote("DNS", "remove");
                    return Ok(());
                }
                Err(ServerError::Changed(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(PublishError::Restless)
    }

    /// Whether the Connector of a claim is there and still has that key: asked
    /// live, because a watch may be behind.
    pub(super) async fn publishes(
        &self,
        claim: &Claim,
        id: EndpointId,
    ) -> Result<bool, PublishError> {
        let what = format!("for Connector {}/{}", claim.namespace, claim.connector);
        let client = self.context.writer.client().clone();
        let api: Api<Connector> = Api::namespaced(client, &claim.namespace);
        let answer = ask(what, api.get_opt(&claim.connector)).await?;
        let Some(connector) = answer.filter(|c| c.uid().as_deref() == Some(&claim.uid)) else {
            return Ok(false);
        };
        let class = self.class(&connector);
        let hint = ready::details(&connector);
        Ok(class == Class::Ours
            && connector.metadata.deletion_timestamp.is_none()
            && hint.is_ok_and(|h| h.endpoint_id == id))
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

    async fn endpoint(
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
    fn older(&self, connector: &Connector, id: EndpointId) -> Option<std::sync::Arc<Connector>> {
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

    fn set_verdict(&self, key: &Key, verdict: Option<Verdict>) {
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

enum Wanted {
    /// Why not.
    Nothing(String),
    Records(EndpointId, RecordSet),
}

fn said(server: &Server, records: &RecordSet) -> Verdict {
    Verdict::published(format!(
        "{} records at {} on DNS server {}",
        records.texts.len(),
        records.name,
        server.addr()
    ))
}

async fn ask<T>(
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
