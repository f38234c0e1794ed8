//! What `/status` answers and `adit status` reads: one shape for dialer and
//! connector.

use serde::{Deserialize, Serialize};

/// A process's view of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Which process this is.
    pub role: Role,
    /// `CARGO_PKG_VERSION` of the binary.
    pub version: String,
    /// Its own EndpointId, 64 hex digits.
    pub endpoint_id: String,
    /// Seconds since it started.
    pub uptime_seconds: u64,
    /// Whether it serves.
    pub ready: bool,
    /// UDP sockets of the iroh endpoint, as `ip:port`.
    pub bound: Vec<String>,
    /// The home relay; absent when no relay is configured.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub relay: Option<Relay>,
    /// The Kubernetes API; absent when none is used.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub control_plane: Option<ControlPlane>,
    /// Streams that are open now.
    pub streams: u64,
    /// Streams that wait for a place now.
    pub queued: u64,
    /// A row for each connector (at a dialer) or dialer (at a connector).
    pub peers: Vec<Peer>,
}

/// Which process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Beside Envoy.
    Dialer,
    /// Beside the service.
    Connector,
}

/// The home relay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Relay {
    /// Its URL; empty before one was chosen.
    pub url: String,
    /// Whether it is connected now.
    pub connected: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_error: Option<String>,
    /// How often the watchdog has rebuilt the endpoint.
    pub rebuilds: u64,
}

/// How the process stands with the Kubernetes API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ControlPlane {
    /// What the process is there: `namespace/name`.
    pub object: String,
    /// Whether the API server answers.
    pub connected: bool,
    /// Seconds since its Lease was renewed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lease_renewed_seconds: Option<u64>,
    /// Something that a person must act on.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub notice: Option<String>,
    /// What does not work now.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_error: Option<String>,
    /// Seconds since it failed last.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_error_seconds: Option<u64>,
}

/// The other end of tunnels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    /// 64 hex digits.
    pub endpoint_id: String,
    /// A name from the configuration, where one is known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub name: Option<String>,
    /// What is known of it.
    pub state: PeerState,
    /// The path in use; absent unless connected.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub path: Option<PathKind>,
    /// Where that path leads: an address or a relay's URL.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub remote: Option<String>,
    /// Round-trip time of that path in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rtt_ms: Option<f64>,
    /// Streams that are open now.
    pub streams: u64,
    /// Streams served since the process started.
    pub streams_total: u64,
    /// Payload bytes into tunnels.
    pub bytes_sent: u64,
    /// Payload bytes out of tunnels.
    pub bytes_received: u64,
    /// The last failure, and how long ago in seconds.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_error: Option<String>,
    /// Seconds since that failure.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_error_seconds: Option<u64>,
}

/// What is known of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PeerState {
    /// No connection and no attempt.
    Idle,
    /// A dial is under way.
    Dialing,
    /// Connected.
    Connected,
    /// The last dial failed.
    Offline,
}

/// The kind of network path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PathKind {
    /// No relay between.
    Direct,
    /// Through a relay.
    Relay,
}

impl From<adit_wire::Path> for PathKind {
    fn from(path: adit_wire::Path) -> Self {
        match path {
            adit_wire::Path::Direct => Self::Direct,
            adit_wire::Path::Relay => Self::Relay,
        }
    }
}

/// The path that a connection uses now: its kind, where it leads, and its
/// round-trip time. `None` before a path is open.
pub fn selected_path(
    connection: &iroh::endpoint::Connection,
) -> Option<(adit_wire::Path, String, std::time::Duration)> {
    let paths = connection.paths();
    let path = paths
        .iter()
        .find(|p| p.is_selected())
        .or_else(|| paths.iter().next())?;
    let kind = if path.is_relay() {
        adit_wire::Path::Relay
    } else {
        adit_wire::Path::Direct
    };
    let remote = match path.remote_addr() {
        iroh::TransportAddr::Ip(addr) => addr.to_string(),
        iroh::TransportAddr::Relay(url) => url.to_string(),
        other => format!("{other:?}"),
    };
    Some((kind, remote, path.rtt()))
}
