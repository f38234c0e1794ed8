//! Logs: text for a person or one JSON object a line, with a filter that can
//! be changed while the process runs.

use std::{io::IsTerminal as _, str::FromStr};

use serde::{Deserialize, Serialize};
use tracing::Level;
use tracing_subscriber::{
    EnvFilter, Layer as _, Registry, fmt, layer::SubscriberExt as _, reload,
    util::SubscriberInitExt as _,
};

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For a person.
    #[default]
    Text,
    /// One object a line.
    Json,
}

/// Changes the filter of a running process.
#[derive(Debug, Clone)]
pub struct LogHandle(reload::Handle<EnvFilter, Registry>);

/// A filter that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no log filter; write a level such as \"debug\", or \"info,adit_dialer=trace\"")]
pub struct BadFilter(String);

/// Installs the process's logger on standard error.
///
/// # Errors
/// When the filter cannot be read.
pub fn init(format: Format, filter: &str) -> Result<LogHandle, BadFilter> {
    let (filter, handle) = reload::Layer::new(parse(filter)?);
    let layer = match format {
        Format::Text => fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal())
            .with_target(false)
            .boxed(),
        Format::Json => fmt::layer()
            .with_writer(std::io::stderr)
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .boxed(),
    };
    // A second logger in one process (as in tests) is no fault.
    let _ = tracing_subscriber::registry()
        .with(layer.with_filter(filter))
        .try_init();
    Ok(LogHandle(handle))
}

impl LogHandle {
    /// Replaces the filter.
    ///
    /// # Errors
    /// When it cannot be read; the old one stays.
    pub fn set(&self, filter: &str) -> Result<(), BadFilter> {
        let parsed = parse(filter)?;
        self.0.reload(parsed).map_err(|_| BadFilter(filter.into()))
    }
}

/// iroh and its QUIC log every connection at `info` and every lost packet at
/// `warn`: unless asked for by name they are held to errors. The one error of
/// the relay module says at each shutdown that its channel is closed.
const NOISY: [&str; 10] = [
    "iroh=error",
    "iroh::socket::transports::relay=off",
    "iroh::socket::transports::relay::actor=error",
    "iroh_relay=error",
    "noq=error",
    "noq_proto=error",
    "noq_udp=error",
    "netwatch=error",
    "hickory_resolver=error",
    "hickory_net=error",
];

fn parse(filter: &str) -> Result<EnvFilter, BadFilter> {
    let filter = filter.trim();
    let bad = || BadFilter(filter.chars().take(80).collect());
    if filter.is_empty() {
        return Err(bad());
    }
    let text = match Level::from_str(filter) {
        Ok(_) => format!("{filter},{}", NOISY.join(",")),
        Err(_) => filter.to_owned(),
    };
    EnvFilter::try_new(text).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_a_level_or_directives() {
        for good in ["info", "warn,adit_dialer=trace", "DEBUG"] {
            assert!(parse(good).is_ok(), "{good}");
        }
        for bad in ["", "adit_dialer=loud"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
