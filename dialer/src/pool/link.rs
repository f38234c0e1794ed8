//! A connection that is up, and the task that watches it.

use std::{sync::Arc, time::Duration};

use adit_tunnel::status::selected_path;
use adit_wire::{ErrorClass, connect};
use bytes::Bytes;
use iroh::{
    Endpoint,
    endpoint::{Connection, ConnectionError, VarInt},
};
use tokio::{
    sync::Notify,
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use super::{Connector, Count, Pool};
use crate::discovery::{Addresses, Freshness};

/// How long one sign of life may take, beside the round trip.
const SIGN_OF_LIFE: Duration = Duration::from_millis(200);
/// How often it is asked for: two lost packets in a row are no death.
const SIGNS: u32 = 3;
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
    /// A stream waits for an answer for suspiciously long.
    doubt: Notify,
    /// Where the connector was said to be when it was dialled.
    addresses: Addresses,
    /// Keeps an endpoint of its own, where the dial needed one.
    endpoint: Option<Endpoint>,
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
            doubt: Notify::new(),
            addresses,
            endpoint,
            _live: live,
        }
    }

    /// A stream gets no answer: is the connector still there?
    pub fn doubt(&self) {
        self.doubt.notify_one();
    }

    /// Packets received so far.
    fn received(&self) -> u64 {
        self.connection.stats().udp_rx.datagrams
    }

    /// Asks for a sign of life: a QUIC datagram, which the peer's QUIC
    /// acknowledges whether anybody reads it or not.
    async fn is_alive(&self) -> bool {
        let before = self.received();
        let rtt = selected_path(&self.connection).map_or(Duration::ZERO, |(_, _, rtt)| rtt);
        let patience = SIGN_OF_LIFE.max(rtt * 2);
        for _ in 0..SIGNS {
            if self
                .connection
                .send_datagram(Bytes::from_static(b"?"))
                .is_err()
            {
                // Not asked, so not answered: silence alone must tell.
                break;
            }
            tokio::time::sleep(patience).await;
            if self.received() != before {
                return true;
            }
        }
        self.received() != before
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
/// noticed before the idle timeout: when the state file names a new address, a
/// stream gets no answer, or the link is silent for longer than a keep-alive
/// should take, the connector is asked for a sign of life, and a link without one is closed if
/// discovery knows an address that was not dialled.
pub(super) async fn watch(pool: Arc<Pool>, connector: Arc<Connector>, link: Arc<Link>) {
    until_lost(&pool, &connector, &link).await;
    if let Some(endpoint) = &link.endpoint {
        let _ = tokio::time::timeout(RESOLVE_TIMEOUT, endpoint.close()).await;
    }
}

async fn until_lost(pool: &Pool, connector: &Connector, link: &Arc<Link>) {
    let suspicious = pool.endpoint.keep_alive.mul_f64(1.25);
    let mut state = pool.discovery.subscribe();
    let mut tick = tokio::time::interval(suspicious / 3);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard = (0, Instant::now());
    let mut used = Instant::now();
    let mut checked = link.addresses.clone();
    let mut state_open = true;
    let mut renamed = true;
    let mut doubted = false;
    loop {
        tokio::select! {
            error = link.connection.closed() => {
                connector.lost(link, class_of(&error), &describe(&error));
                return;
            }
            changed = state.changed(), if state_open => {
                state_open = changed.is_ok();
                renamed = true;
            }
            () = link.doubt.notified() => doubted = true,
            _ = tick.tick() => {}
        }
        let now = Instant::now();
        let received = link.received();
        if received != heard.0 {
            heard = (received, now);
            doubted = false;
        }
        if connector.open() > 0 || connector.queued() > 0 {
            used = now;
        }
        // The file changes for others too: is it about this one?
        let hints = renamed.then(|| pool.discovery.hints(connector.id));
        renamed = false;
        let elsewhere = hints.is_some_and(|hints| {
            let new = hints != checked && !link.addresses.contains_all(&hints);
            checked = hints;
            new
        });
        if std::mem::take(&mut doubted) || elsewhere || now - heard.1 >= suspicious {
            let moved = tokio::select! {
                moved = moved_away(pool, connector, link) => moved,
                // The next round tells everybody.
                _ = link.connection.closed() => continue,
            };
            if moved {
                link.close(b"moved");
                connector.lost(link, ErrorClass::Offline, "it has moved");
                return;
            }
        }
        if now - used >= pool.limits.idle_close {
            link.close(b"idle");
            connector.released(link);
            return;
        }
    }
}

/// Whether the connector gives no sign of life here, and may be elsewhere.
async fn moved_away(pool: &Pool, connector: &Connector, link: &Link) -> bool {
    let known = async {
        let known = pool.discovery.resolve(connector.id, Freshness::Fresh);
        tokio::time::timeout(RESOLVE_TIMEOUT, known).await
    };
    let (known, alive) = tokio::join!(known, link.is_alive());
    !alive && matches!(known, Ok(Ok(known)) if !link.addresses.contains_all(&known))
}

/// A connection's end, in words.
pub fn describe(error: &ConnectionError) -> String {
    match error {
        ConnectionError::TimedOut => "silent for longer than --max-idle-timeout".into(),
        other => other.to_string(),
    }
}
