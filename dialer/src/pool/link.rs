//! A connection that is up, and the task that watches it.

use std::{sync::Arc, time::Duration};

use adit_wire::{ErrorClass, connect};
use iroh::{
    Endpoint,
    endpoint::{Connection, ConnectionError, VarInt},
};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::{Connector, Count, Pool};
use crate::discovery::{Addresses, Freshness};

/// How often a link is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// For discovery, while a link is looked at.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(2);
/// `iroh-http-proxy/1` gives codes no meaning; 0 is a friendly close.
const CLOSED: VarInt = VarInt::from_u32(0);
const DENIED: u64 = connect::CLOSE_DENIED as u64;
const OVERLOADED: u64 = connect::CLOSE_OVERLOADED as u64;

/// A connection to a connector.
#[derive(Debug)]
pub struct Link {
    /// The connection.
    pub connection: Connection,
    /// Cancelled when it is gone: every stream over it ends at once.
    pub lost: CancellationToken,
    /// Where the connector was said to be when it was dialled.
    addresses: Addresses,
    /// Keeps an endpoint of its own, where the dial needed one.
    _endpoint: Option<Endpoint>,
    _live: Count,
}

impl Link {
    pub(super) fn new(
        connection: Connection,
        addresses: Addresses,
        endpoint: Option<Endpoint>,
        live: Count,
    ) -> Self {
        Self {
            connection,
            lost: CancellationToken::new(),
            addresses,
            _endpoint: endpoint,
            _live: live,
        }
    }

    /// Closes the connection because this process ends.
    pub(super) fn shut_down(&self) {
        let code = VarInt::from_u32(connect::CLOSE_SHUTDOWN);
        self.connection.close(code, b"the dialer is shutting down");
        self.lost.cancel();
    }

    /// Closes the connection and every stream over it.
    pub fn close(&self, reason: &[u8]) {
        self.connection.close(CLOSED, reason);
        self.lost.cancel();
    }
}

/// Why a connection ended, as a stream that depended on it sees it.
pub fn class_of(error: &ConnectionError) -> ErrorClass {
    match error {
        // A connector that refuses a dialer lets the handshake succeed and
        // then closes with a code of its own.
        ConnectionError::ApplicationClosed(close) => match close.error_code.into_inner() {
            DENIED => ErrorClass::Denied,
            OVERLOADED => ErrorClass::Overloaded,
            _ => ErrorClass::Offline,
        },
        _ => ErrorClass::Offline,
    }
}

/// Watches a link until it is lost.
///
/// A connector that does not answer may have come back somewhere else. That is
/// noticed before the idle timeout: a link that is silent for longer than a
/// keep-alive should take is compared with what discovery says now, and closed
/// if that has changed.
pub(super) async fn watch(pool: Arc<Pool>, connector: Arc<Connector>, link: Arc<Link>) {
    let suspicious = pool.endpoint.keep_alive.mul_f64(1.5);
    let mut state = pool.discovery.subscribe();
    let mut tick = tokio::time::interval(LOOK.min(suspicious / 2));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard = (0, Instant::now());
    let mut used = Instant::now();
    let mut state_open = true;
    loop {
        tokio::select! {
            error = link.connection.closed() => {
                connector.lost(&link, class_of(&error), &describe(&error));
                return;
            }
            changed = state.changed(), if state_open => state_open = changed.is_ok(),
            _ = tick.tick() => {}
        }
        let now = Instant::now();
        let received = link.connection.stats().udp_rx.datagrams;
        if received != heard.0 {
            heard = (received, now);
        }
        if connector.open() > 0 || connector.queued() > 0 {
            used = now;
        }
        if now - heard.1 >= suspicious {
            let known = pool.discovery.resolve(connector.id, Freshness::Fresh);
            if let Ok(Ok(known)) = tokio::time::timeout(RESOLVE_TIMEOUT, known).await
                && !link.addresses.contains_all(&known)
            {
                link.close(b"moved");
                connector.lost(&link, ErrorClass::Offline, "it has moved");
                return;
            }
        }
        if now - used >= pool.limits.idle_close {
            link.close(b"idle");
            connector.lost(&link, ErrorClass::Offline, "no stream for a while");
            return;
        }
    }
}

/// A connection's end, in words.
pub fn describe(error: &ConnectionError) -> String {
    match error {
        ConnectionError::TimedOut => "silent for longer than --max-idle-timeout".into(),
        other => other.to_string(),
    }
}
