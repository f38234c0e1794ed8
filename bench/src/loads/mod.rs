//! What is sent over the paths, one file each.

mod bulk;
mod connect;
mod fresh;
mod grpc;
mod http2;
mod idle;
mod keep_alive;
mod off;
mod recover;
mod steps;
mod websocket;

use std::time::{Duration, Instant};

use adit_tests::process::Process;
use anyhow::{Context as _, Result};
use tokio::task::JoinSet;

use crate::{
    client::{At, Door},
    cpu::Meter,
    gateway::{Gateway, Host},
    paths::{Exit, Path},
    stats::{Sample, Times},
};

/// A load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// 1,000 tunnels that do nothing.
    Idle,
    /// 1 KiB GETs on so many kept connections.
    KeepAlive(u16),
    /// The same at constant rates, faster and faster.
    Steps,
    /// The same at one rate that every path can carry.
    Steady,
    /// A new connection for each GET, at both ends of Envoy.
    Fresh,
    /// 100 streams of one HTTP/2 connection.
    Http2,
    /// Unary calls.
    Grpc,
    /// Messages and their echoes.
    WebSocket,
    /// One large body down.
    Download,
    /// One large body up.
    Upload,
    /// CONNECT tunnels, opened and closed.
    Connect,
    /// Requests for a device that is known to be off.
    Off,
    /// Each process of the path killed and started again.
    Recover,
}

/// What everything runs on.
pub struct Stage {
    /// The one Envoy.
    pub gateway: Gateway,
    /// The service's process.
    pub service: Process,
    /// Its port, which a CONNECT has to name.
    pub port: u16,
    /// How much of everything.
    pub scale: Scale,
}

/// How long, how many, how much.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    /// Of each load that has no end of its own.
    pub span: Duration,
    /// Of each body.
    pub bytes: u64,
    /// When a body is cut, on a path that would take minutes for it.
    pub bulk_limit: Duration,
    /// Of each step of the rate.
    pub step: Duration,
    /// Tunnels that do nothing.
    pub idle: usize,
    /// How long they are watched.
    pub idle_watch: Duration,
    /// Requests for a device that is off.
    pub off: usize,
    /// And how long they may take in all.
    pub off_limit: Duration,
}

/// How often a load is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Often {
    /// Before all others, while the processes are new.
    First,
    /// Once a round.
    EachRound,
    /// Once, after the rounds.
    Last,
}

impl Scale {
    /// For numbers that are published.
    pub const FULL: Self = Self {
        span: Duration::from_secs(3),
        bytes: 1 << 30,
        bulk_limit: Duration::from_secs(10),
        step: Duration::from_millis(1500),
        idle: 1000,
        idle_watch: Duration::from_secs(10),
        off: 1000,
        off_limit: Duration::from_secs(30),
    };
    /// For a look.
    pub const QUICK: Self = Self {
        span: Duration::from_millis(1000),
        bytes: 128 << 20,
        bulk_limit: Duration::from_secs(4),
        step: Duration::from_millis(500),
        idle: 1000,
        idle_watch: Duration::from_secs(3),
        off: 400,
        off_limit: Duration::from_secs(12),
    };
}

impl Load {
    /// All, in the order in which they run.
    pub const ALL: [Self; 15] = [
        Self::Idle,
        Self::KeepAlive(1),
        Self::KeepAlive(16),
        Self::KeepAlive(64),
        Self::Steady,
        Self::Steps,
        Self::Fresh,
        Self::Http2,
        Self::Grpc,
        Self::WebSocket,
        Self::Download,
        Self::Upload,
        Self::Connect,
        Self::Off,
        Self::Recover,
    ];

    /// Its name, for `--only` and the figures.
    pub fn name(self) -> String {
        let name = match self {
            Self::KeepAlive(n) => return format!("keep-alive-{n}"),
            Self::Idle => "idle",
            Self::Steps => "steps",
            Self::Steady => "steady",
            Self::Fresh => "fresh",
            Self::Http2 => "h2",
            Self::Grpc => "grpc",
            Self::WebSocket => "websocket",
            Self::Download => "download",
            Self::Upload => "upload",
            Self::Connect => "connect",
            Self::Off => "off",
            Self::Recover => "recover",
        };
        name.to_owned()
    }

    /// What it is, for people.
    pub fn title(self) -> String {
        match self {
            Self::Idle => "idle tunnels (CONNECT), after one small answer each".into(),
            Self::KeepAlive(1) => "1 KiB GET, 1 connection".into(),
            Self::KeepAlive(n) => format!("1 KiB GET, {n} connections"),
            Self::Steady => "1 KiB GET at 2,000 a second, 16 connections".into(),
            Self::Steps => "1 KiB GET at constant rates, 64 connections".into(),
            Self::Fresh => "1 KiB GET, a new connection and tunnel for each, 16 at once".into(),
            Self::Http2 => "1 KiB GET, 100 streams of one HTTP/2 connection".into(),
            Self::Grpc => "gRPC unary, 16 connections".into(),
            Self::WebSocket => "WebSocket ping-pong, 16 sockets".into(),
            Self::Download => "one body down".into(),
            Self::Upload => "one body up".into(),
            Self::Connect => "CONNECT, set up and closed, 16 at once".into(),
            Self::Off => "GET for a device that is off, retries on".into(),
            Self::Recover => "SIGKILL, restart at once, until the next 200".into(),
        }
    }

    /// What its CPU times are for.
    pub fn cpu_of(self) -> &'static str {
        match self {
            Self::Download | Self::Upload => "s/GB",
            Self::Idle => "ms/s",
            Self::WebSocket => "µs/message",
            Self::Connect => "µs/tunnel",
            _ => "µs/request",
        }
    }

    /// How often it runs.
    pub fn often(self) -> Often {
        match self {
            // Memory that is given back to the allocator is still resident:
            // only a new process shows what its first thousand tunnels take.
            Self::Idle => Often::First,
            Self::Off | Self::Recover => Often::Last,
            _ => Often::EachRound,
        }
    }

    /// Whether it makes sense on a path.
    ///
    /// | | all loads but |
    /// |---|---|
    /// | `sidecar` | gRPC (it drops trailers), CONNECT and idle tunnels (it is a proxy of HTTP) |
    /// | `iroh-splice` | what needs Envoy: all but GETs and bodies |
    /// | `socket-iroh` | the same: it is there to be compared with these |
    /// | `reverse` | one connection a request, CONNECT, idle tunnels: its streams are HTTP/2 of two Envoys |
    ///
    /// `steps` and `off` are asked of the paths that the targets are about.
    pub fn suits(self, path: &Path) -> bool {
        let name = path.name;
        if ["iroh-splice", "socket-iroh"].contains(&name) {
            return matches!(
                self,
                Self::KeepAlive(_) | Self::Steady | Self::Download | Self::Upload
            );
        }
        let asked = match self {
            Self::Steps => ["direct", "control", "socket", "adit", "sidecar"].contains(&name),
            Self::Off => path.off.is_some() && name != "control",
            Self::Recover => !path.parts.is_empty(),
            _ => true,
        };
        asked
            && match &path.exit {
                Exit::Tcp { headers, .. } if !headers.is_empty() => {
                    !matches!(self, Self::Grpc | Self::Connect | Self::Idle)
                }
                Exit::Reverse { .. } => !matches!(self, Self::Fresh | Self::Connect | Self::Idle),
                _ => true,
            }
    }

    /// Runs it once.
    pub async fn run(self, stage: &Stage, path: &mut Path) -> Result<Sample> {
        let ran = match self {
            Self::Idle => idle::run(stage, path).await,
            Self::KeepAlive(n) => keep_alive::run(stage, path, n).await,
            Self::Steady => steps::steady(stage, path).await,
            Self::Steps => steps::run(stage, path).await,
            Self::Fresh => fresh::run(stage, path).await,
            Self::Http2 => http2::run(stage, path).await,
            Self::Grpc => grpc::run(stage, path).await,
            Self::WebSocket => websocket::run(stage, path).await,
            Self::Download => bulk::download(stage, path).await,
            Self::Upload => bulk::upload(stage, path).await,
            Self::Connect => connect::run(stage, path).await,
            Self::Off => off::run(stage, path).await,
            Self::Recover => recover::run(stage, path).await,
        };
        ran.with_context(|| format!("{} over {}", self.name(), path.name))
    }
}

impl Stage {
    /// Where a load gets onto a path.
    pub fn door(&self, path: &Path, host: Host) -> Door {
        let at = match &path.exit {
            Exit::Bare(socket) => At::Unix(socket.clone()),
            Exit::Adit { .. } => At::Tcp(self.gateway.adit),
            _ => At::Tcp(self.gateway.plain),
        };
        Door {
            at,
            host: format!("{}.test", host.cluster(path.name)),
        }
    }

    /// Counts the CPU time of everything on a path, the service included.
    pub fn meter<'a>(&'a self, path: &'a Path) -> Result<Meter<'a>> {
        let envoy =
            (!matches!(path.exit, Exit::Bare(_))).then_some(("envoy", &self.gateway.process));
        let ends = envoy.into_iter().chain([("service", &self.service)]);
        Meter::start(ends.chain(path.processes()))
    }
}

/// Runs so many workers side by side for a while: rate, quantiles, and CPU time
/// for each thing done in microseconds. Each worker does one thing at a time.
async fn side_by_side<W, F>(
    stage: &Stage,
    path: &Path,
    workers: Vec<W>,
    one: impl Fn(W) -> F + Clone + Send + 'static,
) -> Result<Sample>
where
    W: Send + 'static,
    F: Future<Output = Result<W>> + Send,
{
    let span = stage.scale.span;
    let meter = stage.meter(path)?;
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for mut worker in workers {
        let one = one.clone();
        tasks.spawn(async move {
            let mut times = Times::default();
            while start.elapsed() < span {
                let begun = Instant::now();
                worker = one(worker).await?;
                times.since(begun);
            }
            anyhow::Ok(times)
        });
    }
    let mut times = Times::default();
    while let Some(done) = tasks.join_next().await {
        times.join(done??);
    }
    let took = start.elapsed();
    let cpu = meter.stop(1e6 / times.count() as f64)?;
    let mut sample = times.sample(took);
    sample.cpu = cpu;
    Ok(sample)
}
