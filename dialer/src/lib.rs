//! The process beside Envoy: Unix sockets in, iroh streams out.
//!
//! ```text
//! Envoy ──► listener ──► acceptor ──► shard 0..n ──► pool ══iroh══► connectors
//!           who may       reads the    stream: choose, open,   one link each,
//!           connect       preface      answer, move bytes      dialled once
//!                                                 ▲
//!                       discovery: state file, Kubernetes API, DNS
//! ```
//!
//! [`Options`] become a [`Config`], and [`run`] serves it until told to stop.
//! What a stream is for stands in its preface ([`adit_wire::preface`]); where a
//! connector is, `discovery` says and nobody else.

mod acceptor;
mod client;
mod control;
mod discovery;
mod listener;
mod metrics;
mod open;
mod options;
mod pool;
mod shard;
mod socket;
mod status;
mod stream;
mod targets;
mod tls;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use adit_tunnel::{
    admin::{self, Admin, AdminError},
    endpoint::{EndpointError, Supervisor},
    ids,
    throttle::Throttle,
};
use tokio_util::sync::CancellationToken;

pub use control::{ControlConfig, ControlOptions};
pub use discovery::BuildError;
pub use listener::ListenError;
pub use options::{Config, ConfigError, DnsConfig, Limits, Options};
pub use socket::{ParseSocketError, SocketConfig, SocketPath};
pub use tls::{TlsError, TlsRoots};

use control::Presence;
use discovery::{Discovery, Dns, Sources, StateFile};
use metrics::Metrics;
use pool::{Parts, Pool};
use shard::Shard;
use stream::Context;
use targets::Targets;

/// What is fuzzed and is nobody else's business: `fuzz/bodies/txt.rs`.
#[doc(hidden)]
pub mod fuzzing {
    pub use crate::discovery::{
        Addresses, MAX_ADDRESSES,
        dns::{MAX_RECORDS, read_answer},
    };
}

/// Descriptors that are not clients': iroh's sockets, epoll, DNS, the admin
/// server, logs.
const RESERVED_DESCRIPTORS: u64 = 64;
/// For peers to learn that we are gone.
const GOODBYE: Duration = Duration::from_secs(1);
/// How often a drain looks whether it is done.
const DRAIN_LOOK: Duration = Duration::from_millis(20);

/// Why the dialer cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The Unix socket.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The iroh endpoint.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The admin server.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The Kubernetes API.
    #[error(transparent)]
    Control(#[from] adit_control::AccessError),
    /// The DNS resolver.
    #[error(transparent)]
    Dns(#[from] discovery::BuildError),
    /// Threads.
    #[error("starting the worker threads: {0}")]
    Threads(#[source] io::Error),
    /// Too few open files are allowed.
    #[error(
        "this process may open {0} files, which leaves none for clients: raise the limit (ulimit -n, LimitNOFILE=)"
    )]
    Descriptors(u64),
    /// The task that accepts has ended by itself.
    #[error("accepting connections has stopped: {0}")]
    Accept(String),
}

/// Serves until `shutdown`, then lets open tunnels end within the grace
/// period.
///
/// # Errors
/// When something that it needs cannot be had.
pub async fn run(mut config: Config, shutdown: CancellationToken) -> Result<(), RunError> {
    let started = Instant::now();
    fit_descriptors(&mut config.limits)?;
    let bound = config.socket.bind()?;
    let result = serve(config, &bound, started, shutdown).await;
    bound.remove_file();
    result
}

async fn serve(
    config: Config,
    bound: &listener::Bound,
    started: Instant,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let limits = config.limits;
    let start = |name: String| Shard::start(name).map_err(RunError::Threads);
    let acceptor = start("adit-accept".into())?;
    let shards = (0..config.workers)
        .map(|i| start(format!("adit-shard-{i}")))
        .collect::<Result<Vec<_>, _>>()?;

    // What goes on in the background goes on while tunnels drain.
    let background = CancellationToken::new();
    let _end_background = background.clone().drop_guard();
    let live = Arc::new(AtomicUsize::new(0));
    let supervisor = {
        // The endpoint's own work runs where its packets are needed.
        let (endpoint, live, stop) = (config.endpoint.clone(), live.clone(), background.clone());
        let start = shards[0]
            .handle
            .spawn(async move { Supervisor::start(endpoint, &[], live, stop).await });
        Arc::new(start.await.map_err(|e| RunError::Threads(e.into()))??)
    };
    let sources = Sources::default();
    let state = sources.subscribe();
    let state_file = config
        .state
        .clone()
        .map(|path| StateFile::open(path, sources.clone()));
    let presence = match config.control {
        Some(control) => {
            let id = ids::to_wire(supervisor.endpoint().id());
            Presence::start(control, id, sources.clone(), background.clone()).await?
        }
        None => None,
    };
    let contact = presence.as_ref().map(|p| p.contact.clone());
    if let Some(file) = state_file.clone() {
        let stop = background.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = file.follow() => {}
                () = stop.cancelled() => {}
            }
        });
    }
    let dns = config.dns.as_ref().map(Dns::new).transpose()?;
    let metrics = Arc::new(Metrics::default());
    let pool = Arc::new(Pool::new(Parts {
        supervisor: supervisor.clone(),
        endpoint: config.endpoint,
        discovery: Arc::new(Discovery::new(state_file, state.clone(), dns)),
        limits,
        metrics: metrics.clone(),
        live,
        shards: shards.iter().map(|s| s.handle.clone()).collect(),
    }));
    tokio::spawn(pool.clone().follow_hints(background.clone()));
    let targets = Targets::new(state, limits.drain);
    tokio::spawn(targets.clone().enforce(background.clone()));

    let accepting = Arc::new(AtomicBool::new(true));
    let admin = Admin {
        status: {
            let (pool, accepting) = (pool.clone(), accepting.clone());
            let contact = contact.clone();
            Arc::new(move || {
                let ready = accepting.load(Ordering::Relaxed);
                status::status(&pool, started, ready, contact.as_ref())
            })
        },
        metrics: {
            let (pool, metrics) = (pool.clone(), metrics.clone());
            Arc::new(move || metrics.encode(&pool, contact.as_ref()))
        },
        log: config.log,
    };
    let admin = admin::serve(config.admin, admin, background.clone()).await?;

    let ctx = Arc::new(Context {
        pool: pool.clone(),
        tls: tls::TlsClient::new(config.tls),
        targets,
        serving: Arc::default(),
        refusals: Throttle::bursts(10),
        abort: CancellationToken::new(),
    });
    let listener = bound
        .listener
        .try_clone()
        .map_err(|e| RunError::Accept(e.to_string()))?;
    let mut accept =
        acceptor
            .handle
            .spawn(acceptor::accept(listener, ctx.clone(), shutdown.clone()));
    tracing::info!(
        socket = %config.socket.path,
        %admin,
        endpoint_id = %supervisor.endpoint().id(),
        "the dialer listens"
    );
    if let Some(ready) = config.on_ready {
        ready();
    }

    let ended = tokio::select! {
        ended = &mut accept => Some(ended),
        () = shutdown.cancelled() => None,
    };
    accepting.store(false, Ordering::Relaxed);
    // The socket goes first: who connects now is told at once that nobody is
    // here, and does not wait in a backlog that nobody reads.
    bound.remove_file();
    drain(&ctx.serving, limits.grace).await;
    ctx.abort.cancel();
    pool.close();
    supervisor.close(GOODBYE).await;
    // Last: without the Lease connectors cut what this key has open.
    background.cancel();
    if let Some(presence) = presence {
        presence.end().await;
    }
    // Joining threads would block the caller's runtime.
    let _ = tokio::task::spawn_blocking(move || drop((shards, acceptor))).await;
    match ended {
        Some(Ok(Ok(()))) | None => Ok(()),
        Some(Ok(Err(error))) => Err(RunError::Accept(error.to_string())),
        Some(Err(error)) => Err(RunError::Accept(error.to_string())),
    }
}

/// Waits for open and waiting streams, at most `grace`.
async fn drain(serving: &AtomicUsize, grace: Duration) {
    let done = async {
        while serving.load(Ordering::Acquire) > 0 {
            tokio::time::sleep(DRAIN_LOOK).await;
        }
    };
    let left = serving.load(Ordering::Acquire);
    if left > 0 {
        tracing::info!(streams = left, grace = ?grace, "waiting for tunnels to end");
    }
    if tokio::time::timeout(grace, done).await.is_err() {
        tracing::warn!(
            streams = serving.load(Ordering::Acquire),
            "the grace period is over: tunnels are cut"
        );
    }
}

/// Raises the soft limit of open files to the hard one, and takes no more
/// clients than there are descriptors for: the rest waits in the backlog.
fn fit_descriptors(limits: &mut Limits) -> Result<(), RunError> {
    let Some(current) = adit_tunnel::open_files::raise() else {
        return Ok(());
    };
    let left = current.saturating_sub(RESERVED_DESCRIPTORS);
    if left == 0 {
        return Err(RunError::Descriptors(current));
    }
    let left = usize::try_from(left).unwrap_or(usize::MAX);
    if left < limits.connections {
        tracing::info!(
            connections = left,
            "the limit of open files allows fewer connections than --max-connections"
        );
        limits.connections = left;
    }
    Ok(())
}
