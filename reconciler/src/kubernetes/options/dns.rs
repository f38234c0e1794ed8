//! Where Connectors' discovery records are published: options, and what they
//! become.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use adit_tunnel::options::Interval;
use serde::{Deserialize, Serialize};

use super::{ConfigError, within};
use crate::dns;

/// Between two sweeps: a transfer of the zone each time, for records that
/// hurt nobody but who takes over their key.
const SWEEP: Duration = Duration::from_secs(600);

/// The options of discovery records.
#[derive(Debug, Clone, Default, PartialEq, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct DnsOptions {
    /// How Connectors' discovery records are published [default: rfc2136 with --dns-server, else none]
    #[arg(long, env = "ADIT_DNS_PUBLISH", value_enum)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns_publish: Option<DnsPublish>,
    /// Domain of the records `_iroh.<z32 id>.<domain>`; may contain {project} [default: --dns-zone]
    #[arg(long, env = "ADIT_DNS_ORIGIN", value_name = "DOMAIN")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns_origin: Option<String>,
    /// What {project} in --dns-origin stands for
    #[arg(long, env = "ADIT_DNS_PROJECT", value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns_project: Option<String>,
    /// The zone that is updated [default: --dns-origin]
    #[arg(long, env = "ADIT_DNS_ZONE", value_name = "DOMAIN")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns_zone: Option<String>,
    /// The zone's primary server
    #[arg(long, env = "ADIT_DNS_SERVER", value_name = "IP:PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns_server: Option<SocketAddr>,
    /// File of the key that signs updates: name:algorithm:base64, or as tsig-keygen writes it
    #[arg(long, env = "ADIT_DNS_TSIG_KEY_FILE", value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns_tsig_key_file: Option<PathBuf>,
    /// How long resolvers may keep a record [default: 5s]
    #[arg(long, env = "ADIT_DNS_TTL", value_name = "TIME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns_ttl: Option<Interval>,
    /// How often the zone is asked for records of Connectors that are gone [default: 10m]
    #[arg(long, env = "ADIT_DNS_SWEEP_INTERVAL", value_name = "TIME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns_sweep_interval: Option<Interval>,
}

/// How discovery records are published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DnsPublish {
    /// Signed updates of a zone (RFC 2136, TSIG)
    Rfc2136,
    /// DNSEndpoint objects, for external-dns
    Endpoint,
    /// Not at all
    None,
}

/// Where discovery records are published.
#[derive(Debug, Clone)]
pub struct DnsConfig {
    /// Their names and times.
    pub layout: dns::Layout,
    /// The way there.
    pub publisher: Publisher,
    /// Between two sweeps of the zone.
    pub sweep: Duration,
}

/// The way of discovery records.
#[derive(Debug, Clone)]
pub enum Publisher {
    /// Signed updates.
    Rfc2136(dns::Server),
    /// DNSEndpoint objects.
    Endpoint,
}

impl DnsOptions {
    pub(super) fn resolve(self) -> Result<Option<DnsConfig>, ConfigError> {
        let how = match (self.dns_publish, self.dns_server) {
            (Some(how), _) => how,
            (None, Some(_)) => DnsPublish::Rfc2136,
            (None, None) if self == Self::default() => DnsPublish::None,
            (None, None) => return Err(ConfigError::DnsUnused),
        };
        let needs = |how, needs| ConfigError::DnsNeeds { how, needs };
        let sweep = within(
            "dns-sweep-interval",
            self.dns_sweep_interval,
            SWEEP,
            (Duration::from_secs(1), Duration::from_secs(24 * 3600)),
        )?;
        let ttl = self.dns_ttl.map_or(dns::records::DEFAULT_TTL, |t| t.0);
        let origin = self.dns_origin.or_else(|| self.dns_zone.clone());
        let layout = |origin: &str| dns::Layout::new(origin, self.dns_project.as_deref(), ttl);
        let (layout, publisher) = match how {
            DnsPublish::None => return Ok(None),
            DnsPublish::Endpoint => {
                let origin = origin.ok_or(needs("endpoint", "--dns-origin"))?;
                (layout(&origin)?, Publisher::Endpoint)
            }
            DnsPublish::Rfc2136 => {
                let how = "rfc2136";
                let server = self.dns_server.ok_or(needs(how, "--dns-server"))?;
                let key = self.dns_tsig_key_file.ok_or(needs(
                    how,
                    "--dns-tsig-key-file: updates without a signature would let anyone on the way send connections elsewhere",
                ))?;
                let origin = origin.ok_or(needs(how, "--dns-zone or --dns-origin"))?;
                let zone = match self.dns_zone {
                    Some(zone) => zone,
                    None if origin.contains('{') => {
                        return Err(needs(
                            how,
                            "--dns-zone when --dns-origin contains {project}",
                        ));
                    }
                    None => origin.clone(),
                };
                let plain = |name: &str| name.trim_end_matches('.').to_ascii_lowercase();
                let (inner, outer) = (plain(&origin), plain(&zone));
                if inner != outer && !inner.ends_with(&format!(".{outer}")) {
                    return Err(ConfigError::DnsZone { origin, zone });
                }
                let server = dns::Server::new(server, &zone, dns::Key::read(&key)?)?;
                (layout(&origin)?, Publisher::Rfc2136(server))
            }
        };
        Ok(Some(DnsConfig {
            layout,
            publisher,
            sweep,
        }))
    }
}
