//! The agent beside a service: it lets chosen dialers in by their keys, and
//! connects them to chosen services.
//!
//! ```text
//! dialer ══iroh══► acceptor ─► stream ─► policy ─► limits ─► service
//!                  (key?)      (head)    (target?) (place)   (connect, splice)
//! ```
//!
//! * [`Options`] → [`Config`]: what the operator sets.
//! * [`policy`]: the two lists, who and what; a reload replaces them and cuts
//!   what they no longer allow.
//! * [`register`]: its objects in a Kubernetes API, where it is given one.
//! * [`Connector`]: a running one; [`run`] is one from start to SIGTERM.
//!
//! It opens no port but the UDP sockets of its iroh endpoint, and connects to
//! nothing that is not advertised.

mod acceptor;
mod dialers;
mod limits;
mod lists;
mod metrics;
mod options;
pub mod policy;
pub mod register;
mod reload;
mod resolve;
mod service;
mod stream;

use std::{
    sync::{Arc, atomic::AtomicUsize},
    time::{Duration, Instant},
};

use adit_control::Contact;
use adit_tunnel::{
    admin::{self, Admin, AdminAddr, AdminError},
    endpoint::{EndpointError, Supervisor},
    ids,
    status::{Role, Status},
    throttle::Throttle,
};
use adit_wire::connect::{ALPN, CLOSE_SHUTDOWN};
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use options::{Config, ConfigError, Limits, Options, Times, Watched};
pub use resolve::Resolver;

use dialers::Dialers;
use limits::Places;
use lists::Lists;
use metrics::{End, Metrics, Snapshot};
use policy::Policy;
use register::{Registration, RegistrationError};

/// How long dialers get to hear that the endpoint is closed.
const GOODBYE: Duration = Duration::from_secs(1);

/// Why a connector did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The iroh endpoint.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The admin server.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The Kubernetes API.
    #[error(transparent)]
    Register(#[from] RegistrationError),
}

/// A running connector.
pub struct Connector {
    shared: Arc<Shared>,
    supervisor: Arc<Supervisor>,
    admin: AdminAddr,
    started: Instant,
    registration: Option<Registration>,
    /// Ends what serves the connector itself: admin server, watchers.
    stop: CancellationToken,
}

/// What all tasks of a connector see.
struct Shared {
    lists: Arc<Lists>,
    times: Times,
    limits: Limits,
    resolver: Resolver,
    places: Arc<Places>,
    handshakes: Arc<Semaphore>,
    dialers: Arc<Dialers>,
    metrics: Arc<Metrics>,
    tasks: TaskTracker,
    /// New connections and streams are turned away.
    draining: CancellationToken,
    /// Streams that are still open are cut.
    cut: CancellationToken,
    stranger_log: Throttle,
    handshake_log: Throttle,
    denied_log: Throttle,
    failed_log: Throttle,
}

/// Runs a connector until `shutdown`, then drains it.
///
/// # Errors
/// When it cannot start.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), StartError> {
    let grace = config.times.grace;
    let connector = Connector::start(config).await?;
    shutdown.cancelled().await;
    connector.drain(grace).await;
    Ok(())
}

impl Connector {
    /// Binds everything and begins to serve.
    ///
    /// # Errors
    /// When the UDP sockets or the admin address cannot be bound.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let mut limits = config.limits;
        limits.streams = limits::fit_open_files(limits.streams);
        if limits.streams < config.limits.streams {
            tracing::warn!(
                wanted = config.limits.streams,
                max_streams = limits.streams,
                "the open-files limit leaves room for fewer streams; raise `ulimit -n`"
            );
        }
        let relays_configured = !config.endpoint.relays.is_empty();
        let live = Arc::new(AtomicUsize::new(0));
        let stop = CancellationToken::new();
        let supervisor =
            Supervisor::start(config.endpoint, &[ALPN], live.clone(), stop.clone()).await?;
        let supervisor = Arc::new(supervisor);
        let places = Places::new(
            limits.streams,
            limits.streams_per_dialer,
            limits.queue,
            config.times.queue,
        );
        let shared = Arc::new(Shared {
            lists: Arc::new(Lists::new(config.policy)),
            times: config.times,
            limits,
            resolver: config.resolver,
            handshakes: Arc::new(Semaphore::new(limits.handshakes)),
            dialers: Dialers::new(
                places.clone(),
                limits.connections,
                limits.connections_per_dialer,
                live,
            ),
            places,
            metrics: Metrics::new(relays_configured),
            tasks: TaskTracker::new(),
            draining: CancellationToken::new(),
            cut: CancellationToken::new(),
            stranger_log: Throttle::default(),
            handshake_log: Throttle::default(),
            denied_log: Throttle::default(),
            failed_log: Throttle::default(),
        });
        let registered = config.register.is_some();
        let registration = match config.register {
            Some(settings) => {
                Registration::start(settings, &supervisor, shared.lists.clone()).await?
            }
            None => None,
        };
        let mut connector = Self {
            registration,
            shared: shared.clone(),
            supervisor: supervisor.clone(),
            admin: config.admin.clone(),
            started: Instant::now(),
            stop: stop.clone(),
        };
        let admin = Admin {
            status: Arc::new(connector.status_source()),
            metrics: Arc::new(connector.metrics_source()),
            log: config.log,
        };
        connector.admin = admin::serve(config.admin, admin, stop.clone()).await?;
        if let Some(watched) = config.watched {
            let watch = reload::watch(shared.clone(), watched, config.options);
            tokio::spawn(stop.clone().run_until_cancelled_owned(watch));
        }
        reload::announce(&shared.lists.current(), registered);
        shared
            .tasks
            .spawn(acceptor::accept_all(shared.clone(), supervisor.subscribe()));
        let endpoint = supervisor.endpoint();
        tracing::info!(
            endpoint_id = %ids::to_wire(endpoint.id()),
            bound = ?endpoint.bound_sockets(),
            admin = %connector.admin,
            "the connector serves"
        );
        Ok(connector)
    }

    /// Where the admin server listens.
    pub fn admin(&self) -> &AdminAddr {
        &self.admin
    }

    /// The iroh endpoint in use now.
    pub fn endpoint(&self) -> iroh::Endpoint {
        self.supervisor.endpoint()
    }

    /// What `/status` answers.
    pub fn status(&self) -> Status {
        self.status_source()()
    }

    /// What `/metrics` answers.
    pub fn metrics(&self) -> String {
        self.metrics_source()()
    }

    /// Replaces the operator's lists as a reload does: what is no longer
    /// allowed is cut.
    pub fn set_policy(&self, policy: Policy) {
        self.shared.lists.configure(policy);
    }

    /// Turns new streams away (`offline`, so that a dialer takes its next
    /// connector), lets the open ones end within `grace`, cuts the rest.
    pub async fn drain(self, grace: Duration) {
        let open = self.shared.dialers.open_streams();
        tracing::info!(open, ?grace, "shutting down");
        self.shared.draining.cancel();
        let registration = self.registration.map(|r| tokio::spawn(r.end()));
        let deadline = tokio::time::Instant::now() + grace;
        // A look ten times a second is enough for a person and costs nothing.
        while self.shared.dialers.open_streams() > 0 && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let cut = self.shared.dialers.open_streams();
        if cut > 0 {
            tracing::warn!(
                cut,
                "the grace period is over: tunnels that are still open are cut"
            );
        }
        self.shared.cut.cancel();
        self.shared.tasks.close();
        // The streams' resets are on their way before the connections close.
        let waited = async {
            while self.shared.dialers.open_streams() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let _ = tokio::time::timeout(GOODBYE, waited).await;
        self.shared
            .dialers
            .close_all(CLOSE_SHUTDOWN, b"shutting down");
        let _ = tokio::time::timeout(GOODBYE, self.shared.tasks.wait()).await;
        if let Some(registration) = registration {
            let _ = registration.await;
        }
        self.stop.cancel();
        self.supervisor.close(GOODBYE).await;
        let clean = self.shared.metrics.ended_total(End::Clean);
        tracing::info!(clean, "the connector has ended");
    }

    fn status_source(&self) -> impl Fn() -> Status + Send + Sync + use<> {
        let (shared, supervisor) = (self.shared.clone(), self.supervisor.clone());
        let started = self.started;
        let contact = self.registration.as_ref().map(|r| r.contact.clone());
        move || {
            let endpoint = supervisor.endpoint();
            let relay = supervisor.relay();
            let reachable = relay.as_ref().is_none_or(|relay| relay.connected);
            Status {
                role: Role::Connector,
                version: env!("CARGO_PKG_VERSION").to_owned(),
                endpoint_id: ids::to_wire(endpoint.id()).to_string(),
                uptime_seconds: started.elapsed().as_secs(),
                ready: reachable && !shared.draining.is_cancelled() && !endpoint.is_closed(),
                bound: endpoint
                    .bound_sockets()
                    .iter()
                    .map(ToString::to_string)
                    .collect(),
                relay,
                control_plane: contact.as_ref().map(Contact::status),
                streams: shared.places.taken() as u64,
                queued: shared.places.waiting() as u64,
                peers: shared.dialers.rows(),
            }
        }
    }

    fn metrics_source(&self) -> impl Fn() -> String + Send + Sync + use<> {
        let (shared, supervisor) = (self.shared.clone(), self.supervisor.clone());
        let contact = self.registration.as_ref().map(|r| r.contact.clone());
        move || {
            let relay = supervisor.relay();
            let (sent, received) = shared.dialers.bytes();
            let now = Snapshot {
                connections: shared.dialers.live(),
                streams: shared.places.taken(),
                queued: shared.places.waiting(),
                sent,
                received,
                relay_connected: relay.as_ref().map(|relay| relay.connected),
                endpoint_rebuilds: relay.map_or(0, |relay| relay.rebuilds),
            };
            shared.metrics.encode(now, contact.as_ref())
        }
    }
}
