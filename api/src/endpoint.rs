//! A backend's address: scheme, host and port, nothing else.

use std::{fmt, str::FromStr};

use adit_wire::{HostPort, ParseHostError};

/// How to speak to a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// HTTP/1.1.
    Http,
    /// HTTP/1.1 inside TLS.
    Https,
    /// HTTP/2 without TLS, from the first byte ("prior knowledge").
    H2c,
    /// gRPC: the same bytes as [`Scheme::H2c`].
    Grpc,
    /// Raw bytes, opened by CONNECT.
    Tcp,
    /// Datagrams. Read, so that it can be refused with a reason.
    Udp,
}

/// A service, as `backends[].endpoint` writes it: `https://10.0.0.7:8443`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// How to speak to it.
    pub scheme: Scheme,
    /// Where it is, as the connector (or Envoy, without one) sees it.
    pub address: HostPort,
}

/// Why a text is no endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseEndpointError {
    /// No `scheme://`.
    #[error("an endpoint is a URL such as http://127.0.0.1:8080; this has no scheme")]
    NoScheme,
    /// A scheme that is not known.
    #[error("unknown scheme {0:?}; known are http, https, h2c, grpc and tcp")]
    Scheme(String),
    /// Something behind or before the authority.
    #[error("an endpoint is a scheme, a host and a port only: remove the {0}")]
    Extra(&'static str),
    /// A scheme that has no usual port, without one.
    #[error("a {0} endpoint needs a port, as in {0}://127.0.0.1:22")]
    NoPort(Scheme),
    /// The host or port.
    #[error(transparent)]
    Authority(#[from] ParseHostError),
}

impl Scheme {
    /// The word before `://`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::H2c => "h2c",
            Self::Grpc => "grpc",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }

    const fn default_port(self) -> Option<u16> {
        match self {
            Self::Http | Self::H2c | Self::Grpc => Some(80),
            Self::Https => Some(443),
            Self::Tcp | Self::Udp => None,
        }
    }
}

impl FromStr for Scheme {
    type Err = ParseEndpointError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [
            Self::Http,
            Self::Https,
            Self::H2c,
            Self::Grpc,
            Self::Tcp,
            Self::Udp,
        ]
        .into_iter()
        .find(|s| text.eq_ignore_ascii_case(s.as_str()))
        .ok_or_else(|| ParseEndpointError::Scheme(text.chars().take(20).collect()))
    }
}

impl FromStr for Endpoint {
    type Err = ParseEndpointError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (scheme, rest) = text.split_once("://").ok_or(ParseEndpointError::NoScheme)?;
        let scheme: Scheme = scheme.parse()?;
        for (sign, what) in [
            ('#', "fragment"),
            ('?', "query"),
            ('@', "user"),
            ('/', "path"),
        ] {
            if rest.contains(sign) {
                return Err(ParseEndpointError::Extra(what));
            }
        }
        // A colon after the last bracket, or any colon without brackets, starts a port.
        let has_port = rest
            .rsplit_once(']')
            .map_or(rest, |(_, tail)| tail)
            .contains(':');
        let address = match (has_port, scheme.default_port()) {
            (true, _) => rest.parse()?,
            (false, Some(port)) => HostPort::new(rest.parse()?, port),
            (false, None) => return Err(ParseEndpointError::NoPort(scheme)),
        };
        Ok(Self { scheme, address })
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_read_with_its_usual_port_and_one_spelling() {
        for (text, shown) in [
            ("http://web.internal", "http://web.internal:80"),
            ("HTTPS://Web.Internal.", "https://web.internal:443"),
            ("h2c://[::1]", "h2c://[::1]:80"),
            ("grpc://10.0.0.1:50051", "grpc://10.0.0.1:50051"),
            ("tcp://localhost:22", "tcp://localhost:22"),
            ("udp://[::ffff:10.0.0.1]:53", "udp://10.0.0.1:53"),
        ] {
            let read = text.parse::<Endpoint>().map(|e| e.to_string());
            assert_eq!(read.as_deref(), Ok(shown), "{text}");
        }
    }

    #[test]
    fn what_is_no_endpoint_is_refused() {
        for text in [
            "",
            "http",
            "http:/a",
            "ftp://a",
            "http://",
            "http://a/",
            "http://a?b",
            "http://u@a",
            "http://a#b",
            "tcp://a",
            "http://a:0",
            "http://a:99999",
            "http://::1:80",
            "http://0x7f.1",
            "http://a b",
            "http://[::1",
            "http://[::1]x:80",
        ] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }
}
