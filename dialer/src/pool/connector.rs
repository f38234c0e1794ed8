//! One connector: its link, the streams through it, and those that wait.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Instant,
};

use adit_tunnel::meter::Meter;
use adit_wire::{EndpointId, ErrorClass};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::{
    Count, Pool, dial,
    link::Link,
    state::{Ask, LinkState, Phase},
};

/// One connector, whether connected or not.
#[derive(Debug)]
pub struct Connector {
    /// Its key as the wire carries it.
    pub id: EndpointId,
    /// The same, as iroh uses it.
    pub(super) key: iroh::EndpointId,
    /// The thread that serves it.
    pub shard: usize,
    /// Bytes through it.
    pub meter: Meter,
    inner: Mutex<Inner>,
    /// Tells waiting streams that a dial has ended.
    changed: watch::Sender<()>,
    places: Arc<Semaphore>,
    queued: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    total: AtomicU64,
}

#[derive(Debug)]
struct Inner {
    state: LinkState,
    link: Option<Arc<Link>>,
    /// Why the connector rests.
    rest: Option<LinkFailure>,
    /// The last failure, of the link or of a stream, for `/status`.
    failure: Option<(LinkFailure, Instant)>,
    /// The name of the last target that used it.
    name: Option<Arc<str>>,
}

/// Why there is no link.
#[derive(Debug, Clone, thiserror::Error)]
#[error("connector {}: {text}", id.short())]
pub struct LinkFailure {
    /// The connector.
    pub id: EndpointId,
    /// `offline`, or `denied` when it does not want this dialer.
    pub class: ErrorClass,
    /// For logs.
    pub text: String,
}

/// A stream's place among the open ones.
#[derive(Debug)]
pub struct Admission {
    _connector: OwnedSemaphorePermit,
    _total: OwnedSemaphorePermit,
    _open: Count,
}

/// The queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueFull;

/// What `/status` shows.
#[derive(Debug)]
pub struct Snapshot {
    /// The link's life.
    pub phase: Phase,
    /// The link.
    pub link: Option<Arc<Link>>,
    /// The last failure, and when.
    pub failure: Option<(LinkFailure, Instant)>,
    /// The name of the last target that used it.
    pub name: Option<Arc<str>>,
    /// Streams open now.
    pub open: usize,
    /// Streams served.
    pub total: u64,
}

impl Connector {
    pub(super) fn new(id: EndpointId, key: iroh::EndpointId, shard: usize, places: usize) -> Self {
        Self {
            id,
            key,
            shard,
            meter: Meter::default(),
            inner: Mutex::new(Inner {
                state: LinkState::default(),
                link: None,
                rest: None,
                failure: None,
                name: None,
            }),
            changed: watch::channel(()).0,
            places: Arc::new(Semaphore::new(places)),
            queued: Arc::default(),
            open: Arc::default(),
            total: AtomicU64::new(0),
        }
    }

    /// Whether a link is up.
    pub fn is_live(&self) -> bool {
        let inner = self.lock();
        inner.link.as_ref().is_some_and(|l| !l.lost.is_cancelled())
    }

    /// The link: the one that is up, or the result of the one dial that all
    /// who ask wait for. The caller limits the time.
    ///
    /// # Errors
    /// When the dial failed, now or a moment ago.
    pub async fn link(self: &Arc<Self>, pool: &Arc<Pool>) -> Result<Arc<Link>, LinkFailure> {
        let mut changed = self.changed.subscribe();
        loop {
            changed.borrow_and_update();
            {
                let mut inner = self.lock();
                match inner.state.ask(Instant::now()) {
                    Ask::Use => match inner.link.clone() {
                        Some(link) if !link.lost.is_cancelled() => return Ok(link),
                        // Lost, and nobody has said so yet.
                        _ => {
                            inner.state.lost();
                            inner.link = None;
                            continue;
                        }
                    },
                    ask @ (Ask::Dial | Ask::Probe) => {
                        // Whoever still used the old link must let it go: iroh
                        // would send the new dial to the old address.
                        let old = inner.link.take();
                        let dial = dial::run(pool.clone(), self.clone(), old);
                        pool.runtime(self.shard).spawn(dial);
                        if ask == Ask::Probe {
                            return Err(self.known(&inner));
                        }
                    }
                    Ask::Wait => {}
                    Ask::Resting => return Err(self.known(&inner)),
                }
            }
            if changed.changed().await.is_err() {
                return Err(self.failure("the dialer is shutting down"));
            }
        }
    }

    /// Why the last dial failed.
    fn known(&self, inner: &Inner) -> LinkFailure {
        let known = inner.rest.clone();
        known.unwrap_or_else(|| self.failure("unreachable"))
    }

    /// A place among the waiting, if the queue has one.
    ///
    /// # Errors
    /// When it has none.
    pub(crate) fn enqueue(&self, pool: &Pool) -> Result<Count, QueueFull> {
        Count::below(&self.queued, pool.limits.queue).ok_or(QueueFull)
    }

    /// A place among the open streams. The caller limits the time.
    pub async fn admit(&self, pool: &Pool) -> Option<Admission> {
        let connector = self.places.clone().acquire_owned().await.ok()?;
        let total = pool.streams.clone().acquire_owned().await.ok()?;
        Some(Admission {
            _connector: connector,
            _total: total,
            _open: Count::new(&self.open),
        })
    }

    /// A stream is through.
    pub fn served(&self, name: &str) {
        self.total.fetch_add(1, Ordering::Relaxed);
        let mut inner = self.lock();
        if !name.is_empty() && inner.name.as_deref() != Some(name) {
            inner.name = Some(name.into());
        }
    }

    /// Streams open now.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Streams waiting now.
    pub fn queued(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }

    /// For `/status`.
    pub fn snapshot(&self) -> Snapshot {
        let inner = self.lock();
        Snapshot {
            phase: inner.state.phase(),
            link: inner.link.clone(),
            failure: inner.failure.clone(),
            name: inner.name.clone(),
            open: self.open(),
            total: self.total.load(Ordering::Relaxed),
        }
    }

    /// Notes why a stream failed here.
    pub fn note(&self, class: ErrorClass, text: &str) {
        let failure = LinkFailure {
            class,
            ..self.failure(text)
        };
        self.lock().failure = Some((failure, Instant::now()));
    }

    /// This link is gone. Says so once; later calls and other links change
    /// nothing.
    pub fn lost(&self, link: &Arc<Link>, class: ErrorClass, text: &str) {
        if self.forget(link, class, text) {
            self.note(class, text);
            tracing::info!(connector = %self.id.short(), reason = text, "disconnected");
        }
    }

    /// This link was closed because nobody needs it.
    pub(super) fn released(&self, link: &Arc<Link>) {
        if self.forget(link, ErrorClass::Offline, "not connected") {
            tracing::debug!(connector = %self.id.short(), "disconnected: no stream for a while");
        }
    }

    fn forget(&self, link: &Arc<Link>, class: ErrorClass, text: &str) -> bool {
        link.lost.cancel();
        {
            let mut inner = self.lock();
            if !inner.link.as_ref().is_some_and(|l| Arc::ptr_eq(l, link)) {
                return false;
            }
            inner.link = None;
            if matches!(class, ErrorClass::Denied | ErrorClass::Overloaded) {
                inner.rest = Some(LinkFailure {
                    class,
                    ..self.failure(text)
                });
                inner.state.rejected(Instant::now(), rand::random());
            } else {
                inner.state.lost();
            }
        }
        self.changed.send_replace(());
        true
    }

    pub(super) fn dialled(&self, link: Arc<Link>) {
        {
            let mut inner = self.lock();
            inner.state.dialled();
            inner.link = Some(link);
        }
        self.changed.send_replace(());
    }

    pub(super) fn dial_failed(&self, text: &str) {
        self.note(ErrorClass::Offline, text);
        {
            let mut inner = self.lock();
            inner.rest = Some(self.failure(text));
            inner.state.failed(Instant::now(), rand::random());
        }
        self.changed.send_replace(());
    }

    pub(super) fn news(&self) {
        self.lock().state.news();
    }

    pub(super) fn in_use(&self) -> bool {
        let inner = self.lock();
        inner.link.is_some() || inner.state.phase() == Phase::Dialing || self.open() > 0
    }

    pub(super) fn close(&self) {
        let link = self.lock().link.take();
        if let Some(link) = link {
            link.shut_down();
        }
    }

    fn failure(&self, text: &str) -> LinkFailure {
        LinkFailure {
            id: self.id,
            class: ErrorClass::Offline,
            text: text.into(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
