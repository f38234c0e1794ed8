//! The dialers that are or were connected: their shares, counts and last
//! errors.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Instant,
};

use adit_tunnel::{
    meter::Meter,
    status::{Peer, PeerState, selected_path},
};
use adit_wire::EndpointId;
use iroh::endpoint::Connection;

use crate::limits::{Places, Share};

/// Dialers that left are remembered for `/status`, up to this many rows; with
/// `allow: any` there is no end of keys.
const MAX_REMEMBERED: usize = 1024;

#[derive(Debug)]
pub(crate) struct Dialers {
    map: Mutex<HashMap<EndpointId, Arc<Dialer>>>,
    places: Arc<Places>,
    max_connections: usize,
    max_per_dialer: usize,
    live: Arc<AtomicUsize>,
    /// Bytes of dialers that are no longer remembered.
    forgotten: Mutex<(u64, u64)>,
}

#[derive(Debug)]
pub(crate) struct Dialer {
    pub(crate) id: EndpointId,
    pub(crate) share: Share,
    pub(crate) meter: Meter,
    streams: AtomicUsize,
    streams_total: AtomicU64,
    connections: Mutex<Vec<Connection>>,
    last_error: Mutex<Option<(String, Instant)>>,
}

/// A connection that counts against the limits until it is dropped.
#[derive(Debug)]
pub(crate) struct Connected {
    dialers: Arc<Dialers>,
    pub(crate) dialer: Arc<Dialer>,
    connection: Connection,
}

/// A stream that counts for `/status` until it is dropped.
#[derive(Debug)]
pub(crate) struct Open(Arc<Dialer>);

impl Dialers {
    pub(crate) fn new(
        places: Arc<Places>,
        max_connections: usize,
        max_per_dialer: usize,
        live: Arc<AtomicUsize>,
    ) -> Arc<Self> {
        Arc::new(Self {
            map: Mutex::default(),
            places,
            max_connections,
            max_per_dialer,
            live,
            forgotten: Mutex::default(),
        })
    }

    /// Counts a connection in, unless a limit is reached.
    pub(crate) fn connect(
        self: &Arc<Self>,
        id: EndpointId,
        connection: &Connection,
    ) -> Option<Connected> {
        let mut map = lock(&self.map);
        if self.live.load(Ordering::Relaxed) >= self.max_connections {
            return None;
        }
        let dialer = map.entry(id).or_insert_with(|| {
            Arc::new(Dialer {
                id,
                share: self.places.share(),
                meter: Meter::default(),
                streams: AtomicUsize::new(0),
                streams_total: AtomicU64::new(0),
                connections: Mutex::default(),
                last_error: Mutex::default(),
            })
        });
        let mut connections = lock(&dialer.connections);
        if connections.len() >= self.max_per_dialer {
            return None;
        }
        connections.push(connection.clone());
        self.live.fetch_add(1, Ordering::Relaxed);
        Some(Connected {
            dialers: self.clone(),
            dialer: dialer.clone(),
            connection: connection.clone(),
        })
    }

    /// Connections open now.
    pub(crate) fn live(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }

    /// Payload bytes sent and received since the start.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        let map = lock(&self.map);
        let forgotten = *lock(&self.forgotten);
        map.values().fold(forgotten, |(sent, received), dialer| {
            (
                sent + dialer.meter.sent(),
                received + dialer.meter.received(),
            )
        })
    }

    /// Streams that dialers have open, waiting ones included.
    pub(crate) fn open_streams(&self) -> usize {
        let map = lock(&self.map);
        map.values()
            .map(|d| d.streams.load(Ordering::Relaxed))
            .sum()
    }

    /// Closes every connection.
    pub(crate) fn close_all(&self, code: u32, reason: &[u8]) {
        for dialer in lock(&self.map).values() {
            for connection in lock(&dialer.connections).iter() {
                connection.close(code.into(), reason);
            }
        }
    }

    /// A row for each dialer, connected ones first.
    pub(crate) fn rows(&self) -> Vec<Peer> {
        let dialers: Vec<_> = lock(&self.map).values().cloned().collect();
        let mut rows: Vec<_> = dialers.iter().map(|dialer| dialer.row()).collect();
        rows.sort_by(|a, b| {
            let order = |row: &Peer| (row.state != PeerState::Connected, row.endpoint_id.clone());
            order(a).cmp(&order(b))
        });
        rows
    }
}

impl Dialer {
    /// Counts a stream in.
    pub(crate) fn open(self: &Arc<Self>) -> Open {
        self.streams.fetch_add(1, Ordering::Relaxed);
        self.streams_total.fetch_add(1, Ordering::Relaxed);
        Open(self.clone())
    }

    pub(crate) fn failed(&self, error: String) {
        *lock(&self.last_error) = Some((error, Instant::now()));
    }

    fn row(&self) -> Peer {
        // The newest connection is the one a dialer uses.
        let connection = lock(&self.connections).last().cloned();
        let path = connection.as_ref().and_then(selected_path);
        let last_error = lock(&self.last_error).clone();
        Peer {
            endpoint_id: self.id.to_string(),
            name: None,
            state: match connection {
                Some(_) => PeerState::Connected,
                None => PeerState::Idle,
            },
            path: path.as_ref().map(|(kind, ..)| (*kind).into()),
            remote: path.as_ref().map(|(_, remote, _)| remote.clone()),
            rtt_ms: path.map(|(.., rtt)| rtt.as_secs_f64() * 1000.0),
            streams: self.streams.load(Ordering::Relaxed) as u64,
            streams_total: self.streams_total.load(Ordering::Relaxed),
            bytes_sent: self.meter.sent(),
            bytes_received: self.meter.received(),
            last_error_seconds: last_error.as_ref().map(|(_, at)| at.elapsed().as_secs()),
            last_error: last_error.map(|(text, _)| text),
        }
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        let mut map = lock(&self.dialers.map);
        let mut connections = lock(&self.dialer.connections);
        let id = self.connection.stable_id();
        connections.retain(|c| c.stable_id() != id);
        self.dialers.live.fetch_sub(1, Ordering::Relaxed);
        if connections.is_empty() && map.len() > MAX_REMEMBERED {
            map.remove(&self.dialer.id);
            let mut forgotten = lock(&self.dialers.forgotten);
            forgotten.0 += self.dialer.meter.sent();
            forgotten.1 += self.dialer.meter.received();
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// These locks are held for a few instructions, and no state behind them is
/// left half-changed by a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}
