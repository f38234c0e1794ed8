//! What Envoy shall do, in its own order: listeners, then routes, then
//! clusters. Nothing here says where Envoy's files or sockets are.
//!
//! A cluster's name is made from what the cluster reaches, so a name never
//! changes its meaning: an old route cannot meet a new target.

use std::{collections::BTreeMap, fmt, net::SocketAddr, path::PathBuf};

use adit_api::{
    ConnectorHint,
    networking::{MatchType, PathMatchType},
};
use adit_wire::{Host, HostPort, Target};
use sha2::{Digest as _, Sha256};

/// Everything.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Model {
    /// Where Envoy listens.
    pub listeners: Vec<Listener>,
    /// Where it connects to.
    pub clusters: BTreeMap<ClusterName, Cluster>,
    /// For the dialer: where the connectors of the clusters are.
    pub connectors: Vec<ConnectorHint>,
}

/// A listening socket.
#[derive(Debug, Clone, PartialEq)]
pub struct Listener {
    /// A name, once in a model.
    pub name: String,
    /// The address; port 0 for any.
    pub address: SocketAddr,
    /// The network namespace to listen in, as a path; Envoy's own without it.
    pub netns: Option<PathBuf>,
    /// What it speaks.
    pub kind: ListenerKind,
}

/// What a listener speaks.
#[derive(Debug, Clone, PartialEq)]
pub enum ListenerKind {
    /// HTTP/1.1 and HTTP/2, by host name.
    Http(Vec<VirtualHost>),
}

/// The routes of one host name.
#[derive(Debug, Clone, PartialEq)]
pub struct VirtualHost {
    /// The name; `None` for any name without a virtual host of its own.
    pub hostname: Option<String>,
    /// The first that matches is taken.
    pub routes: Vec<Route>,
}

/// Some requests and what becomes of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// Where it comes from.
    pub origin: RouteOrigin,
    /// Which requests.
    pub matches: RouteMatch,
    /// What becomes of them.
    pub action: Action,
    /// Changes to the request's headers.
    pub request_headers: HeaderChanges,
    /// Changes to the response's headers.
    pub response_headers: HeaderChanges,
}

/// The rule that a route was made for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouteOrigin {
    /// `namespace/name` of the HTTPProxy: the name in logs and metadata.
    pub proxy: String,
    /// The rule's position.
    pub rule: usize,
    /// The match's position in the rule.
    pub matched: usize,
}

/// Which requests: all of it must hold.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouteMatch {
    /// CONNECT, or any other method with a path.
    pub target: RequestTarget,
    /// Header conditions, sorted.
    pub headers: Vec<Condition>,
    /// Query parameter conditions, sorted.
    pub query: Vec<Condition>,
}

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum RequestTarget {
    /// A tunnel: CONNECT.
    Connect,
    /// A path.
    Path {
        /// How it is compared.
        kind: PathMatchType,
        /// With what. A prefix has no final slash, the root is empty.
        value: String,
        /// The method, if only one.
        method: Option<String>,
    },
}

/// A condition on a header or query parameter.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Condition {
    /// Its name; a header's in lowercase.
    pub name: String,
    /// How the value is compared.
    pub kind: MatchType,
    /// With what.
    pub value: String,
}

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// It goes to one of some clusters, by weight.
    Forward {
        /// At least one; weights above 0.
        backends: Vec<WeightedCluster>,
        /// Changes to host and path.
        rewrite: Rewrite,
    },
    /// It is answered by a redirect.
    Redirect(Redirect),
    /// It is refused: the rule cannot be programmed.
    Misconfigured,
}

/// A cluster and its share.
#[derive(Debug, Clone, PartialEq)]
pub struct WeightedCluster {
    /// The cluster.
    pub cluster: ClusterName,
    /// Its share, above 0.
    pub weight: u32,
    /// Changes to the headers of requests that go there.
    pub request_headers: HeaderChanges,
    /// Changes to the headers of responses from there.
    pub response_headers: HeaderChanges,
}

/// Changes to headers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderChanges {
    /// Overwritten or added.
    pub set: Vec<(String, String)>,
    /// Added.
    pub add: Vec<(String, String)>,
    /// Removed.
    pub remove: Vec<String>,
}

/// Changes to host and path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rewrite {
    /// The new Host.
    pub hostname: Option<String>,
    /// The new path.
    pub path: Option<PathChange>,
}

/// A new path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathChange {
    /// The whole path.
    Full(String),
    /// Instead of the prefix that matched; no final slash, may be empty.
    Prefix(String),
}

/// A redirect.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Redirect {
    /// The new scheme.
    pub scheme: Option<String>,
    /// The new host.
    pub hostname: Option<String>,
    /// The new port.
    pub port: Option<u16>,
    /// The new path.
    pub path: Option<PathChange>,
    /// The status: 301, 302, 303, 307 or 308.
    pub status: u16,
}

/// The name of a cluster: who asked for it and a hash over what it reaches.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterName(String);

/// A service.
#[derive(Debug, Clone, PartialEq)]
pub struct Cluster {
    /// The `namespace/name` that asked for it.
    pub owner: String,
    /// How it is reached.
    pub transport: Transport,
    /// What Envoy speaks to it.
    pub protocol: UpstreamProtocol,
}

/// How a service is reached.
#[derive(Debug, Clone, PartialEq)]
pub enum Transport {
    /// By the module and the dialer, through a tunnel.
    Adit(Target),
    /// By TCP.
    Raw(HostPort),
    /// By TLS over TCP, verified.
    Tls {
        /// The service.
        address: HostPort,
        /// SNI and the name in the certificate.
        server_name: Host,
        /// A file with the certificates of the authorities; the system's own
        /// without it.
        ca_file: Option<PathBuf>,
    },
}

/// What Envoy speaks to a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamProtocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 from the first byte.
    Http2,
    /// What the client sends through a CONNECT tunnel.
    Bytes,
}

impl ClusterName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Cluster {
    /// The name that says what this cluster is.
    ///
    /// Each part is hashed with its length before it, so no two clusters give
    /// the same input.
    pub fn name(&self) -> ClusterName {
        let mut hash = Sha256::new();
        let mut part = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        };
        part(match self.protocol {
            UpstreamProtocol::Http1 => b"http1",
            UpstreamProtocol::Http2 => b"http2",
            UpstreamProtocol::Bytes => b"bytes",
        });
        match &self.transport {
            Transport::Adit(target) => {
                part(b"adit");
                part(&target.encode());
            }
            Transport::Raw(address) => {
                part(b"raw");
                part(address.to_string().as_bytes());
            }
            Transport::Tls {
                address,
                server_name,
                ca_file,
            } => {
                part(b"tls");
                part(address.to_string().as_bytes());
                part(server_name.to_string().as_bytes());
                part(match ca_file {
                    Some(file) => file.as_os_str().as_encoded_bytes(),
                    None => b"",
                });
            }
        }
        let digest = hash.finalize();
        let short = data_encoding::HEXLOWER.encode(&digest[..10]);
        ClusterName(format!("{}/{short}", self.owner))
    }
}

impl Model {
    /// The targets of all tunnels, sorted by their clusters' names.
    pub fn targets(&self) -> Vec<Target> {
        let targets = self.clusters.values().filter_map(|c| match &c.transport {
            Transport::Adit(target) => Some(target.clone()),
            Transport::Raw(_) | Transport::Tls { .. } => None,
        });
        let mut seen = std::collections::HashSet::new();
        targets.filter(|t| seen.insert(t.clone())).collect()
    }
}

impl fmt::Display for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for RouteOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/rule/{}/match/{}",
            self.proxy, self.rule, self.matched
        )
    }
}
