//! The services behind a connector: they keep what they got, so that a test can
//! compare both ends.

pub mod grpc;
pub mod http;
pub mod tcp;
pub mod tls;
pub mod websocket;

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::{Context, Result};
use tokio::net::{TcpListener, TcpSocket};

/// How many requests a record keeps; older ones stay.
const MAX_RECORDED: usize = 100_000;

/// One request as the service got it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// The HTTP version, as in `HTTP/1.1`.
    pub version: String,
    /// The method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// The header fields in order, names in lower case.
    pub headers: Vec<(String, String)>,
}

impl Received {
    /// The first value of a header field.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut fields = self.headers.iter();
        fields
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }
}

/// What a service saw.
#[derive(Debug, Default)]
pub struct Record {
    requests: Mutex<Vec<Received>>,
    connections: AtomicUsize,
    open: AtomicUsize,
}

impl Record {
    /// Every request so far.
    pub fn requests(&self) -> Vec<Received> {
        self.lock().clone()
    }

    /// How many connections were accepted so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// How many connections are open now.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    fn push(&self, received: Received) {
        let mut requests = self.lock();
        if requests.len() < MAX_RECORDED {
            requests.push(received);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Received>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a connection until the guard is dropped.
    fn connection(self: &Arc<Self>) -> OpenConnection {
        self.connections.fetch_add(1, Ordering::SeqCst);
        self.open.fetch_add(1, Ordering::SeqCst);
        OpenConnection(self.clone())
    }
}

struct OpenConnection(Arc<Record>);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A listener on loopback, with a backlog that a thousand clients at once fit in.
fn listen(addr: SocketAddr) -> Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket
        .bind(addr)
        .with_context(|| format!("listen on {addr}"))?;
    Ok(socket.listen(4096)?)
}

/// A free port on loopback.
fn any_port() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// A TCP address on loopback where nobody listens: a listener was there and is
/// gone, so a connect is refused.
pub fn nobody() -> Result<SocketAddr> {
    let listener = std::net::TcpListener::bind(any_port())?;
    Ok(listener.local_addr()?)
}
