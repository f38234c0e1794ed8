//! What one upstream connection of Envoy is for.

use std::time::Duration;

use data_encoding::BASE64;
use prost::Message;

use crate::{EndpointId, Host, HostPort, ParseHostError, host, proto};

/// The most connectors one target may name.
pub const MAX_CONNECTORS: usize = 16;
/// The longest deadline a target may ask for.
pub const MAX_DEADLINE: Duration = Duration::from_secs(300);
/// The longest `name`, server name or CA reference, in bytes.
const MAX_TEXT: usize = 253;
/// The most ALPN protocols, and the longest of them (RFC 7301: one byte of length).
const MAX_ALPN: usize = 8;

/// A service behind connectors: the whole of what the dialer is told about a
/// stream. It holds no address and no relay: those reach the dialer by
/// discovery, so that a device which moves changes no Envoy configuration.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    /// The connectors that reach the service, in order of preference; 1 to
    /// [`MAX_CONNECTORS`], each once.
    pub connectors: Vec<EndpointId>,
    /// The service as the connector sees it.
    pub service: HostPort,
    /// How the dialer speaks to the service.
    pub protocol: Protocol,
    /// From preface to verdict, at most; above zero, at most [`MAX_DEADLINE`],
    /// in whole milliseconds.
    pub deadline: Duration,
    /// For logs and metrics; up to 253 bytes, may be empty.
    pub name: String,
}

/// What runs inside the tunnel, as far as the dialer is concerned.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Bytes as Envoy sends them.
    Tcp,
    /// TLS, originated by the dialer.
    Tls(Tls),
}

/// TLS to the service.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tls {
    /// Sent as SNI (when a name) and verified against the certificate.
    pub server_name: Host,
    /// The name of a CA bundle in the dialer's configuration; empty for its default.
    pub ca: String,
    /// ALPN protocols to offer, such as `h2`; none offers none.
    pub alpn: Vec<String>,
}

/// Why bytes or fields are no [`Target`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Not base64.
    #[error("the target is not base64")]
    Base64,
    /// Not the protobuf message.
    #[error("the target is not a protobuf Target: {0}")]
    Proto(String),
    /// Zero, too many, or the same twice.
    #[error("a target names 1 to {MAX_CONNECTORS} connectors, each once; this one names {0}")]
    Connectors(usize),
    /// A connector that is no key.
    #[error("a connector is {0} bytes, an EndpointId is 32")]
    EndpointId(usize),
    /// The service's host.
    #[error("the target's host: {0}")]
    Host(#[source] ParseHostError),
    /// The service's port.
    #[error("the target's port is {0}, not between 1 and 65535")]
    Port(u32),
    /// The TLS server name.
    #[error("the target's TLS server name: {0}")]
    ServerName(#[source] ParseHostError),
    /// The deadline.
    #[error("the target's deadline is {0} ms, not between 1 and {max}", max = MAX_DEADLINE.as_millis())]
    Deadline(u128),
    /// A text field over its limit.
    #[error("the target's {0} is longer than {1} bytes")]
    TooLong(&'static str, usize),
}

impl Target {
    /// Checks what the types do not: counts and lengths.
    pub fn validate(&self) -> Result<(), TargetError> {
        let ids = &self.connectors;
        let repeated = ids.iter().enumerate().any(|(i, id)| ids[..i].contains(id));
        if ids.is_empty() || ids.len() > MAX_CONNECTORS || repeated {
            return Err(TargetError::Connectors(ids.len()));
        }
        if self.service.port == 0 {
            return Err(TargetError::Port(0));
        }
        if self.deadline.as_millis() == 0 || self.deadline > MAX_DEADLINE {
            return Err(TargetError::Deadline(self.deadline.as_millis()));
        }
        if self.name.len() > MAX_TEXT {
            return Err(TargetError::TooLong("name", MAX_TEXT));
        }
        if let Protocol::Tls(tls) = &self.protocol {
            if tls.ca.len() > MAX_TEXT {
                return Err(TargetError::TooLong("CA reference", MAX_TEXT));
            }
            let fits = |p: &String| (1..=255).contains(&p.len());
            if tls.alpn.len() > MAX_ALPN || !tls.alpn.iter().all(fits) {
                return Err(TargetError::TooLong("ALPN list", MAX_ALPN));
            }
        }
        Ok(())
    }

    /// The protobuf bytes: the same value gives the same bytes.
    pub fn encode(&self) -> Vec<u8> {
        proto::Target {
            connectors: self
                .connectors
                .iter()
                .map(|id| id.as_bytes().to_vec())
                .collect(),
            host: self.service.host.to_string(),
            port: self.service.port.into(),
            tls: match &self.protocol {
                Protocol::Tcp => None,
                Protocol::Tls(tls) => Some(proto::Tls {
                    server_name: tls.server_name.to_string(),
                    ca: tls.ca.clone(),
                    alpn: tls.alpn.clone(),
                }),
            },
            deadline_ms: u32::try_from(self.deadline.as_millis()).unwrap_or(u32::MAX),
            name: self.name.clone(),
        }
        .encode_to_vec()
    }

    /// Reads and validates protobuf bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, TargetError> {
        let raw = proto::Target::decode(bytes).map_err(|e| TargetError::Proto(e.to_string()))?;
        let connectors = raw
            .connectors
            .iter()
            .map(|id| {
                let bytes = id.as_slice().try_into();
                bytes
                    .map(EndpointId::from_bytes)
                    .map_err(|_| TargetError::EndpointId(id.len()))
            })
            .collect::<Result<_, _>>()?;
        let host = raw.host.parse::<host::Host>().map_err(TargetError::Host)?;
        let port = u16::try_from(raw.port).map_err(|_| TargetError::Port(raw.port))?;
        let target = Self {
            connectors,
            service: HostPort::new(host, port),
            protocol: match raw.tls {
                None => Protocol::Tcp,
                Some(tls) => Protocol::Tls(Tls {
                    server_name: tls.server_name.parse().map_err(TargetError::ServerName)?,
                    ca: tls.ca,
                    alpn: tls.alpn,
                }),
            },
            deadline: Duration::from_millis(raw.deadline_ms.into()),
            name: raw.name,
        };
        target.validate()?;
        Ok(target)
    }

    /// The form that stands in Envoy's configuration.
    pub fn to_base64(&self) -> String {
        BASE64.encode(&self.encode())
    }

    /// Reads the form that stands in Envoy's configuration.
    pub fn from_base64(text: &str) -> Result<Self, TargetError> {
        let bytes = BASE64
            .decode(text.as_bytes())
            .map_err(|_| TargetError::Base64)?;
        Self::decode(&bytes)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn example() -> Target {
        Target {
            connectors: vec![
                EndpointId::from_bytes([7; 32]),
                EndpointId::from_bytes([8; 32]),
            ],
            service: "[::1]:8443".parse().expect("valid"),
            protocol: Protocol::Tls(Tls {
                server_name: "shop.example".parse().expect("valid"),
                ca: "internal".into(),
                alpn: vec!["h2".into()],
            }),
            deadline: Duration::from_millis(2500),
            name: "default/shop".into(),
        }
    }

    #[test]
    fn a_target_reads_back_from_both_forms() {
        let target = example();
        assert_eq!(Target::decode(&target.encode()), Ok(target.clone()));
        assert_eq!(Target::from_base64(&target.to_base64()), Ok(target));
    }

    #[test]
    fn a_target_without_sense_is_refused() {
        let refuse = |change: fn(&mut Target)| {
            let mut target = example();
            change(&mut target);
            Target::decode(&target.encode()).expect_err("refused")
        };
        assert_eq!(refuse(|t| t.connectors.clear()), TargetError::Connectors(0));
        assert_eq!(
            refuse(|t| t.connectors[1] = t.connectors[0]),
            TargetError::Connectors(2)
        );
        assert_eq!(refuse(|t| t.service.port = 0), TargetError::Port(0));
        assert_eq!(
            refuse(|t| t.deadline = Duration::ZERO),
            TargetError::Deadline(0)
        );
        assert_eq!(
            refuse(|t| t.name = "n".repeat(254)),
            TargetError::TooLong("name", 253)
        );
        assert_eq!(Target::from_base64("not base64!"), Err(TargetError::Base64));
        assert!(matches!(
            Target::decode(&[0xff; 9]),
            Err(TargetError::Proto(_))
        ));
    }
}
