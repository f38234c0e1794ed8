//! One connection to each connector, shared by all its streams.

pub mod choice;
mod connector;
mod dial;
mod link;
pub mod state;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use adit_tunnel::{
    endpoint::{EndpointConfig, Supervisor},
    ids::{self, NotAKey},
    meter::Meter,
};
use adit_wire::EndpointId;
use tokio::{runtime::Handle, sync::Semaphore};
use tokio_util::sync::CancellationToken;

pub use connector::{Admission, Connector};
pub use link::{Link, class_of, describe};

use crate::{discovery::Discovery, metrics::Metrics, options::Limits};

/// Beyond this many connectors those that are not in use are forgotten, with
/// their row in the status.
const MAX_CONNECTORS: usize = 64 * 1024;

/// Everything that links need.
#[derive(Debug)]
pub struct Pool {
    /// The iroh endpoint, which the watchdog may replace.
    pub supervisor: Arc<Supervisor>,
    /// Its configuration, for a dial that must not share addresses.
    pub endpoint: EndpointConfig,
    /// Where connectors are.
    pub discovery: Arc<Discovery>,
    /// What nothing may exceed.
    pub limits: Limits,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Bytes of forgotten connectors, so that totals never fall.
    pub forgotten: Meter,
    /// Links that are up.
    pub live: Arc<AtomicUsize>,
    streams: Arc<Semaphore>,
    shards: Vec<Handle>,
    connectors: Mutex<HashMap<EndpointId, Arc<Connector>>>,
}

/// What a pool is made of.
#[derive(Debug)]
pub struct Parts {
    /// See [`Pool::supervisor`].
    pub supervisor: Arc<Supervisor>,
    /// See [`Pool::endpoint`].
    pub endpoint: EndpointConfig,
    /// See [`Pool::discovery`].
    pub discovery: Arc<Discovery>,
    /// See [`Pool::limits`].
    pub limits: Limits,
    /// See [`Pool::metrics`].
    pub metrics: Arc<Metrics>,
    /// See [`Pool::live`].
    pub live: Arc<AtomicUsize>,
    /// The threads that move bytes; at least one.
    pub shards: Vec<Handle>,
}

impl Pool {
    /// An empty pool.
    pub fn new(parts: Parts) -> Self {
        Self {
            streams: Arc::new(Semaphore::new(parts.limits.streams)),
            supervisor: parts.supervisor,
            endpoint: parts.endpoint,
            discovery: parts.discovery,
            limits: parts.limits,
            metrics: parts.metrics,
            forgotten: Meter::default(),
            live: parts.live,
            shards: parts.shards,
            connectors: Mutex::default(),
        }
    }

    /// The shard whose thread serves a connector: the connection's driver and
    /// its streams stay on one core.
    pub fn shard(&self, id: EndpointId) -> usize {
        let [a, b, c, d, ..] = *id.as_bytes();
        u32::from_le_bytes([a, b, c, d]) as usize % self.shards.len()
    }

    /// A shard's runtime.
    pub fn runtime(&self, shard: usize) -> &Handle {
        &self.shards[shard % self.shards.len()]
    }

    /// The connector of this id.
    ///
    /// # Errors
    /// When the id is no key.
    pub fn connector(&self, id: EndpointId) -> Result<Arc<Connector>, NotAKey> {
        let mut all = self.lock();
        if let Some(known) = all.get(&id) {
            return Ok(known.clone());
        }
        let key = ids::to_iroh(id)?;
        if all.len() >= MAX_CONNECTORS {
            all.retain(|_, c| {
                let keep = c.in_use() || Arc::strong_count(c) > 1;
                if !keep {
                    self.forgotten.add_sent(c.meter.sent() as usize);
                    self.forgotten.add_received(c.meter.received() as usize);
                }
                keep
            });
        }
        let connector = Arc::new(Connector::new(
            id,
            key,
            self.shard(id),
            self.limits.streams_per_connector,
        ));
        all.insert(id, connector.clone());
        Ok(connector)
    }

    /// All connectors that have been asked for.
    pub fn connectors(&self) -> Vec<Arc<Connector>> {
        self.lock().values().cloned().collect()
    }

    /// Streams that wait for a place or a dial.
    pub fn queued(&self) -> usize {
        let connectors = self.connectors();
        connectors.iter().map(|c| c.queued()).sum()
    }

    /// Streams that are open.
    pub fn open_streams(&self) -> usize {
        self.limits.streams - self.streams.available_permits()
    }

    /// Ends the rest of connectors whose hints change, until `shutdown`.
    pub async fn follow_hints(self: Arc<Self>, shutdown: CancellationToken) {
        let mut state = self.discovery.subscribe();
        let mut old = state.borrow_and_update().clone();
        loop {
            tokio::select! {
                changed = state.changed() => if changed.is_err() {
                    return shutdown.cancelled().await;
                },
                () = shutdown.cancelled() => return,
            }
            let new = state.borrow_and_update().clone();
            for connector in self.connectors() {
                if old.hints.get(&connector.id) != new.hints.get(&connector.id) {
                    connector.news();
                }
            }
            old = new;
        }
    }

    /// Closes every link.
    pub fn close(&self) {
        for connector in self.connectors() {
            connector.close();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<EndpointId, Arc<Connector>>> {
        self.connectors
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts one up for as long as it lives.
#[derive(Debug)]
pub(crate) struct Count(Arc<AtomicUsize>);

impl Count {
    pub(crate) fn new(counter: &Arc<AtomicUsize>) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self(counter.clone())
    }

    /// Counts, unless there are `most` already.
    pub(crate) fn below(counter: &Arc<AtomicUsize>, most: usize) -> Option<Self> {
        counter
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| {
                (n < most).then_some(n + 1)
            })
            .ok()
            .map(|_| Self(counter.clone()))
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
