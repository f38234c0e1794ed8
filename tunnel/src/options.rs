//! The options that dialer and connector have in common.

use std::{fmt, fs, net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use iroh::{RelayConfig, RelayMap, RelayUrl, tls::CaTlsConfig};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use serde::{Deserialize, Serialize};

use crate::endpoint::EndpointConfig;

/// A length of time as a person writes it: `3s`, `500ms`, `1m 30s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Interval(pub Duration);

/// A text that is no length of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no length of time; write it like \"3s\" or \"500ms\"")]
pub struct BadInterval(String);

impl FromStr for Interval {
    type Err = BadInterval;

    fn from_str(text: &str) -> Result<Self, BadInterval> {
        humantime::parse_duration(text)
            .map(Self)
            .map_err(|_| BadInterval(text.into()))
    }
}

impl TryFrom<String> for Interval {
    type Error = BadInterval;

    fn try_from(text: String) -> Result<Self, BadInterval> {
        text.parse()
    }
}

impl From<Interval> for String {
    fn from(interval: Interval) -> Self {
        interval.to_string()
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

/// The iroh endpoint's options. A flag, its environment variable and its file
/// key have one name.
#[derive(Debug, Clone, Default, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct EndpointOptions {
    /// File of the secret key; made with mode 0600 on first use
    #[arg(long, env = "ADIT_KEY_FILE", value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// UDP address to bind, one for IPv4 and one for IPv6 at most [default: all addresses, any port]
    #[arg(long, env = "ADIT_BIND", value_name = "IP:PORT", value_delimiter = ',')]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bind: Vec<SocketAddr>,
    /// URL of an iroh relay to be reachable through; may be repeated [default: none]
    #[arg(long, env = "ADIT_RELAY", value_name = "URL", value_delimiter = ',')]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub relay: Vec<String>,
    /// PEM file of the certificate authorities that relays are verified against [default: Mozilla's]
    #[arg(long, env = "ADIT_RELAY_CA", value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relay_ca: Option<PathBuf>,
    /// File of a token that relays ask for
    #[arg(long, env = "ADIT_RELAY_TOKEN_FILE", value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relay_token_file: Option<PathBuf>,
    /// A peer that is silent for this long is gone [default: 3s]
    #[arg(long, env = "ADIT_MAX_IDLE_TIMEOUT", value_name = "TIME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_idle_timeout: Option<Interval>,
    /// A connection without traffic sends a packet this often [default: 1s]
    #[arg(long, env = "ADIT_KEEP_ALIVE_INTERVAL", value_name = "TIME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_alive_interval: Option<Interval>,
    /// Rebuild the endpoint when its home relay is out of reach for this long [default: 30s]
    #[arg(long, env = "ADIT_RELAY_WATCHDOG", value_name = "TIME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relay_watchdog: Option<Interval>,
    /// Ask the router for a port mapping (UPnP, PCP, NAT-PMP) [default: false]
    #[arg(long, env = "ADIT_PORT_MAPPING", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port_mapping: Option<bool>,
}

/// An endpoint option that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OptionError {
    /// A required option is missing.
    #[error("--{0} is required (or {1}, or the file key {0})")]
    Missing(&'static str, &'static str),
    /// Not a URL for a relay.
    #[error("--relay {0:?} is no URL: write it like https://relay.example")]
    Relay(String),
    /// A file that cannot be read or holds something else.
    #[error("--{option} {path}: {reason}")]
    File {
        /// The option.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Two values that do not fit together, or one out of range.
    #[error("{0}")]
    Range(String),
    /// The key.
    #[error(transparent)]
    Key(#[from] crate::key::KeyError),
}

impl EndpointOptions {
    /// Checks the options, reads the files they name, and makes the key on
    /// first use.
    ///
    /// # Errors
    /// When an option cannot be used.
    pub fn resolve(self) -> Result<EndpointConfig, OptionError> {
        let key_file = self
            .key_file
            .ok_or(OptionError::Missing("key-file", "ADIT_KEY_FILE"))?;
        let max_idle = self
            .max_idle_timeout
            .map_or(Duration::from_secs(3), |i| i.0);
        let keep_alive = self.keep_alive_interval.map_or(max_idle / 3, |i| i.0);
        if !(Duration::from_millis(300)..=Duration::from_secs(600)).contains(&max_idle) {
            return Err(OptionError::Range(
                "--max-idle-timeout must be between 300ms and 10m".into(),
            ));
        }
        if keep_alive * 2 > max_idle || keep_alive.is_zero() {
            return Err(OptionError::Range(format!(
                "--keep-alive-interval {} must be above zero and at most half of --max-idle-timeout {}, \
                 or a quiet peer would look dead",
                Interval(keep_alive),
                Interval(max_idle)
            )));
        }
        let relay_watchdog = self.relay_watchdog.map_or(Duration::from_secs(30), |i| i.0);
        if relay_watchdog < Duration::from_millis(500) {
            return Err(OptionError::Range(
                "--relay-watchdog must be at least 500ms".into(),
            ));
        }
        let token = self
            .relay_token_file
            .map(|path| read_token(&path))
            .transpose()?;
        let relays = RelayMap::empty();
        for text in &self.relay {
            let url: RelayUrl = text.parse().map_err(|_| OptionError::Relay(text.clone()))?;
            if !matches!(url.scheme(), "http" | "https") {
                return Err(OptionError::Relay(text.clone()));
            }
            let mut relay = RelayConfig::new(url.clone(), None);
            if let Some(token) = &token {
                relay = relay.with_auth_token(token);
            }
            relays.insert(url, relay.into());
        }
        let relay_ca = match self.relay_ca {
            None => CaTlsConfig::embedded(),
            Some(path) => CaTlsConfig::custom_roots(read_certificates("relay-ca", &path)?),
        };
        Ok(EndpointConfig {
            secret_key: crate::key::load_or_create(&key_file)?,
            bind: self.bind,
            relays,
            relay_ca,
            relay_watchdog,
            max_idle,
            keep_alive,
            port_mapping: self.port_mapping.unwrap_or(false),
            max_streams: 0,
        })
    }
}

/// The certificates of a PEM file; at least one.
///
/// # Errors
/// When the file cannot be read or holds none.
pub fn read_certificates(
    option: &'static str,
    path: &std::path::Path,
) -> Result<Vec<CertificateDer<'static>>, OptionError> {
    let file = |reason: String| OptionError::File {
        option,
        path: path.into(),
        reason,
    };
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| file(e.to_string()))?;
    if certificates.is_empty() {
        return Err(file("holds no PEM certificate".into()));
    }
    Ok(certificates)
}

fn read_token(path: &std::path::Path) -> Result<String, OptionError> {
    let file = |reason: String| OptionError::File {
        option: "relay-token-file",
        path: path.into(),
        reason,
    };
    let text = fs::read_to_string(path).map_err(|e| file(e.to_string()))?;
    let token = text.trim();
    if token.is_empty() || token.len() > 4096 || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(file(
            "does not hold one token of visible ASCII characters".into(),
        ));
    }
    Ok(token.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(dir: &tempfile::TempDir) -> EndpointOptions {
        EndpointOptions {
            key_file: Some(dir.path().join("key")),
            ..Default::default()
        }
    }

    #[test]
    fn without_options_nothing_outside_is_asked() {
        let dir = tempfile::tempdir().unwrap();
        let config = options(&dir).resolve().unwrap();
        assert!(config.relays.is_empty());
        assert!(!config.port_mapping);
        assert_eq!(
            (config.max_idle, config.keep_alive),
            (Duration::from_secs(3), Duration::from_secs(1))
        );
    }

    #[test]
    fn what_cannot_work_is_refused_before_a_socket_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        let refused = |change: fn(&mut EndpointOptions)| {
            let mut o = options(&dir);
            change(&mut o);
            o.resolve().unwrap_err().to_string()
        };
        assert!(refused(|o| o.key_file = None).contains("--key-file is required"));
        assert!(refused(|o| o.relay = vec!["nonsense".into()]).contains("no URL"));
        assert!(refused(|o| o.relay = vec!["ftp://relay".into()]).contains("no URL"));
        assert!(refused(|o| o.keep_alive_interval = "2s".parse().ok()).contains("at most half"));
        assert!(refused(|o| o.max_idle_timeout = "1ms".parse().ok()).contains("max-idle-timeout"));
        assert!(
            refused(|o| o.relay_ca = Some("/nonexistent".into()))
                .contains("--relay-ca /nonexistent")
        );
        assert!("3 parsecs".parse::<Interval>().is_err());
    }
}
