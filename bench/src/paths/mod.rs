//! The ways from Envoy to the service, one file each. All are up at once,
//! behind one Envoy; each is made of processes of its own, so that /proc tells
//! what each of them costs.

mod adit;
mod bore;
mod chisel;
mod direct;
mod frp;
mod iroh_splice;
mod rathole;
mod reverse;
mod sidecar;
mod socket;
mod socket_iroh;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path as File, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use adit_tests::{binaries, process::Process};
use adit_wire::Target;
use anyhow::{Context as _, Result, ensure};

/// How long a program of others may take to come up.
const PATIENCE: Duration = Duration::from_secs(20);

/// A way to the service, up and running.
pub struct Path {
    /// Its name, in lower case: of its hosts, its figures and `--only`.
    pub name: &'static str,
    /// How Envoy reaches what is behind it.
    pub exit: Exit,
    /// The same for a device that is switched off, where that can be had.
    pub off: Option<Exit>,
    /// Its processes.
    pub parts: Vec<Part>,
}

/// A process of a path, which can be started again.
pub struct Part {
    /// What it is, as in `dialer`.
    pub role: &'static str,
    /// The process.
    pub process: Process,
    command: Command,
    dir: PathBuf,
}

/// What Envoy's cluster for a path looks like.
#[derive(Clone)]
pub enum Exit {
    /// A TCP port. With headers: it is an HTTP proxy that wants these.
    Tcp {
        /// Where it listens.
        at: SocketAddr,
        /// What the route adds to a request.
        headers: Vec<(&'static str, String)>,
    },
    /// A Unix socket, plainly.
    Pipe(PathBuf),
    /// A Unix socket, with Adit's filter and transport socket before it.
    Adit {
        /// The dialer's socket.
        socket: PathBuf,
        /// What the dialer is to reach.
        target: Box<Target>,
    },
    /// Envoy's own reverse tunnels.
    Reverse {
        /// Where this Envoy accepts them.
        accept: SocketAddr,
        /// The node that opens them.
        node: &'static str,
    },
    /// A Unix socket that the load uses itself: no Envoy on this path.
    Bare(PathBuf),
}

/// What every path is built on.
pub struct Ground {
    /// A temporary directory.
    pub dir: PathBuf,
    /// The service.
    pub service: SocketAddr,
    /// The Envoy of the run, as in 1.40.0.
    pub envoy: String,
}

/// A path that can be started.
pub struct Kind {
    /// See [`Path::name`].
    pub name: &'static str,
    /// What it is, for people.
    pub title: &'static str,
    start: fn(&Ground, &File) -> Result<Path>,
}

/// All of them; the first is what the others are compared with, the second is
/// the same once more, so that one sees how far two equal things differ here.
pub const ALL: [Kind; 12] = [
    Kind {
        name: "direct",
        title: "Envoy → service, TCP",
        start: |ground, _| direct::start(ground, "direct"),
    },
    Kind {
        name: "control",
        title: "the same again (A/A control)",
        start: |ground, _| direct::start(ground, "control"),
    },
    Kind {
        name: "socket",
        title: "Envoy → Unix socket → splice → service",
        start: socket::start,
    },
    Kind {
        name: "adit",
        title: "Envoy with Adit → dialer ⇒ connector → service",
        start: adit::start,
    },
    Kind {
        name: "sidecar",
        title: "Envoy → header-reading sidecar ⇒ its peer → service",
        start: sidecar::start,
    },
    Kind {
        name: "iroh-splice",
        title: "no Envoy: Unix socket ⇒ iroh → service",
        start: iroh_splice::start,
    },
    Kind {
        name: "socket-iroh",
        title: "Envoy → Unix socket ⇒ iroh → service, without Adit",
        start: socket_iroh::start,
    },
    Kind {
        name: "rathole",
        title: "Envoy → rathole server ⇒ client → service",
        start: rathole::start,
    },
    Kind {
        name: "bore",
        title: "Envoy → bore server ⇒ client → service",
        start: bore::start,
    },
    Kind {
        name: "chisel",
        title: "Envoy → chisel server ⇒ client → service",
        start: chisel::start,
    },
    Kind {
        name: "frp",
        title: "Envoy → frps ⇒ frpc → service",
        start: frp::start,
    },
    Kind {
        name: "reverse",
        title: "Envoy's reverse tunnel ⇒ a second Envoy → service",
        start: reverse::start,
    },
];

impl Kind {
    /// Starts its processes; whether it works is seen by the first request.
    pub fn start(&self, ground: &Ground) -> Result<Path> {
        let dir = ground.dir.join(self.name);
        std::fs::create_dir_all(&dir)?;
        (self.start)(ground, &dir)
    }
}

impl Path {
    /// One whose end at Envoy's side is a TCP port.
    fn tcp(name: &'static str, at: SocketAddr, parts: Vec<Part>) -> Self {
        Self {
            name,
            exit: Exit::Tcp {
                at,
                headers: Vec::new(),
            },
            off: None,
            parts,
        }
    }

    /// Its processes by role.
    pub fn processes(&self) -> impl Iterator<Item = (&str, &Process)> {
        self.parts.iter().map(|part| (part.role, &part.process))
    }

    /// The last lines of every process, for a message about a failure.
    pub fn last_words(&self) -> String {
        let said = self.parts.iter().filter_map(|part| {
            let words = part.process.last_words();
            let last = words.lines().rev().find(|line| !line.trim().is_empty())?;
            Some(format!("{}: {}", part.role, last.trim()))
        });
        said.collect::<Vec<_>>().join("; ")
    }
}

impl Part {
    /// Starts a process of a path.
    pub fn start(role: &'static str, dir: &File, mut command: Command) -> Result<Self> {
        Ok(Self {
            role,
            process: Process::start(role, dir, &mut command)?,
            command,
            dir: dir.to_owned(),
        })
    }

    /// SIGKILL, and the same command again at once, as a supervisor would.
    pub fn restart(&mut self) -> Result<()> {
        self.process.kill()?;
        self.process = Process::start(self.role, &self.dir, &mut self.command)?;
        Ok(())
    }
}

/// A TCP port of loopback that nobody uses now. A process that is killed and
/// started again has to come back to the same one.
pub fn tcp_port() -> Result<SocketAddr> {
    let socket = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(socket.local_addr()?)
}

/// A UDP port of loopback that nobody uses now.
pub fn udp_port() -> Result<SocketAddr> {
    let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(socket.local_addr()?)
}

/// A program of others: `ADIT_BENCH_BIN` lists the folders that `cargo xtask
/// bench` has filled; else it is on `PATH`.
fn program(name: &str) -> Result<Command> {
    let folders = std::env::var_os("ADIT_BENCH_BIN").unwrap_or_default();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&folders).chain(std::env::split_paths(&path));
    let found = places.find_map(|dir| {
        let file = dir.join(name);
        file.is_file().then_some(file)
    });
    let found = found.with_context(|| {
        format!("{name} is not installed: `cargo xtask bench` builds it, or put it on PATH")
    })?;
    let mut command = Command::new(found);
    command.env_clear();
    Ok(command)
}

/// A program that is built beside this one.
fn beside(name: &str) -> Result<Command> {
    let path = binaries::built(name)?;
    ensure!(path.is_file(), "{} is missing", path.display());
    let mut command = Command::new(path);
    command.env_clear();
    Ok(command)
}

/// Waits for a condition that a program of others brings about.
fn wait<T>(what: &str, look: impl Fn() -> Option<T>) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        ensure!(
            Instant::now() < deadline,
            "{what} is not up after {PATIENCE:?}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}
