//! The options of `adit run`.

use std::{
    env, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use adit_tunnel::options::Interval;
use anyhow::{Context as _, bail};
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::options::LogOptions;

/// For reaching a connector and, through it, the service.
pub(crate) const DEFAULT_DEADLINE: Interval = Interval(Duration::from_secs(5));
/// A page is sent with each failed request; more is no error page.
const MAX_PAGE: u64 = 64 << 10;

/// Where distributions keep the certificates of the authorities.
const AUTHORITIES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

#[derive(Args)]
pub(crate) struct RunArgs {
    /// Directory of manifests: HTTPProxy, Connector, ConnectorAdvertisement. Changes take effect as they are made
    #[arg(short, long, env = "ADIT_CONFIG", value_name = "DIR")]
    pub config: PathBuf,
    /// YAML or JSON file of options: the flags' names without the dashes
    #[arg(long, env = "ADIT_OPTIONS", value_name = "FILE")]
    pub options_file: Option<PathBuf>,
    #[command(flatten)]
    pub options: RunOptions,
}

/// The options of `adit run`: its own, and those of its dialer.
#[derive(Debug, Clone, Default, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(crate) struct RunOptions {
    /// Where Envoy listens [default: 127.0.0.1:10080]
    #[arg(long, env = "ADIT_LISTEN", value_name = "IP:PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    /// Directory for sockets, generated files and the dialer's key [default: adit in $XDG_STATE_HOME or ~/.local/state]
    #[arg(long, env = "ADIT_STATE_DIR", value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_dir: Option<PathBuf>,
    /// The Envoy to run, 1.39 or 1.40 [default: envoy on PATH]
    #[arg(long, env = "ENVOY_PATH", value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub envoy: Option<PathBuf>,
    /// The module libadit.so [default: beside this program, or in ../lib/adit]
    #[arg(long, env = "ADIT_MODULE", value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub module: Option<PathBuf>,
    /// Envoy's worker threads [default: the number of cores]
    #[arg(long, env = "ADIT_CONCURRENCY", value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u16>,
    /// How long reaching a connector and its service may take [default: 5s]
    #[arg(long, env = "ADIT_DEADLINE", value_name = "TIME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Interval>,
    /// HTML page for failed requests, instead of the module's own
    #[arg(long, env = "ADIT_HTML_PAGE", value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub html_page: Option<PathBuf>,
    /// File where Envoy logs each request as JSON, such as /dev/stdout [default: none]
    #[arg(long, env = "ADIT_ACCESS_LOG", value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_log: Option<PathBuf>,
    /// What Envoy logs: trace, debug, info, warning, error [default: warning]
    #[arg(long, env = "ADIT_ENVOY_LOG_LEVEL", value_name = "LEVEL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub envoy_log_level: Option<String>,
    #[command(flatten)]
    #[serde(flatten)]
    pub log: LogOptions,
    /// The dialer's.
    #[command(flatten)]
    #[serde(flatten)]
    pub dialer: adit_dialer::Options,
}

impl RunOptions {
    pub fn listen(&self) -> SocketAddr {
        self.listen
            .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 10080)))
    }

    /// The module's file, absolute.
    pub fn module(&self) -> anyhow::Result<PathBuf> {
        if let Some(file) = &self.module {
            return file
                .canonicalize()
                .with_context(|| format!("the module {}", file.display()));
        }
        let program = env::current_exe().context("where this program is")?;
        let folder = program.parent().unwrap_or(Path::new("/"));
        let places = [
            folder.join("libadit.so"),
            folder.join("../lib/adit/libadit.so"),
        ];
        let found = places.iter().find_map(|file| file.canonicalize().ok());
        found.with_context(|| {
            format!(
                "the module libadit.so is neither in {0} nor in {0}/../lib/adit; give --module",
                folder.display()
            )
        })
    }

    /// The state directory; not made yet.
    pub fn state_dir(&self) -> anyhow::Result<PathBuf> {
        if let Some(folder) = &self.state_dir {
            return Ok(folder.clone());
        }
        let set = |name| {
            env::var_os(name)
                .filter(|v| !v.is_empty())
                .map(PathBuf::from)
        };
        let base = set("XDG_STATE_HOME").or_else(|| Some(set("HOME")?.join(".local/state")));
        base.map(|base| base.join("adit"))
            .context("neither XDG_STATE_HOME nor HOME is set; give --state-dir")
    }

    /// The authorities for plain `https` backends.
    pub fn authorities(&self) -> anyhow::Result<Option<PathBuf>> {
        match &self.dialer.tls_ca {
            Some(file) => {
                let file = file
                    .canonicalize()
                    .with_context(|| format!("--tls-ca {}", file.display()))?;
                Ok(Some(file))
            }
            None => Ok(default_authorities()),
        }
    }

    pub fn html_page(&self) -> anyhow::Result<Option<String>> {
        let Some(file) = &self.html_page else {
            return Ok(None);
        };
        let shown = file.display();
        let size = fs::metadata(file)
            .with_context(|| format!("--html-page {shown}"))?
            .len();
        if size > MAX_PAGE {
            bail!("--html-page {shown} has {size} bytes; at most {MAX_PAGE} are allowed");
        }
        Ok(Some(
            fs::read_to_string(file).with_context(|| format!("--html-page {shown}"))?,
        ))
    }

    pub fn access_log(&self) -> anyhow::Result<Option<PathBuf>> {
        let absolute = self.access_log.as_deref().map(std::path::absolute);
        absolute.transpose().context("--access-log")
    }
}

/// The system's certificate authorities, where they are found.
pub(crate) fn default_authorities() -> Option<PathBuf> {
    AUTHORITIES
        .iter()
        .map(PathBuf::from)
        .find(|file| file.is_file())
}
