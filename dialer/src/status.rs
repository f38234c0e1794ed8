//! What `/status` answers.

use std::{sync::Arc, time::Instant};

use adit_control::Contact;
use adit_tunnel::status::{Peer, PeerState, Role, Status, selected_path};

use crate::pool::{Connector, Pool, state::Phase};

/// The dialer as it is now.
pub fn status(
    pool: &Arc<Pool>,
    started: Instant,
    ready: bool,
    contact: Option<&Contact>,
) -> Status {
    let endpoint = pool.supervisor.endpoint();
    let mut peers: Vec<Peer> = pool.connectors().iter().map(|c| peer(c)).collect();
    peers.sort_by(|a, b| a.endpoint_id.cmp(&b.endpoint_id));
    Status {
        role: Role::Dialer,
        version: env!("CARGO_PKG_VERSION").into(),
        endpoint_id: endpoint.id().to_string(),
        uptime_seconds: started.elapsed().as_secs(),
        ready,
        bound: endpoint
            .bound_sockets()
            .iter()
            .map(ToString::to_string)
            .collect(),
        relay: pool.supervisor.relay(),
        control_plane: contact.map(Contact::status),
        streams: pool.open_streams() as u64,
        queued: pool.queued() as u64,
        peers,
    }
}

fn peer(connector: &Connector) -> Peer {
    let now = connector.snapshot();
    let path = now.link.as_ref().and_then(|l| selected_path(&l.connection));
    Peer {
        endpoint_id: connector.id.to_string(),
        name: now.name.map(|n| n.to_string()),
        state: match now.phase {
            Phase::Idle => PeerState::Idle,
            Phase::Dialing => PeerState::Dialing,
            Phase::Up => PeerState::Connected,
            Phase::Resting(_) => PeerState::Offline,
        },
        path: path.as_ref().map(|(kind, _, _)| (*kind).into()),
        remote: path.as_ref().map(|(_, remote, _)| remote.clone()),
        rtt_ms: path.as_ref().map(|(_, _, rtt)| rtt.as_secs_f64() * 1000.0),
        streams: now.open as u64,
        streams_total: now.total,
        bytes_sent: connector.meter.sent(),
        bytes_received: connector.meter.received(),
        last_error: now
            .failure
            .as_ref()
            .map(|(f, _)| format!("{}: {}", f.class, f.text)),
        last_error_seconds: now.failure.map(|(_, at)| at.elapsed().as_secs()),
    }
}
