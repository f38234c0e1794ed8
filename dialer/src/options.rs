//! The dialer's options, and the checked configuration they become.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use adit_tunnel::{
    admin::AdminAddr,
    endpoint::EndpointConfig,
    options::{EndpointOptions, Interval, OptionError},
};
use serde::{Deserialize, Serialize};

use crate::{
    socket::{ParseSocketError, SocketConfig},
    tls::TlsRoots,
};

/// The options of `adit dialer`. A flag, its environment variable and its file
/// key have one name.
#[derive(Debug, Clone, Default, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Options {
    /// Unix socket that Envoy connects to: a path, or @name for an abstract one
    #[arg(long, env = "ADIT_SOCKET", value_name = "PATH")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket: Option<String>,
    /// Permission bits of the socket, octal [default: 0600]
    #[arg(long, env = "ADIT_SOCKET_MODE", value_name = "MODE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket_mode: Option<String>,
    /// Numeric owner of the socket, UID or UID:GID [default: this process's]
    #[arg(long, env = "ADIT_SOCKET_OWNER", value_name = "UID[:GID]")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket_owner: Option<String>,
    /// JSON file of connectors' addresses and live targets, read again when it changes
    #[arg(long, env = "ADIT_STATE", value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<PathBuf>,
    /// Domain under which connectors publish TXT records `_iroh.<z32 id>.<domain>` [default: no DNS]
    #[arg(long, env = "ADIT_DNS_ORIGIN", value_name = "DOMAIN")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns_origin: Option<String>,
    /// DNS server to ask for them; may be repeated. No other one is ever asked
    #[arg(
        long,
        env = "ADIT_DNS_RESOLVER",
        value_name = "IP:PORT",
        value_delimiter = ','
    )]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dns_resolver: Vec<SocketAddr>,
    /// PEM file of the authorities that services' certificates are verified against [default: the system's]
    #[arg(long, env = "ADIT_TLS_CA", value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_ca: Option<PathBuf>,
    /// A named bundle of authorities that targets may refer to; may be repeated
    #[arg(
        long,
        env = "ADIT_TLS_CA_NAMED",
        value_name = "NAME=FILE",
        value_delimiter = ','
    )]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tls_ca_named: Vec<String>,
    /// Where /livez, /readyz, /metrics and /status are served: IP:PORT or unix:PATH [default: 127.0.0.1:9901]
    #[arg(long, env = "ADIT_ADMIN", value_name = "ADDRESS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin: Option<AdminAddr>,
    /// Threads that move bytes [default: the number of cores, at most 4]
    #[arg(long, env = "ADIT_WORKERS", value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workers: Option<usize>,
    /// Tunnels open at once; further streams wait [default: 16384]
    #[arg(long, env = "ADIT_MAX_STREAMS", value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_streams: Option<usize>,
    /// Tunnels open at once through one connector; further streams wait [default: 4096]
    #[arg(long, env = "ADIT_MAX_STREAMS_PER_CONNECTOR", value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_streams_per_connector: Option<usize>,
    /// Streams that may wait for one connector; beyond them the answer is `overloaded` [default: 4096]
    #[arg(long, env = "ADIT_MAX_QUEUE", value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_queue: Option<usize>,
    /// Unix sockets open at once; further ones wait in the backlog [default: 32768, or what the file descriptor limit allows]
    #[arg(long, env = "ADIT_MAX_CONNECTIONS", value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<usize>,
    /// How long a preface may take to arrive [default: 5s]
    #[arg(long, env = "ADIT_PREFACE_TIMEOUT", value_name = "TIME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preface_timeout: Option<Interval>,
    /// Streams of a target that is no longer live are closed after this long [default: 10s]
    #[arg(long, env = "ADIT_DRAIN_TIMEOUT", value_name = "TIME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain_timeout: Option<Interval>,
    /// On SIGTERM, open tunnels may go on for this long [default: 10s]
    #[arg(long, env = "ADIT_GRACE_PERIOD", value_name = "TIME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace_period: Option<Interval>,
    /// A connector without streams is disconnected after this long [default: 10m]
    #[arg(long, env = "ADIT_IDLE_CLOSE", value_name = "TIME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_close: Option<Interval>,
    /// The iroh endpoint.
    #[command(flatten)]
    #[serde(flatten)]
    pub endpoint: EndpointOptions,
}

/// A checked configuration.
#[derive(Clone)]
pub struct Config {
    /// Where Envoy connects.
    pub socket: SocketConfig,
    /// The file of hints and live targets.
    pub state: Option<PathBuf>,
    /// The Kubernetes API, where there is one.
    pub control: Option<crate::ControlConfig>,
    /// Where connectors are looked up.
    pub dns: Option<DnsConfig>,
    /// Authorities for `https` services.
    pub tls: TlsRoots,
    /// Where the admin server listens.
    pub admin: AdminAddr,
    /// Whether and how the admin server may change the log filter.
    pub log: Option<adit_tunnel::log::LogHandle>,
    /// Called once, when the socket is served.
    pub on_ready: Option<Arc<dyn Fn() + Send + Sync>>,
    /// Threads.
    pub workers: usize,
    /// Counts and times that nothing may exceed.
    pub limits: Limits,
    /// The iroh endpoint.
    pub endpoint: EndpointConfig,
}

/// DNS discovery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsConfig {
    /// The domain of the records, without a final dot.
    pub origin: String,
    /// The servers to ask, and no others.
    pub servers: Vec<SocketAddr>,
}

/// Counts and times that nothing may exceed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Tunnels open at once.
    pub streams: usize,
    /// Tunnels open at once through one connector.
    pub streams_per_connector: usize,
    /// Streams waiting for one connector.
    pub queue: usize,
    /// Unix sockets open at once.
    pub connections: usize,
    /// For a preface to arrive.
    pub preface_timeout: Duration,
    /// For the streams of a target that is gone.
    pub drain: Duration,
    /// For tunnels at shutdown.
    pub grace: Duration,
    /// For a connection without streams.
    pub idle_close: Duration,
}

/// An option that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No socket.
    #[error("--socket is required (or ADIT_SOCKET, or the file key socket)")]
    NoSocket,
    /// The socket's path, mode or owner.
    #[error(transparent)]
    Socket(#[from] ParseSocketError),
    /// Only one of the two DNS options.
    #[error(
        "--dns-origin and --dns-resolver belong together: no resolver is asked unless it is named"
    )]
    HalfDns,
    /// Not a domain.
    #[error("--dns-origin {0:?} is no domain name")]
    DnsOrigin(String),
    /// Not `NAME=FILE`.
    #[error("--tls-ca-named {0:?}: write NAME=FILE, each name once")]
    NamedCa(String),
    /// A count or time out of range.
    #[error("--{option} must be between {least} and {most}")]
    Range {
        /// The option.
        option: &'static str,
        /// The least value.
        least: String,
        /// The greatest value.
        most: String,
    },
    /// The endpoint, or a PEM file.
    #[error(transparent)]
    Option(#[from] OptionError),
}

impl Options {
    /// Checks the options and reads the files they name; a key file is made on
    /// first use.
    ///
    /// # Errors
    /// When an option cannot be used.
    pub fn resolve(self) -> Result<Config, ConfigError> {
        let socket = SocketConfig::parse(
            &self.socket.ok_or(ConfigError::NoSocket)?,
            self.socket_mode.as_deref(),
            self.socket_owner.as_deref(),
        )?;
        let dns = match (self.dns_origin, self.dns_resolver) {
            (None, servers) if servers.is_empty() => None,
            (Some(origin), servers) if !servers.is_empty() => {
                match adit_wire::Host::parse(&origin) {
                    Ok(adit_wire::Host::Name(origin)) => Some(DnsConfig { origin, servers }),
                    _ => return Err(ConfigError::DnsOrigin(origin)),
                }
            }
            _ => return Err(ConfigError::HalfDns),
        };
        let mut named = BTreeMap::new();
        for pair in self.tls_ca_named {
            match pair.split_once('=') {
                Some((name, path)) if !name.is_empty() && !path.is_empty() => {
                    if named.insert(name.to_owned(), path.into()).is_some() {
                        return Err(ConfigError::NamedCa(pair));
                    }
                }
                _ => return Err(ConfigError::NamedCa(pair)),
            }
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Config {
            socket,
            state: self.state,
            control: None,
            dns,
            tls: TlsRoots::load(self.tls_ca.as_deref(), &named)?,
            admin: self
                .admin
                .unwrap_or(AdminAddr::Tcp(([127, 0, 0, 1], 9901).into())),
            log: None,
            on_ready: None,
            workers: count("workers", self.workers, cores.min(4), 256)?,
            limits: Limits {
                streams: count("max-streams", self.max_streams, 16 * 1024, 1 << 20)?,
                streams_per_connector: count(
                    "max-streams-per-connector",
                    self.max_streams_per_connector,
                    4096,
                    1 << 20,
                )?,
                queue: count("max-queue", self.max_queue, 4096, 1 << 20)?,
                connections: count("max-connections", self.max_connections, 32 * 1024, 1 << 20)?,
                preface_timeout: time("preface-timeout", self.preface_timeout, 5, 60)?,
                drain: time("drain-timeout", self.drain_timeout, 10, 86_400)?,
                grace: time("grace-period", self.grace_period, 10, 86_400)?,
                idle_close: time("idle-close", self.idle_close, 600, 86_400)?,
            },
            endpoint: self.endpoint.resolve()?,
        })
    }
}

fn count(
    option: &'static str,
    value: Option<usize>,
    default: usize,
    most: usize,
) -> Result<usize, ConfigError> {
    let value = value.unwrap_or(default);
    if !(1..=most).contains(&value) {
        return Err(ConfigError::Range {
            option,
            least: "1".into(),
            most: most.to_string(),
        });
    }
    Ok(value)
}

fn time(
    option: &'static str,
    value: Option<Interval>,
    default_secs: u64,
    most_secs: u64,
) -> Result<Duration, ConfigError> {
    let value = value.map_or(Duration::from_secs(default_secs), |i| i.0);
    let (least, most) = (Duration::from_millis(1), Duration::from_secs(most_secs));
    if !(least..=most).contains(&value) {
        return Err(ConfigError::Range {
            option,
            least: Interval(least).to_string(),
            most: Interval(most).to_string(),
        });
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: fn(&mut Options)) -> String {
        let dir = tempfile::tempdir().unwrap();
        let mut options = Options {
            socket: Some("/run/adit/dialer.sock".into()),
            ..Default::default()
        };
        options.endpoint.key_file = Some(dir.path().join("key"));
        change(&mut options);
        options.resolve().err().unwrap().to_string()
    }

    #[test]
    fn what_cannot_work_is_refused_with_the_option_and_the_cure() {
        assert!(refused(|o| o.socket = None).contains("--socket is required"));
        assert!(refused(|o| o.dns_origin = Some("a.example".into())).contains("belong together"));
        assert!(
            refused(|o| o.dns_resolver = vec!["127.0.0.1:53".parse().unwrap()])
                .contains("belong together")
        );
        assert!(
            refused(|o| {
                o.dns_origin = Some("10.0.0.1".into());
                o.dns_resolver = vec!["127.0.0.1:53".parse().unwrap()];
            })
            .contains("no domain name")
        );
        assert!(refused(|o| o.max_queue = Some(0)).contains("--max-queue must be between 1"));
        assert!(refused(|o| o.preface_timeout = "1h".parse().ok()).contains("--preface-timeout"));
        assert!(refused(|o| o.tls_ca_named = vec!["x".into()]).contains("NAME=FILE"));
        assert!(refused(|o| o.tls_ca = Some("/nonexistent".into())).contains("/nonexistent"));
        assert!(refused(|o| o.socket = Some("/x".repeat(60))).contains("107"));
    }

    #[test]
    fn a_file_has_the_same_keys_as_the_flags() {
        let options: Options = serde_json::from_str(
            r#"{"socket": "@adit", "max-queue": 7, "drain-timeout": "3s", "key-file": "/k"}"#,
        )
        .unwrap();
        assert_eq!(options.max_queue, Some(7));
        assert_eq!(options.endpoint.key_file, Some("/k".into()));
        assert_eq!(options.drain_timeout.unwrap().0, Duration::from_secs(3));
        let back = serde_json::to_value(&options).unwrap();
        assert_eq!(back.as_object().unwrap().len(), 4, "{back}");
    }
}
