//! What the operator sets, and what becomes of it.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use adit_tunnel::{
    admin::AdminAddr,
    endpoint::EndpointConfig,
    log::LogHandle,
    options::{EndpointOptions, Interval, OptionError},
};
use adit_wire::EndpointId;
use serde::{Deserialize, Deserializer, Serialize};

use crate::{
    policy::{Allow, Policy, PolicyError, Targets},
    register::{RegisterError, RegisterOptions, Settings},
    resolve::Resolver,
};

/// The options of `adit connector`. A flag, its environment variable and its
/// file key have one name.
#[derive(Debug, Clone, Default, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Options {
    /// EndpointIds of the dialers that may connect, or "any" for everybody [default with a Kubernetes API: those that it names]
    #[arg(
        long,
        env = "ADIT_ALLOW",
        value_name = "ENDPOINT-ID",
        value_delimiter = ','
    )]
    #[serde(
        deserialize_with = "one_or_many",
        skip_serializing_if = "Option::is_none"
    )]
    pub allow: Option<Vec<String>>,
    /// Services that may be reached: host:port, *.suffix:port or *:port, each with =host:port or =unix:/path where it is elsewhere
    #[arg(
        long,
        env = "ADIT_TARGETS",
        value_name = "TARGET",
        value_delimiter = ','
    )]
    #[serde(
        deserialize_with = "one_or_many",
        skip_serializing_if = "Option::is_none"
    )]
    pub targets: Option<Vec<String>>,
    /// Where /livez, /readyz, /metrics and /status are served: ip:port or unix:/path [default: 127.0.0.1:9902]
    #[arg(long, env = "ADIT_ADMIN", value_name = "ADDRESS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin: Option<AdminAddr>,
    /// How long open tunnels may go on after SIGTERM [default: 10s]
    #[arg(long, env = "ADIT_GRACE_PERIOD", value_name = "TIME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace_period: Option<Interval>,
    /// How long a service may take to accept a connection, its name's lookup included [default: 5s]
    #[arg(long, env = "ADIT_CONNECT_TIMEOUT", value_name = "TIME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_timeout: Option<Interval>,
    /// How long a dialer may take for its handshake [default: 5s]
    #[arg(long, env = "ADIT_HANDSHAKE_TIMEOUT", value_name = "TIME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handshake_timeout: Option<Interval>,
    /// How long a dialer may take to say what a stream is for [default: 5s]
    #[arg(long, env = "ADIT_HEAD_TIMEOUT", value_name = "TIME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head_timeout: Option<Interval>,
    /// How long a stream over the limits may wait for a place [default: 5s]
    #[arg(long, env = "ADIT_QUEUE_TIMEOUT", value_name = "TIME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_timeout: Option<Interval>,
    /// Streams in all [default: 8192, or what the open-files limit leaves room for]
    #[arg(long, env = "ADIT_MAX_STREAMS", value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_streams: Option<u32>,
    /// Streams of one dialer [default: 4096]
    #[arg(long, env = "ADIT_MAX_STREAMS_PER_DIALER", value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_streams_per_dialer: Option<u32>,
    /// Streams that may wait for a place [default: 1024]
    #[arg(long, env = "ADIT_MAX_QUEUE", value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_queue: Option<u32>,
    /// Connections in all [default: 1024]
    #[arg(long, env = "ADIT_MAX_CONNECTIONS", value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<u32>,
    /// Connections of one dialer [default: 16]
    #[arg(long, env = "ADIT_MAX_CONNECTIONS_PER_DIALER", value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_connections_per_dialer: Option<u32>,
    /// Handshakes at one time; more are not answered until there is room [default: 256]
    #[arg(long, env = "ADIT_MAX_HANDSHAKES", value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_handshakes: Option<u32>,
    /// The iroh endpoint
    #[command(flatten)]
    #[serde(flatten)]
    pub endpoint: EndpointOptions,
    /// The control plane
    #[command(flatten)]
    #[serde(flatten)]
    pub register: RegisterOptions,
}

/// A checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Who may connect, and to what.
    pub policy: Policy,
    /// Where the admin server listens.
    pub admin: AdminAddr,
    /// The iroh endpoint.
    pub endpoint: EndpointConfig,
    /// The control plane to register at, where there is one.
    pub register: Option<Settings>,
    /// The waits.
    pub times: Times,
    /// The bounds.
    pub limits: Limits,
    /// How names become addresses; the system's way unless a test sets another.
    pub resolver: Resolver,
    /// The file to reload `allow` and `targets` from, where there is one.
    pub watched: Option<Watched>,
    /// The logger that `PUT /log` changes, where there is one.
    pub log: Option<LogHandle>,
    /// The options this came from, to tell what a reload cannot change.
    pub(crate) options: Options,
}

/// How long each step may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "named and explained in `Options`")]
pub struct Times {
    pub grace: Duration,
    pub connect: Duration,
    pub handshake: Duration,
    pub head: Duration,
    pub queue: Duration,
}

/// How many of each there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "named and explained in `Options`")]
pub struct Limits {
    pub streams: usize,
    pub streams_per_dialer: usize,
    pub queue: usize,
    pub connections: usize,
    pub connections_per_dialer: usize,
    pub handshakes: usize,
}

/// A configuration file that is watched while the connector runs.
#[derive(Clone)]
pub struct Watched {
    /// The file.
    pub path: PathBuf,
    /// Reads the file again and merges it with environment and flags as at
    /// the start. The error says what is wrong and in which line.
    pub read: Arc<dyn Fn() -> Result<Options, String> + Send + Sync>,
}

/// Options that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A required option is missing.
    #[error(
        "{option} is required (--{option}, ADIT_{upper}, or the file key {option}): {why}",
        upper = option.to_ascii_uppercase()
    )]
    Missing {
        /// Its name.
        option: &'static str,
        /// What to write.
        why: &'static str,
    },
    /// `allow` or `targets`.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// A number or time that makes no sense.
    #[error("{0}")]
    Range(String),
    /// The endpoint's options.
    #[error(transparent)]
    Endpoint(#[from] OptionError),
    /// The control plane's options.
    #[error(transparent)]
    Register(#[from] RegisterError),
}

impl ConfigError {
    /// The text in the file that is wrong, to find its line by.
    pub fn entry(&self) -> Option<&str> {
        match self {
            Self::Policy(error) => error.entry(),
            _ => None,
        }
    }

    /// `path:line: error` where the wrong entry stands in the file's `text`,
    /// else `path: error`.
    pub fn in_file(&self, path: &std::path::Path, text: &str) -> String {
        let holds = |entry: &str| text.lines().position(|line| line.contains(entry));
        match self.entry().filter(|e| !e.is_empty()).and_then(holds) {
            Some(line) => format!("{}:{}: {self}", path.display(), line + 1),
            None => format!("{}: {self}", path.display()),
        }
    }
}

impl Options {
    /// The two lists that a reload may change.
    ///
    /// # Errors
    /// When one is missing or holds a wrong entry.
    pub fn policy(&self) -> Result<Policy, ConfigError> {
        // With a control plane nobody is let in but those that it names.
        let nobody: Option<&[String]> = self.register.control.wanted().then_some(&[]);
        let allow = self.allow.as_deref().or(nobody).ok_or(ConfigError::Missing {
            option: "allow",
            why: "list the EndpointIds of the dialers that may connect (`adit key show FILE` prints a \
                  dialer's), or write \"any\" to let everybody in",
        })?;
        let targets = self.targets.as_deref().ok_or(ConfigError::Missing {
            option: "targets",
            why: "list the services that may be reached, such as 127.0.0.1:8080",
        })?;
        // An environment variable that is set but empty is an empty list.
        let entries = |list: &[String]| -> Vec<String> {
            let filled = list.iter().map(|entry| entry.trim());
            filled
                .filter(|e| !e.is_empty())
                .map(str::to_owned)
                .collect()
        };
        Ok(Policy {
            allow: Allow::parse(&entries(allow))?,
            targets: Targets::parse(&entries(targets))?,
        })
    }

    /// Checks the options, reads the files they name, and makes the key on
    /// first use.
    ///
    /// # Errors
    /// When an option cannot be used.
    pub fn resolve(self) -> Result<Config, ConfigError> {
        let policy = self.policy()?;
        let time = |name: &str, set: Option<Interval>, default: u64| {
            let time = set.map_or(Duration::from_secs(default), |interval| interval.0);
            match time.is_zero() || time > Duration::from_secs(3600) {
                true => Err(ConfigError::Range(format!(
                    "{name} must be above zero and at most 1h"
                ))),
                false => Ok(time),
            }
        };
        let count = |name: &str, set: Option<u32>, default: u32, least: u32| {
            let count = set.unwrap_or(default);
            // The bound is tokio's for semaphores and far above any machine.
            match (least..=1_000_000).contains(&count) {
                true => Ok(count as usize),
                false => Err(ConfigError::Range(format!(
                    "{name} is {count}, not between {least} and 1000000"
                ))),
            }
        };
        let times = Times {
            // None: everything is cut at once.
            grace: self.grace_period.map_or(Duration::from_secs(10), |i| i.0),
            connect: time("connect-timeout", self.connect_timeout, 5)?,
            handshake: time("handshake-timeout", self.handshake_timeout, 5)?,
            head: time("head-timeout", self.head_timeout, 5)?,
            queue: time("queue-timeout", self.queue_timeout, 5)?,
        };
        let limits = Limits {
            streams: count("max-streams", self.max_streams, 8192, 1)?,
            streams_per_dialer: count(
                "max-streams-per-dialer",
                self.max_streams_per_dialer,
                4096,
                1,
            )?,
            queue: count("max-queue", self.max_queue, 1024, 0)?,
            connections: count("max-connections", self.max_connections, 1024, 1)?,
            connections_per_dialer: count(
                "max-connections-per-dialer",
                self.max_connections_per_dialer,
                16,
                1,
            )?,
            handshakes: count("max-handshakes", self.max_handshakes, 256, 1)?,
        };
        let mut endpoint = self.endpoint.clone().resolve()?;
        // What one dialer may have open or waiting. QUIC holds back the rest,
        // so that even heads that never end are bounded in number.
        let id = EndpointId::from_bytes(*endpoint.secret_key.public().as_bytes());
        let register = self.register.clone().resolve(id)?;
        let open = limits.streams_per_dialer + limits.queue;
        endpoint.max_streams = u32::try_from(open).unwrap_or(u32::MAX);
        let default_admin = || AdminAddr::Tcp(([127, 0, 0, 1], 9902).into());
        Ok(Config {
            policy,
            register,
            admin: self.admin.clone().unwrap_or_else(default_admin),
            endpoint,
            times,
            limits,
            resolver: Resolver::system(),
            watched: None,
            log: None,
            options: self,
        })
    }
}

/// Takes `allow: any` as well as a list.
fn one_or_many<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Vec<String>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a list of texts, or one text")]
    enum Either {
        One(String),
        Many(Vec<String>),
    }
    Ok(
        Option::<Either>::deserialize(input)?.map(|either| match either {
            Either::One(text) => vec![text],
            Either::Many(texts) => texts,
        }),
    )
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Watched({})", self.path.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(yaml: &str) -> Options {
        serde_saphyr::from_str(yaml).expect("valid YAML")
    }

    #[test]
    fn allow_is_a_list_or_the_word_any() {
        let any = read("allow: any\ntargets: ['127.0.0.1:80']").policy();
        assert_eq!(any.expect("valid").allow, Allow::Any);
        let nobody = read("allow: []\ntargets: []").policy().expect("valid");
        assert_eq!(nobody.allow, Allow::Only(Default::default()));
        assert!(nobody.targets.is_empty());
    }

    #[test]
    fn a_list_that_is_missing_is_not_an_empty_list() {
        for yaml in ["targets: []", "allow: any", "allow:\ntargets: []"] {
            let error = read(yaml).policy().expect_err(yaml).to_string();
            assert!(error.contains("is required"), "{error}");
        }
    }

    #[test]
    fn with_a_control_plane_nobody_is_let_in_but_those_it_names() {
        let registered = read("kubeconfig: /k\ntargets: []").policy().expect("valid");
        assert_eq!(registered.allow, Allow::Only(Default::default()));
    }

    #[test]
    fn a_wrong_entry_is_shown_with_its_line() {
        let text = "allow: any\ntargets:\n  - 127.0.0.1:80\n  - udp://127.0.0.1:53\n";
        let error = read(text).policy().expect_err("UDP");
        let shown = error.in_file("/etc/adit.yaml".as_ref(), text);
        assert!(shown.starts_with("/etc/adit.yaml:4: "), "{shown}");
        assert!(shown.contains("UDP is not carried yet"), "{shown}");
    }

    #[test]
    fn numbers_without_sense_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for (key, value) in [
            ("max-streams", "0"),
            ("connect-timeout", "0s"),
            ("max-handshakes", "2000000"),
        ] {
            let mut options = read(&format!("{key}: {value}\nallow: any\ntargets: []"));
            options.endpoint.key_file = Some(dir.path().join("key"));
            let error = options.resolve().expect_err(key).to_string();
            assert!(error.contains(key), "{error}");
        }
    }
}
