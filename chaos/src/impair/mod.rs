//! A bad network in this process: a UDP forwarder on loopback that loses, delays
//! and reorders what it carries, or carries nothing.
//!
//! ```text
//! dialer 127.0.0.1:* ──► [listening socket] ──► line ──► [a socket per client] ──► connector [::1]:*
//! ```
//!
//! iroh tells each side the other's own addresses, and would soon have found the
//! way round the forwarder. So the connector has IPv6 alone and the dialer IPv4
//! alone ([`behind`]): between them there is no other way.

mod dice;
mod line;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use adit_tests::{
    client::{http::get, patiently},
    process::until,
    stage::{Plan, Stage},
};
use anyhow::{Context as _, Result};
use serde_json::json;
use tokio::net::UdpSocket;
use tokio_util::task::AbortOnDropHandle;

use line::Line;

/// Any datagram of UDP.
const LARGEST: usize = 65_536;
/// What a socket may hold; the kernel caps it at net.core.rmem_max. A datagram
/// that the kernel drops would be a loss that nobody ordered.
const BUFFER: usize = 4 << 20;

/// What the network does to datagrams, in each direction alike.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Weather {
    /// This part of them is lost, 0 to 1.
    pub loss: f64,
    /// Each is this late.
    pub delay: Duration,
    /// Each is later by up to this, by chance: so they overtake each other.
    pub jitter: Duration,
    /// None gets through.
    pub blocked: bool,
}

impl Weather {
    /// This part is lost, 0 to 1.
    pub fn losing(mut self, loss: f64) -> Self {
        self.loss = loss;
        self
    }

    /// A round trip takes so long: half of it in each direction.
    pub fn round_trip(mut self, time: Duration) -> Self {
        self.delay = time / 2;
        self
    }

    /// Datagrams come up to so much later than they would, each on its own.
    pub fn jitter(mut self, most: Duration) -> Self {
        self.jitter = most;
        self
    }

    /// Nothing gets through.
    pub fn blocked() -> Self {
        Self {
            blocked: true,
            ..Self::default()
        }
    }
}

/// What became of the datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Passed on.
    pub passed: u64,
    /// Lost by [`Weather::loss`].
    pub lost: u64,
    /// Lost because the path was blocked.
    pub blocked: u64,
    /// Lost because the queue was full.
    pub overflowed: u64,
    /// Passed on after one that had come later.
    pub overtaken: u64,
}

/// A running forwarder; dropping it ends it.
pub struct Forwarder {
    /// Where clients send to.
    pub addr: SocketAddr,
    shared: Arc<Shared>,
    _up: AbortOnDropHandle<()>,
}

struct Shared {
    listening: Arc<UdpSocket>,
    to: SocketAddr,
    seed: u64,
    weather: Mutex<Weather>,
    counters: Counters,
    flows: Mutex<HashMap<SocketAddr, Flow>>,
}

/// One client's way out, and what comes back by it.
struct Flow {
    socket: Arc<UdpSocket>,
    _back: AbortOnDropHandle<()>,
}

#[derive(Default)]
struct Counters {
    passed: AtomicU64,
    lost: AtomicU64,
    blocked: AtomicU64,
    overflowed: AtomicU64,
    overtaken: AtomicU64,
}

impl Forwarder {
    /// Carries datagrams from a free port of 127.0.0.1 to `to` and back. The same
    /// `seed` loses the same datagrams of a run.
    pub async fn start(to: SocketAddr, seed: u64, weather: Weather) -> Result<Self> {
        let listening = Arc::new(socket((Ipv4Addr::LOCALHOST, 0).into())?);
        let addr = listening.local_addr()?;
        let shared = Arc::new(Shared {
            listening,
            to,
            seed,
            weather: Mutex::new(weather),
            counters: Counters::default(),
            flows: Mutex::default(),
        });
        let up = tokio::spawn(Line::new(shared.clone(), seed).up());
        Ok(Self {
            addr,
            shared,
            _up: AbortOnDropHandle::new(up),
        })
    }

    /// Changes what it does; what is under way keeps its delay, unless nothing
    /// shall get through any more.
    pub fn set(&self, weather: Weather) {
        *lock(&self.shared.weather) = weather;
    }

    /// What it did so far.
    pub fn counts(&self) -> Counts {
        let counters = &self.shared.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            passed: read(&counters.passed),
            lost: read(&counters.lost),
            blocked: read(&counters.blocked),
            overflowed: read(&counters.overflowed),
            overtaken: read(&counters.overtaken),
        }
    }

    /// Forgets every client's socket, as a NAT does that starts anew: from now on
    /// `to` sees each client at another port, and what is sent to the old one is
    /// lost.
    pub fn rebind(&self) {
        lock(&self.shared.flows).clear();
    }

    /// The ports by which `to` sees the clients.
    pub fn outward(&self) -> Vec<SocketAddr> {
        let flows = lock(&self.shared.flows);
        let addrs = flows.values().filter_map(|f| f.socket.local_addr().ok());
        addrs.collect()
    }
}

impl Shared {
    fn weather(&self) -> Weather {
        *lock(&self.weather)
    }

    /// The socket by which a client's datagrams go on.
    fn out(self: &Arc<Self>, client: SocketAddr) -> Result<Arc<UdpSocket>> {
        let mut flows = lock(&self.flows);
        if let Some(flow) = flows.get(&client) {
            return Ok(flow.socket.clone());
        }
        let any: SocketAddr = match self.to {
            SocketAddr::V4(_) => (Ipv4Addr::LOCALHOST, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::LOCALHOST, 0).into(),
        };
        let socket = Arc::new(socket(any)?);
        let seed = self.seed.wrapping_add(1 + flows.len() as u64);
        let back = Line::new(self.clone(), seed).back(socket.clone(), client);
        let flow = Flow {
            socket: socket.clone(),
            _back: AbortOnDropHandle::new(tokio::spawn(back)),
        };
        flows.insert(client, flow);
        Ok(socket)
    }
}

/// A stage whose only direct path leads through a forwarder, and has served one
/// request. A relay's addresses in `plan` stay.
pub async fn behind(mut plan: Plan, weather: Weather) -> Result<(Stage, Forwarder)> {
    plan = plan.option("bind", json!(["[::1]:0"]));
    plan.hints = false;
    let stage = plan.start().await?;
    let bound = stage.connector.bound().await?;
    let to = *bound.first().context("the connector's address")?;
    let path = Forwarder::start(to, 1, Weather::default()).await?;
    stage.hint(&[path.addr])?;
    // A dialer that had dialled before it knew this address would stay with the
    // relay: iroh opens no path to an address that it learns later.
    let state = stage.gateway.state().join("dialer.json");
    let addr = path.addr.to_string();
    until("address in the dialer's state", async || {
        let state = std::fs::read_to_string(&state).ok()?;
        state.contains(&addr).then_some(())
    })
    .await?;
    by_direct_path(&stage).await?;
    path.set(weather);
    Ok((stage, path))
}

/// Serves a request by one connection after another until one has the direct path;
/// how many that took. iroh sends its handshake every way it knows and stays with
/// the first that answers: once in a while that is a relay, and the connection has
/// to end before there is another try. So beside a relay a connection that nobody
/// uses must be closed soon (`ADIT_IDLE_CLOSE`).
pub async fn by_direct_path(stage: &Stage) -> Result<usize> {
    let id = &stage.connector.key.id;
    let mut connections = 0;
    until("connection by the direct path", async || {
        let asked = get(stage.addr(), "web.test", "/echo");
        let answer = patiently("a request", asked).await.ok()?;
        if answer.status != 200 {
            return None;
        }
        connections += 1;
        let won = until("direct path or end of the connection", async || {
            let peer = stage.gateway.peer(id).await.ok()??;
            match (peer["state"].as_str()?, peer["path"].as_str()) {
                ("connected", Some("direct")) => Some(true),
                ("connected", _) => None,
                _ => Some(false),
            }
        });
        won.await.ok()?.then_some(connections)
    })
    .await
}

fn socket(addr: SocketAddr) -> Result<UdpSocket> {
    let socket = std::net::UdpSocket::bind(addr).with_context(|| format!("bind UDP {addr}"))?;
    let options = socket2::SockRef::from(&socket);
    options.set_recv_buffer_size(BUFFER)?;
    options.set_send_buffer_size(BUFFER)?;
    socket.set_nonblocking(true)?;
    Ok(UdpSocket::from_std(socket)?)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
