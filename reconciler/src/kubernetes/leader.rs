//! Which of several reconcilers works: the one that holds a Lease.
//!
//! ```text
//! holder     renew ── renew ── renew ──✗──✗──✗──┤ lost: it stops writing
//!            0                 │    2/3         │
//! others                       └── unchanged for a whole duration ──► taken
//! ```
//!
//! Nobody's clock is believed. A candidate measures with its own monotonic
//! clock how long the Lease has not changed, from when it saw it; a holder
//! counts from before it sent its last renewal that succeeded, and gives up
//! after two thirds of the duration. So the holder has always stopped first,
//! however far the clocks are apart. A process that is frozen and woken again
//! finds [`Fence::open`] closed.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use adit_control::{
    Class,
    lease::{self, Schedule},
};
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams, core::ObjectMeta};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// How long after a holder's death another takes over, at most about; what
/// client-go's elections use.
pub const DURATION: Duration = Duration::from_secs(15);
/// The field manager of the Lease.
const MANAGER: &str = "adit-reconciler";
/// For giving the Lease back.
const RELEASE: Duration = Duration::from_secs(5);

/// Who stands for what.
#[derive(Debug, Clone)]
pub struct Election {
    /// The Lease's namespace.
    pub namespace: String,
    /// The Lease's name.
    pub lease: String,
    /// Who this process is: never the same for two, nor after a restart.
    pub identity: String,
    /// How long the Lease outlives its holder.
    pub duration: Duration,
}

/// The Lease, held. Dropped without [`Held::release`], it is no longer renewed.
#[derive(Debug)]
pub struct Held {
    /// Cancelled when it is held no longer. Whoever works then must stop.
    pub lost: CancellationToken,
    /// To ask before each write.
    pub fence: Fence,
    stop: CancellationToken,
    renewing: tokio::task::JoinHandle<()>,
    term: Arc<Term>,
}

/// Whether the Lease is held at this moment; clones share it.
#[derive(Debug, Clone)]
pub struct Fence {
    start: Instant,
    /// Milliseconds after `start`.
    until: Arc<AtomicU64>,
}

/// What holder and renewal share.
#[derive(Debug)]
struct Term {
    api: ApiOf,
    election: Election,
    seen: Mutex<Lease>,
    fence: Fence,
}

/// `Api<Lease>`, which has no `Debug` worth showing.
#[derive(Clone)]
struct ApiOf(Api<Lease>);

/// What a candidate has seen of the Lease, by its own clock.
#[derive(Debug, Clone, Default)]
struct Watch {
    spec: Option<LeaseSpec>,
    since: Option<Instant>,
}

/// What a renewal came to.
enum Renewal {
    Done(Box<Lease>),
    /// Somebody else holds it.
    Taken(String),
    Failed(String),
}

impl Election {
    /// For the Lease `namespace/lease`, as a process that nobody was before.
    pub fn new(namespace: &str, lease: &str) -> Self {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        Self {
            namespace: namespace.into(),
            lease: lease.into(),
            identity: format!("{}_{:016x}", host.trim(), rand::random::<u64>()),
            duration: DURATION,
        }
    }

    /// Waits until the Lease is held; `None` when `shutdown` comes first.
    pub async fn acquire(&self, client: Client, shutdown: &CancellationToken) -> Option<Held> {
        let api = ApiOf(Api::namespaced(client, &self.namespace));
        shutdown
            .run_until_cancelled(self.wait(api))
            .await
            .map(|(api, seen, at)| self.hold(api, seen, at))
    }

    /// The Lease, and when it was asked for.
    async fn wait(&self, api: ApiOf) -> (ApiOf, Lease, Instant) {
        let mut watch = Watch::default();
        let mut said = String::new();
        let attempt = Schedule::new(self.duration).attempt();
        loop {
            let started = Instant::now();
            let state = match timeout(attempt, self.try_take(&api.0, &mut watch)).await {
                Ok(Ok(Ok(lease))) => {
                    tracing::info!(lease = %self.lease, identity = %self.identity, "leading");
                    return (api, lease, started);
                }
                Ok(Ok(Err(holder))) => format!("{holder} leads"),
                Ok(Err(error)) => explain(&error),
                Err(_) => format!("the API server did not answer within {attempt:?}"),
            };
            // Said when it changes: this loop may go on for months.
            if said != state {
                tracing::info!(lease = %self.lease, "waiting to lead: {state}");
                said = state;
            }
            sleep((self.duration / 8).mul_f64(1.0 - 0.3 * rand::random::<f64>())).await;
        }
    }

    /// Takes the Lease if it is free; else says who holds it.
    async fn try_take(
        &self,
        api: &Api<Lease>,
        watch: &mut Watch,
    ) -> kube::Result<Result<Lease, String>> {
        let params = self.params();
        let Some(seen) = api.get_opt(&self.lease).await? else {
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(self.lease.clone()),
                    namespace: Some(self.namespace.clone()),
                    ..ObjectMeta::default()
                },
                spec: Some(self.spec(&LeaseSpec::default())),
            };
            return api.create(&params, &lease).await.map(Ok);
        };
        if let Some(holder) = watch.holder(&seen, Instant::now(), self.duration) {
            return Ok(Err(holder));
        }
        let spec = self.spec(&seen.spec.clone().unwrap_or_default());
        let lease = Lease {
            spec: Some(spec),
            ..seen
        };
        // With the version that was seen: of two candidates one is refused.
        api.replace(&self.lease, &params, &lease).await.map(Ok)
    }

    /// The Lease in our hands.
    fn spec(&self, old: &LeaseSpec) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let kept = old.holder_identity.as_deref() == Some(&self.identity);
        let seconds = i32::try_from(self.duration.as_secs()).unwrap_or(i32::MAX);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(seconds.max(1)),
            renew_time: Some(now.clone()),
            acquire_time: if kept {
                old.acquire_time.clone()
            } else {
                Some(now)
            },
            lease_transitions: Some(
                old.lease_transitions
                    .unwrap_or(0)
                    .max(0)
                    .saturating_add(i32::from(!kept)),
            ),
            ..old.clone()
        }
    }

    fn params(&self) -> PostParams {
        PostParams {
            field_manager: Some(MANAGER.into()),
            ..PostParams::default()
        }
    }

    /// For how long after it was asked for a renewal counts.
    fn term(&self) -> Duration {
        self.duration * 2 / 3
    }

    fn hold(&self, api: ApiOf, seen: Lease, at: Instant) -> Held {
        let fence = Fence {
            start: at,
            until: Arc::default(),
        };
        fence.extend(at + self.term());
        let term = Arc::new(Term {
            api,
            election: self.clone(),
            seen: Mutex::new(seen),
            fence: fence.clone(),
        });
        let (lost, stop) = (CancellationToken::new(), CancellationToken::new());
        let renewing = tokio::spawn(renew(term.clone(), at, lost.clone(), stop.clone()));
        Held {
            lost,
            fence,
            stop,
            renewing,
            term,
        }
    }
}

impl Held {
    /// Gives the Lease back, so that another need not wait for it to expire.
    /// All work must have ended.
    pub async fn release(mut self) {
        self.stop.cancel();
        // It ends at once, and what it may still have sent is known then.
        let _ = (&mut self.renewing).await;
        if self.lost.is_cancelled() {
            return;
        }
        self.fence.close();
        let Term {
            api,
            election,
            seen,
            ..
        } = &*self.term;
        let mut lease = seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = None;
        spec.renew_time = None;
        spec.acquire_time = None;
        let params = election.params();
        let given = api.0.replace(&election.lease, &params, &lease);
        match timeout(RELEASE, given).await {
            Ok(Ok(_)) => tracing::info!(lease = %election.lease, "no longer leading"),
            Ok(Err(error)) => {
                tracing::warn!(lease = %election.lease, "not given back: {}", explain(&error));
            }
            Err(_) => tracing::warn!(lease = %election.lease, "not given back in time"),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.fence.close();
        self.renewing.abort();
    }
}

impl Fence {
    /// One that is never closed: for a process that elects nobody.
    pub fn none() -> Self {
        Self {
            start: Instant::now(),
            until: Arc::new(AtomicU64::new(u64::MAX)),
        }
    }

    /// Whether the Lease is held now.
    pub fn open(&self) -> bool {
        let now = self.start.elapsed().as_millis();
        u64::try_from(now).unwrap_or(u64::MAX) < self.until.load(Ordering::Acquire)
    }

    fn extend(&self, until: Instant) {
        let millis = until.saturating_duration_since(self.start).as_millis();
        let millis = u64::try_from(millis).unwrap_or(u64::MAX);
        self.until.store(millis, Ordering::Release);
    }

    fn close(&self) {
        self.until.store(0, Ordering::Release);
    }
}

impl Watch {
    /// Who holds the Lease, as far as can be told: nobody when it is empty, or
    /// has not changed for its own duration (or ours, if it says none).
    fn holder(&mut self, seen: &Lease, now: Instant, duration: Duration) -> Option<String> {
        if self.spec != seen.spec || self.since.is_none() {
            self.spec.clone_from(&seen.spec);
            self.since = Some(now);
        }
        let holder = lease::holder(seen)?;
        let said = seen.spec.as_ref().and_then(|s| s.lease_duration_seconds);
        // One that says years would never be taken over from.
        let lasts = match said.and_then(|s| u64::try_from(s).ok()) {
            Some(seconds @ 1..=300) => Duration::from_secs(seconds).max(duration),
            _ => duration,
        };
        let unchanged = now.saturating_duration_since(self.since.unwrap_or(now));
        (unchanged < lasts).then(|| holder.chars().take(100).collect())
    }
}

/// Renews until `stop`, or until it cannot be in time.
async fn renew(term: Arc<Term>, at: Instant, lost: CancellationToken, stop: CancellationToken) {
    let election = &term.election;
    let mut schedule = Schedule::new(election.duration);
    let mut until = at + election.term();
    let mut pause = schedule.renewed(rand::random());
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if stop
            .run_until_cancelled(sleep(pause.min(left)))
            .await
            .is_none()
        {
            return;
        }
        let started = Instant::now();
        let left = until.saturating_duration_since(started);
        if left.is_zero() {
            tracing::error!(lease = %election.lease, "no longer leading: the Lease was not renewed in time");
            break;
        }
        let limit = schedule.attempt().min(left);
        let renewal = match timeout(limit, term.renew_once()).await {
            Ok(renewal) => renewal,
            Err(_) => Renewal::Failed(format!("no answer within {limit:?}")),
        };
        pause = match renewal {
            Renewal::Done(lease) => {
                until = started + election.term();
                // Not when it was given up while this was on its way.
                if !stop.is_cancelled() {
                    term.fence.extend(until);
                }
                *term.seen.lock().unwrap_or_else(PoisonError::into_inner) = *lease;
                schedule.renewed(rand::random())
            }
            Renewal::Taken(holder) => {
                tracing::error!(lease = %election.lease, holder, "no longer leading: another process does");
                break;
            }
            Renewal::Failed(reason) => {
                tracing::warn!(lease = %election.lease, "the Lease that says who leads was not renewed: {reason}");
                schedule.failed(rand::random())
            }
        };
    }
    term.fence.close();
    lost.cancel();
}

impl Term {
    async fn renew_once(&self) -> Renewal {
        let Self { api, election, .. } = self;
        let mut lease = self
            .seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        lease.spec = Some(election.spec(&lease.spec.clone().unwrap_or_default()));
        let params = election.params();
        let error = match api.0.replace(&election.lease, &params, &lease).await {
            Ok(lease) => return Renewal::Done(Box::new(lease)),
            Err(error) => error,
        };
        if !matches!(Class::of(&error), Class::Conflict | Class::NotFound) {
            return Renewal::Failed(explain(&error));
        }
        // An earlier attempt of ours, whose answer was lost; or a label; or
        // another holder; or somebody has deleted it.
        match api.0.get_opt(&election.lease).await {
            Ok(Some(now)) if lease::holder(&now) == Some(&election.identity) => {
                *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = now;
                Renewal::Failed("it was changed meanwhile".into())
            }
            Ok(Some(now)) => Renewal::Taken(lease::holder(&now).unwrap_or("nobody").into()),
            Ok(None) => Renewal::Taken("nobody: the Lease was deleted".into()),
            Err(error) => Renewal::Failed(explain(&error)),
        }
    }
}

impl std::fmt::Debug for ApiOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.resource_url())
    }
}

fn explain(error: &kube::Error) -> String {
    match Class::of(error) {
        Class::Forbidden => format!(
            "{error}; let this process get, create and update Leases in its namespace (RBAC), or set --leader-election=false"
        ),
        _ => error.to_string(),
    }
}

#[cfg(test)]
#[path = "leader_tests.rs"]
mod tests;
