//! Connections: handshakes bounded in number and time, the dialer's key
//! checked, its streams handed on.

use std::sync::Arc;

use adit_tunnel::ids;
use adit_wire::connect::{CLOSE_DENIED, CLOSE_OVERLOADED};
use iroh::{
    Endpoint,
    endpoint::{Accepting, Connection},
};
use tokio::{sync::watch, time::timeout};

use crate::{Shared, metrics::Rejected, stream};

/// Accepts on the endpoint and on every later one, until the connector cuts
/// what is left.
pub(crate) async fn accept_all(shared: Arc<Shared>, mut endpoints: watch::Receiver<Endpoint>) {
    loop {
        let endpoint = endpoints.borrow_and_update().clone();
        // A replaced endpoint goes on accepting until it is closed: a dialer
        // may know only its address.
        shared
            .tasks
            .spawn(accept_on(shared.clone(), endpoint.clone()));
        tokio::select! {
            changed = endpoints.changed() => if changed.is_err() { return },
            () = shared.cut.cancelled() => return,
        }
    }
}

async fn accept_on(shared: Arc<Shared>, endpoint: Endpoint) {
    loop {
        let incoming = tokio::select! {
            incoming = endpoint.accept() => match incoming {
                Some(incoming) => incoming,
                // The endpoint is closed.
                None => return,
            },
            () = shared.cut.cancelled() => return,
        };
        if shared.draining.is_cancelled() {
            // Said at once, so that the dialer takes its next connector.
            incoming.refuse();
            continue;
        }
        let room = shared.handshakes.available_permits();
        // Under pressure senders must prove their address first (RFC 9000,
        // section 8.1.2): a forged one cannot hold a place.
        if room * 2 < shared.limits.handshakes && !incoming.remote_addr_validated() {
            let _ = incoming.retry();
            continue;
        }
        let Ok(permit) = shared.handshakes.clone().try_acquire_owned() else {
            shared.metrics.rejected(Rejected::HandshakeLimit);
            if let Some(left_out) = shared.handshake_log.pass() {
                tracing::warn!(left_out, "too many handshakes at once (max-handshakes)");
            }
            // No answer: an honest dialer sends its first packet again.
            incoming.ignore();
            continue;
        };
        let Ok(accepting) = incoming.accept() else {
            shared.metrics.rejected(Rejected::Handshake);
            continue;
        };
        let shared = shared.clone();
        shared.tasks.clone().spawn(async move {
            let connection = handshake(&shared, accepting).await;
            drop(permit);
            if let Some(connection) = connection {
                serve(shared, connection).await;
            }
        });
    }
}

/// A wrong ALPN, a broken or a slow handshake ends here.
async fn handshake(shared: &Shared, accepting: Accepting) -> Option<Connection> {
    let error = match timeout(shared.times.handshake, accepting).await {
        Ok(Ok(connection)) => return Some(connection),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "it took too long (handshake-timeout)".to_owned(),
    };
    shared.metrics.rejected(Rejected::Handshake);
    if let Some(left_out) = shared.handshake_log.pass() {
        tracing::info!(left_out, error, "a handshake failed");
    }
    None
}

async fn serve(shared: Arc<Shared>, connection: Connection) {
    let id = ids::to_wire(connection.remote_id());
    // Subscribed before the first look: no change is missed between.
    let mut policy = shared.lists.subscribe();
    if !policy.borrow().allow.contains(&id) {
        shared.metrics.rejected(Rejected::NotAllowed);
        if let Some(left_out) = shared.stranger_log.pass() {
            tracing::warn!(dialer = %id, left_out, "a dialer that is not allowed was turned away");
        }
        connection.close(CLOSE_DENIED.into(), b"this dialer is not allowed");
        return;
    }
    let Some(connected) = shared.dialers.connect(id, &connection) else {
        shared.metrics.rejected(Rejected::ConnectionLimit);
        if let Some(left_out) = shared.handshake_log.pass() {
            tracing::warn!(
                dialer = %id.short(), left_out,
                "too many connections (max-connections, max-connections-per-dialer)"
            );
        }
        connection.close(CLOSE_OVERLOADED.into(), b"too many connections");
        return;
    };
    shared.metrics.accepted();
    tracing::info!(dialer = %id.short(), "a dialer connected");
    loop {
        tokio::select! {
            stream = connection.accept_bi() => match stream {
                Ok((send, recv)) => {
                    let dialer = connected.dialer.clone();
                    shared.tasks.spawn(stream::serve(shared.clone(), dialer, send, recv));
                }
                Err(error) => {
                    tracing::info!(dialer = %id.short(), reason = %error, "a dialer's connection ended");
                    return;
                }
            },
            Ok(()) = policy.changed() => {
                if !policy.borrow_and_update().allow.contains(&id) {
                    tracing::warn!(dialer = %id.short(), "a dialer's key was taken away: its tunnels are cut");
                    connection.close(CLOSE_DENIED.into(), b"this dialer is no longer allowed");
                    return;
                }
            }
        }
    }
}
