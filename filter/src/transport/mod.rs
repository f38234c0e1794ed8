//! The transport socket `adit`: one Envoy upstream connection is one Unix
//! socket to the dialer. It tells Envoy "connected" only when the dialer says
//! that the service was reached; a dial that failed is a connect that failed,
//! with the reason `adit.<class>`.
//!
//! ```text
//!  on_connected ── preface ──► …        verdict ok ──► raise Connected ──► bytes
//!                                       refused    ──► "adit.<class>", close
//!                                       nonsense, end ► "adit.internal", close
//! ```
//!
//! * [`handshake`]: the exchange, without I/O.
//! * [`socket`]: one connection.

mod handshake;
mod socket;

use adit_wire::{
    Target,
    preface::{Preface, PrefaceError},
};

use crate::{
    config::{self, ConfigError},
    log::Brake,
    off::Connectors,
};

pub use socket::{Next, Socket};

/// What all connections of one cluster share.
#[derive(Debug)]
pub struct Factory {
    preface: Vec<u8>,
    connectors: Connectors,
    /// The target's name, or its service where it has none: for the log.
    name: String,
    refusals: Brake,
}

impl Factory {
    /// Reads the transport socket's configuration, as Envoy hands it over.
    pub fn new(name: &[u8], config: &[u8], is_upstream: bool) -> Result<Self, ConfigError> {
        config::check_name("transport_socket_name", name)?;
        if !is_upstream {
            return Err(ConfigError::Downstream);
        }
        let target = config::transport(config)?;
        Self::for_target(target).map_err(ConfigError::Preface)
    }

    fn for_target(target: Target) -> Result<Self, PrefaceError> {
        let name = if target.name.is_empty() {
            target.service.to_string()
        } else {
            target.name.clone()
        };
        let connectors = Connectors::of(&target.connectors);
        let preface = Preface {
            target,
            wants_verdict: true,
        };
        Ok(Self {
            preface: preface.encode()?,
            connectors,
            name,
            refusals: Brake::default(),
        })
    }
}
