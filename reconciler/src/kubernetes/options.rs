//! The options of `adit reconciler`, and the checked configuration they become.

mod dns;

use std::{net::SocketAddr, time::Duration};

use adit_tunnel::{admin::AdminAddr, log::LogHandle, options::Interval};
use serde::{Deserialize, Serialize};

use crate::{
    dns::{key::KeyFileError, records::LayoutError, rfc2136::ServerError},
    emit::gateway::Place,
};

pub use dns::{DnsConfig, DnsOptions, DnsPublish, Publisher};

/// For reaching a connector and, through it, the service; as `adit run` has it.
const DEADLINE: Duration = Duration::from_secs(5);
/// How long an agent may be silent; what deployed controllers give it.
const LEASE: Duration = Duration::from_secs(30);
/// For what is being written when the process is told to end. Kubernetes kills
/// after 30 s.
const GRACE: Duration = Duration::from_secs(10);

/// The options of `adit reconciler`. A flag, its environment variable and its
/// file key have one name.
#[derive(Debug, Clone, Default, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Options {
    /// Which API server.
    #[command(flatten)]
    #[serde(flatten)]
    pub control: adit_control::Options,
    /// The Gateway of HTTPProxies that name none [default: one of its own for each HTTPProxy]
    #[arg(long, env = "ADIT_GATEWAY", value_name = "NAMESPACE/NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// The class of the Gateways that are made [default: adit]
    #[arg(long, env = "ADIT_GATEWAY_CLASS", value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway_class: Option<String>,
    /// A namespace of HTTPProxies and Connectors; may be repeated [default: all]
    #[arg(
        long,
        env = "ADIT_WATCH_NAMESPACE",
        value_name = "NAME",
        value_delimiter = ','
    )]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub watch_namespace: Vec<String>,
    /// The dialer's Unix socket, as Envoy sees it [default: /run/adit/dialer.sock]
    #[arg(long, env = "ADIT_DIALER_SOCKET", value_name = "PATH")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dialer_socket: Option<String>,
    /// Where dialers' Leases are believed [default: --namespace]
    #[arg(long, env = "ADIT_DIALER_NAMESPACE", value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dialer_namespace: Option<String>,
    /// The module's name in the EnvoyProxy's dynamicModules [default: adit]
    #[arg(long, env = "ADIT_MODULE_NAME", value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub module_name: Option<String>,
    /// How long reaching a connector and its service may take [default: 5s]
    #[arg(long, env = "ADIT_DEADLINE", value_name = "TIME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Interval>,
    /// An agent that is silent for this long is not ready [default: 30s]
    #[arg(long, env = "ADIT_LEASE_DURATION", value_name = "TIME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease_duration: Option<Interval>,
    /// Discovery records.
    #[command(flatten)]
    #[serde(flatten)]
    pub dns: DnsOptions,
    /// Wait until no other reconciler leads [default: true]
    #[arg(long, env = "ADIT_LEADER_ELECTION", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leader_election: Option<bool>,
    /// The Lease, in --namespace, that says who leads [default: adit-reconciler]
    #[arg(long, env = "ADIT_LEADER_LEASE_NAME", value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leader_lease_name: Option<String>,
    /// Say what would be written, and write nothing [default: false]
    #[arg(long, env = "ADIT_DRY_RUN", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<bool>,
    /// Where /livez, /readyz and /metrics are served: IP:PORT or unix:PATH [default: 127.0.0.1:9901]
    #[arg(long, env = "ADIT_ADMIN", value_name = "ADDRESS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin: Option<AdminAddr>,
    /// On SIGTERM, what is being written may take this long [default: 10s]
    #[arg(long, env = "ADIT_GRACE_PERIOD", value_name = "TIME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace_period: Option<Interval>,
}

/// A checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Which API server.
    pub control: adit_control::Options,
    /// The Gateway of HTTPProxies that name none.
    pub gateway: Option<Place>,
    /// The class of Gateways that are made.
    pub gateway_class: String,
    /// Namespaces of users' objects; none means all.
    pub namespaces: Vec<String>,
    /// The dialer's Unix socket where Envoy runs.
    pub dialer_socket: String,
    /// Where dialers' Leases are believed; the process's own namespace without.
    pub dialer_namespace: Option<String>,
    /// The module's name in EnvoyProxies' lists.
    pub module_name: String,
    /// From preface to verdict, at most.
    pub deadline: Duration,
    /// How long an agent may be silent.
    pub lease_duration: Duration,
    /// Where discovery records are published, if anywhere.
    pub dns: Option<DnsConfig>,
    /// The Lease that says who leads; `None` without leader election.
    pub leader_lease: Option<String>,
    /// Whether nothing is written.
    pub dry_run: bool,
    /// Where the admin server listens.
    pub admin: AdminAddr,
    /// For what is being written at the end.
    pub grace: Duration,
    /// Whether and how the admin server may change the log filter.
    pub log: Option<LogHandle>,
}

/// An option that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No API server.
    #[error("which Kubernetes API? Give --kubeconfig FILE, or --in-cluster in a pod")]
    NoControl,
    /// Not `NAMESPACE/NAME`.
    #[error("--gateway {0:?}: write NAMESPACE/NAME")]
    Gateway(String),
    /// Not a name that Kubernetes takes.
    #[error("--{option} {value:?} is no name: lowercase letters, digits, hyphens{}", if *.dots { " and dots" } else { "" })]
    Name {
        /// The option.
        option: &'static str,
        /// Its value.
        value: String,
        /// Whether it may have dots.
        dots: bool,
    },
    /// A relative path, or one that a Unix address does not hold.
    #[error(
        "--dialer-socket {0:?}: an absolute path of at most 107 bytes, or @name for an abstract socket"
    )]
    Socket(String),
    /// A time out of range.
    #[error("--{option} must be between {least} and {most}")]
    Range {
        /// The option.
        option: &'static str,
        /// The least value.
        least: Interval,
        /// The greatest value.
        most: Interval,
    },
    /// Options of discovery records that need others.
    #[error("--dns-publish {how} needs {needs}")]
    DnsNeeds {
        /// `rfc2136` or `endpoint`.
        how: &'static str,
        /// What is missing.
        needs: &'static str,
    },
    /// Options of discovery records that nothing uses.
    #[error(
        "--dns-… options without a way to publish: give --dns-server with its key, or --dns-publish endpoint"
    )]
    DnsUnused,
    /// The origin or TTL.
    #[error(transparent)]
    DnsLayout(#[from] LayoutError),
    /// The records would be outside the zone.
    #[error("--dns-origin {origin:?} is not in --dns-zone {zone:?}")]
    DnsZone {
        /// The origin.
        origin: String,
        /// The zone.
        zone: String,
    },
    /// The zone's name.
    #[error("--dns-zone: {0}")]
    DnsServer(#[from] ServerError),
    /// The key.
    #[error("--dns-tsig-key-file: {0}")]
    DnsKey(#[from] KeyFileError),
}

impl Options {
    /// Checks the options and reads the file they name.
    ///
    /// # Errors
    /// When an option cannot be used.
    pub fn resolve(self) -> Result<Config, ConfigError> {
        if !self.control.wanted() {
            return Err(ConfigError::NoControl);
        }
        let gateway = self.gateway.as_deref().map(place).transpose()?;
        let or = |value: Option<String>, default: &str| value.unwrap_or_else(|| default.into());
        let gateway_class = or(self.gateway_class, "adit");
        let module_name = or(self.module_name, "adit");
        let dialer_socket = or(self.dialer_socket, "/run/adit/dialer.sock");
        let leader_lease = or(self.leader_lease_name, "adit-reconciler");
        name("gateway-class", &gateway_class, true)?;
        name("leader-lease-name", &leader_lease, true)?;
        for namespace in &self.watch_namespace {
            name("watch-namespace", namespace, false)?;
        }
        if let Some(namespace) = &self.dialer_namespace {
            name("dialer-namespace", namespace, false)?;
        }
        if !is_socket(&dialer_socket) {
            return Err(ConfigError::Socket(dialer_socket));
        }
        if module_name.is_empty() || module_name.len() > 253 {
            return Err(ConfigError::Name {
                option: "module-name",
                value: module_name,
                dots: true,
            });
        }
        let seconds = Duration::from_secs;
        Ok(Config {
            control: self.control,
            gateway,
            gateway_class,
            namespaces: self.watch_namespace,
            dialer_socket,
            dialer_namespace: self.dialer_namespace,
            module_name,
            // The dialer takes no longer deadline.
            deadline: within(
                "deadline",
                self.deadline,
                DEADLINE,
                (seconds(1), seconds(60)),
            )?,
            lease_duration: within(
                "lease-duration",
                self.lease_duration,
                LEASE,
                (seconds(2), seconds(3600)),
            )?,
            dns: self.dns.resolve()?,
            leader_lease: (self.leader_election != Some(false)).then_some(leader_lease),
            dry_run: self.dry_run == Some(true),
            admin: self
                .admin
                .unwrap_or(AdminAddr::Tcp(SocketAddr::from(([127, 0, 0, 1], 9901)))),
            grace: within(
                "grace-period",
                self.grace_period,
                GRACE,
                (Duration::ZERO, seconds(600)),
            )?,
            log: None,
        })
    }
}

fn place(text: &str) -> Result<Place, ConfigError> {
    let wrong = || ConfigError::Gateway(text.into());
    let (namespace, gateway) = text.split_once('/').ok_or_else(wrong)?;
    if !is_name(namespace, false) || !is_name(gateway, true) {
        return Err(wrong());
    }
    Ok(Place {
        namespace: namespace.into(),
        name: gateway.into(),
    })
}

fn name(option: &'static str, value: &str, dots: bool) -> Result<(), ConfigError> {
    if is_name(value, dots) {
        return Ok(());
    }
    Err(ConfigError::Name {
        option,
        value: value.into(),
        dots,
    })
}

/// A DNS-1123 label, or a subdomain when it may have dots.
fn is_name(text: &str, dots: bool) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    text.len() <= 253 && text.split('.').all(label) && (dots || !text.contains('.'))
}

/// What fits into a Unix address (108 bytes with a final zero) and is no
/// matter of anyone's working directory.
fn is_socket(text: &str) -> bool {
    let rest = text.strip_prefix(['/', '@']).unwrap_or_default();
    !rest.is_empty() && text.len() <= 107 && !text.bytes().any(|b| b.is_ascii_control())
}

fn within(
    option: &'static str,
    given: Option<Interval>,
    default: Duration,
    (least, most): (Duration, Duration),
) -> Result<Duration, ConfigError> {
    let value = given.map_or(default, |given| given.0);
    if (least..=most).contains(&value) {
        return Ok(value);
    }
    Err(ConfigError::Range {
        option,
        least: Interval(least),
        most: Interval(most),
    })
}

#[cfg(test)]
#[path = "options_tests.rs"]
mod tests;
