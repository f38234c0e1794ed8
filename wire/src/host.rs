//! A host by name or address, in one canonical spelling.
//!
//! A target is compared with what a connector advertises, so two spellings of
//! one address must be one value and a spelling that some resolver reads as an
//! address (`0177.1`, `0x7f.1`, `2130706433`) must not pass as a name.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

/// A host: an IP address, or a DNS name in lowercase without a final dot.
///
/// An IPv4-mapped IPv6 address is held as IPv4. A name whose last label is a
/// number is refused (the "ends in a number" rule of the WHATWG URL standard):
/// `getaddrinfo` would read it as an IPv4 address in octal, hex or short form.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// An address.
    Ip(IpAddr),
    /// A DNS name: 1 to 253 characters, labels of 1 to 63 letters, digits,
    /// hyphens and underscores.
    Name(String),
}

/// A [`Host`] and a TCP port; shown as an RFC 3986 authority, `[::1]:80`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    /// The host.
    pub host: Host,
    /// The port, 1 to 65535.
    pub port: u16,
}

/// Why a text is no host or no authority.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseHostError {
    /// Nothing there.
    #[error("the host is empty")]
    Empty,
    /// Not a name that DNS can hold.
    #[error("not a host name or IP address: {0:?}")]
    Name(String),
    /// A number where a name must be: read differently by different resolvers.
    #[error(
        "{0:?} ends in a number but is not an IP address in its usual form; write it like 192.0.2.1"
    )]
    Number(String),
    /// No port, port 0, or not a number up to 65535.
    #[error("a port between 1 and 65535 must follow the host, as in \"example.internal:8080\"")]
    Port,
}

impl Host {
    /// Reads a host; IPv6 with or without brackets.
    pub fn parse(text: &str) -> Result<Self, ParseHostError> {
        text.parse()
    }

    fn from_ip(ip: IpAddr) -> Self {
        Self::Ip(ip.to_canonical())
    }
}

impl From<IpAddr> for Host {
    fn from(ip: IpAddr) -> Self {
        Self::from_ip(ip)
    }
}

impl FromStr for Host {
    type Err = ParseHostError;

    fn from_str(text: &str) -> Result<Self, ParseHostError> {
        if text.is_empty() {
            return Err(ParseHostError::Empty);
        }
        if let Some(inner) = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
            let ip = inner
                .parse::<Ipv6Addr>()
                .map_err(|_| ParseHostError::Name(quote(text)))?;
            return Ok(Self::from_ip(ip.into()));
        }
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(Self::from_ip(ip));
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let well_formed = name.len() <= 253
            && name.split('.').all(|label| {
                (1..=63).contains(&label.len())
                    && label
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            });
        if !well_formed {
            return Err(ParseHostError::Name(quote(text)));
        }
        let last = name.rsplit('.').next().unwrap_or_default();
        let numeric = last.bytes().all(|b| b.is_ascii_digit())
            || last
                .strip_prefix("0x")
                .is_some_and(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
        if numeric {
            return Err(ParseHostError::Number(quote(text)));
        }
        Ok(Self::Name(name))
    }
}

impl HostPort {
    /// A host and port from their parts.
    pub const fn new(host: Host, port: u16) -> Self {
        Self { host, port }
    }
}

impl From<SocketAddr> for HostPort {
    fn from(addr: SocketAddr) -> Self {
        Self::new(addr.ip().into(), addr.port())
    }
}

impl FromStr for HostPort {
    type Err = ParseHostError;

    fn from_str(text: &str) -> Result<Self, ParseHostError> {
        let (host, port) = text.rsplit_once(':').ok_or(ParseHostError::Port)?;
        // `::1:80` would read as the host `::1`; RFC 3986 wants the brackets.
        if host.contains(':') && !host.starts_with('[') {
            return Err(ParseHostError::Name(quote(text)));
        }
        // `parse::<u16>` takes a leading `+`.
        let digits = (1..=5).contains(&port.len()) && port.bytes().all(|b| b.is_ascii_digit());
        let port = port.parse().ok().filter(|&p| digits && p != 0);
        Ok(Self::new(host.parse()?, port.ok_or(ParseHostError::Port)?))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host {
            Host::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]:{}", self.port),
            ref host => write!(f, "{host}:{}", self.port),
        }
    }
}

/// Input in an error message: its beginning only.
fn quote(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_host_are_one_value() {
        for (a, b) in [
            ("Example.COM.", "example.com"),
            ("::ffff:127.0.0.1", "127.0.0.1"),
            ("[::1]", "0:0:0:0:0:0:0:1"),
            ("LOCALHOST", "localhost"),
        ] {
            assert_eq!(Host::parse(a), Host::parse(b), "{a} {b}");
            assert!(Host::parse(a).is_ok());
        }
    }

    #[test]
    fn numbers_that_resolvers_read_as_addresses_are_refused() {
        for text in [
            "0177.0.0.1",
            "127.1",
            "2130706433",
            "0x7f000001",
            "a.0x7f",
            "1.2.3.4.5",
            "0x",
        ] {
            assert!(
                matches!(Host::parse(text), Err(ParseHostError::Number(_))),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for text in [
            "",
            ".",
            "a..b",
            "a b",
            "a/b",
            "a:b",
            "[127.0.0.1]",
            "ex\u{e4}mple",
            "a..",
            "[::1",
            "fe80::1%eth0",
        ] {
            assert!(Host::parse(text).is_err(), "{text}");
        }
        assert!(Host::parse(&"a".repeat(64)).is_err());
        assert!(Host::parse(&format!("{}com", "abc.".repeat(63))).is_err());
    }

    #[test]
    fn an_authority_reads_back_as_it_is_shown() {
        for text in ["[::1]:80", "a.example:8080", "127.0.0.1:1"] {
            assert_eq!(
                text.parse::<HostPort>().map(|h| h.to_string()).as_deref(),
                Ok(text)
            );
        }
        for text in [
            "a", "a:", "a:0", "a:65536", "a:+1", "::1:80", "a:000080", ":80", "a:1:2",
        ] {
            assert!(text.parse::<HostPort>().is_err(), "{text}");
        }
    }
}
