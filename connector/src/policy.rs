//! Who may connect, and to what: the operator's two lists, parsed once and
//! compared as values, never as text.

use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    str::FromStr,
};

use adit_wire::{EndpointId, Host, HostPort, ParseEndpointIdError, ParseHostError, is_local};

/// A Unix socket path must fit `sockaddr_un.sun_path` with its final zero
/// (unix(7)); for an abstract name the leading zero counts instead.
const MAX_SOCKET_PATH: usize = 107;

/// What the connector allows at one moment. A reload makes a new one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Which dialers.
    pub allow: Allow,
    /// Which services.
    pub targets: Targets,
}

/// The dialers that may connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allow {
    /// Every key on earth: only where the network itself is the fence.
    Any,
    /// These keys.
    Only(BTreeSet<EndpointId>),
}

/// The advertised services.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Targets(Vec<Advertised>);

/// One entry of the list: `host:port` or `host:port=where`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Advertised {
    pattern: Pattern,
    port: u16,
    /// Where to connect instead of the requested host and port.
    service: Option<Service>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    Exact(Host),
    /// `*.corp.example`, held with its dot: `.corp.example`. Any depth below,
    /// never the suffix itself.
    Suffix(String),
    Any,
}

/// Where a service is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Service {
    /// A TCP port.
    Tcp(HostPort),
    /// A Unix stream socket; a leading `@` means Linux's abstract names.
    Unix(PathBuf),
}

/// A request that the lists allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Where to connect.
    pub service: Service,
    /// The request matched a wildcard, so the address it resolves to has to
    /// pass [`Targets::reaches`].
    pub screened: bool,
}

/// Why an entry of `allow` or `targets` is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Not a key.
    #[error("allow: {text:?}: {source}")]
    Key {
        /// The entry.
        text: String,
        /// Why.
        source: ParseEndpointIdError,
    },
    /// 32 bytes that are no public key.
    #[error("allow: {0:?} is no valid public key: check it against `adit key show` at the dialer")]
    Point(String),
    /// `any` beside keys.
    #[error(
        "allow: \"any\" beside single keys: either everybody may connect, or only the keys listed"
    )]
    AnyAndKeys,
    /// A UDP service.
    #[error("target {0:?}: UDP is not carried yet, only TCP and Unix stream sockets")]
    Udp(String),
    /// The part before `=`.
    #[error("target {text:?}: {source}")]
    Request {
        /// The entry.
        text: String,
        /// Why.
        source: ParseHostError,
    },
    /// The part after `=`.
    #[error("target {text:?}: where to connect: {source}")]
    Service {
        /// The entry.
        text: String,
        /// Why.
        source: ParseHostError,
    },
    /// A wildcard in another place than the first label.
    #[error("target {0:?}: a wildcard is \"*:port\" or \"*.suffix:port\", nothing else")]
    Wildcard(String),
    /// A path that no socket can have.
    #[error(
        "target {0:?}: the socket must be an absolute path of at most {MAX_SOCKET_PATH} bytes, or @name"
    )]
    Socket(String),
    /// 0.0.0.0, :: or a multicast address.
    #[error("target {0:?}: nothing can be connected to at this address; write 127.0.0.1 or [::1]")]
    Unconnectable(String),
    /// The same request twice.
    #[error("target {0:?}: advertised twice; remove one")]
    Twice(String),
}

impl PolicyError {
    /// The entry as it stands in the file, to find its line by.
    pub fn entry(&self) -> Option<&str> {
        match self {
            Self::Key { text, .. } | Self::Request { text, .. } | Self::Service { text, .. } => {
                Some(text)
            }
            Self::Point(text)
            | Self::Udp(text)
            | Self::Wildcard(text)
            | Self::Socket(text)
            | Self::Unconnectable(text)
            | Self::Twice(text) => Some(text),
            Self::AnyAndKeys => Some("any"),
        }
    }
}

impl Allow {
    /// Reads the entries of `allow`.
    pub fn parse<T: AsRef<str>>(entries: &[T]) -> Result<Self, PolicyError> {
        if entries.iter().any(|e| e.as_ref() == "any") {
            return match entries.len() {
                1 => Ok(Self::Any),
                _ => Err(PolicyError::AnyAndKeys),
            };
        }
        let keys = entries.iter().map(|entry| {
            let text = entry.as_ref();
            let id: EndpointId = text.parse().map_err(|source| PolicyError::Key {
                text: text.to_owned(),
                source,
            })?;
            // A typing error is often still 32 bytes: half of all such values
            // are no point on the curve.
            iroh::PublicKey::from_bytes(id.as_bytes())
                .map_err(|_| PolicyError::Point(text.to_owned()))?;
            Ok(id)
        });
        keys.collect::<Result<_, _>>().map(Self::Only)
    }

    /// Whether this dialer may connect.
    pub fn contains(&self, dialer: &EndpointId) -> bool {
        match self {
            Self::Any => true,
            Self::Only(keys) => keys.contains(dialer),
        }
    }
}

impl Targets {
    /// Reads the entries of `targets`.
    pub fn parse<T: AsRef<str>>(entries: &[T]) -> Result<Self, PolicyError> {
        let mut list: Vec<Advertised> = Vec::with_capacity(entries.len());
        for entry in entries {
            let text = entry.as_ref();
            let new: Advertised = text.parse()?;
            if list
                .iter()
                .any(|old| old.pattern == new.pattern && old.port == new.port)
            {
                return Err(PolicyError::Twice(text.to_owned()));
            }
            list.push(new);
        }
        Ok(Self(list))
    }

    /// Whether nothing is advertised.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// What may be asked for, as address and port: `*` is any host, `*.suffix`
    /// any name below.
    pub fn requests(&self) -> impl Iterator<Item = (String, u16)> {
        self.0.iter().map(|entry| {
            let address = match &entry.pattern {
                Pattern::Exact(host) => host.to_string(),
                Pattern::Suffix(suffix) => format!("*{suffix}"),
                Pattern::Any => "*".to_owned(),
            };
            (address, entry.port)
        })
    }

    /// Whether a request is advertised, by its most specific entry: the order
    /// of the list does not matter.
    pub fn grant(&self, request: &HostPort) -> Option<Grant> {
        let entry = self
            .0
            .iter()
            .filter(|entry| entry.port == request.port && entry.pattern.matches(&request.host))
            .max_by_key(|entry| entry.pattern.weight())?;
        Some(match &entry.service {
            Some(service) => Grant {
                service: service.clone(),
                screened: false,
            },
            None => Grant {
                service: Service::Tcp(request.clone()),
                screened: !matches!(entry.pattern, Pattern::Exact(_)),
            },
        })
    }

    /// Whether an address that a wildcard led to may be connected to: not this
    /// machine itself nor what only this machine should see, unless the list
    /// has that very address and port.
    pub fn reaches(&self, addr: SocketAddr) -> bool {
        let literal = |entry: &Advertised| {
            entry.service.is_none()
                && entry.port == addr.port()
                && entry.pattern == Pattern::Exact(addr.ip().into())
        };
        !is_local(addr.ip()) || self.0.iter().any(literal)
    }
}

impl Pattern {
    fn matches(&self, host: &Host) -> bool {
        match (self, host) {
            (Self::Any, _) => true,
            (Self::Exact(own), host) => own == host,
            (Self::Suffix(suffix), Host::Name(name)) => {
                name.len() > suffix.len() && name.ends_with(suffix.as_str())
            }
            (Self::Suffix(_), Host::Ip(_)) => false,
        }
    }

    fn weight(&self) -> usize {
        match self {
            Self::Any => 0,
            Self::Suffix(suffix) => suffix.len(),
            Self::Exact(_) => usize::MAX,
        }
    }
}

impl FromStr for Advertised {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        let (request, service) = match text.split_once('=') {
            Some((request, service)) => (request, Some(service)),
            None => (text, None),
        };
        let is_udp = |part: &str| {
            let part = part.to_ascii_lowercase();
            part.starts_with("udp:") || part.ends_with("/udp")
        };
        if is_udp(request) || service.is_some_and(is_udp) {
            return Err(PolicyError::Udp(text.to_owned()));
        }
        let wrong = |source| PolicyError::Request {
            text: text.to_owned(),
            source,
        };
        let request = request.strip_prefix("tcp://").unwrap_or(request);
        let (pattern, port) = if let Some(rest) = request.strip_prefix('*') {
            // A host stands in for the star, so that one parser reads both.
            let read: HostPort = format!("a{rest}").parse().map_err(wrong)?;
            let pattern = match &read.host {
                Host::Name(name) if name == "a" && rest.starts_with(':') => Pattern::Any,
                Host::Name(name) if name.starts_with("a.") => Pattern::Suffix(name[1..].to_owned()),
                _ => return Err(PolicyError::Wildcard(text.to_owned())),
            };
            (pattern, read.port)
        } else if request.contains('*') {
            return Err(PolicyError::Wildcard(text.to_owned()));
        } else {
            let read: HostPort = request.parse().map_err(wrong)?;
            (Pattern::Exact(read.host), read.port)
        };
        let service = service.map(|part| parse_service(text, part)).transpose()?;
        if let (Pattern::Exact(host), None) = (&pattern, &service) {
            connectable(text, host)?;
        }
        Ok(Self {
            pattern,
            port,
            service,
        })
    }
}

fn parse_service(text: &str, part: &str) -> Result<Service, PolicyError> {
    if let Some(path) = part.strip_prefix("unix:") {
        let fits = path.len() <= MAX_SOCKET_PATH && !path.contains('\0');
        let rooted = path.starts_with('/') || (path.starts_with('@') && path.len() > 1);
        if !fits || !rooted {
            return Err(PolicyError::Socket(text.to_owned()));
        }
        return Ok(Service::Unix(path.into()));
    }
    let part = part.strip_prefix("tcp://").unwrap_or(part);
    let read: HostPort = part.parse().map_err(|source| PolicyError::Service {
        text: text.to_owned(),
        source,
    })?;
    connectable(text, &read.host)?;
    Ok(Service::Tcp(read))
}

fn connectable(text: &str, host: &Host) -> Result<(), PolicyError> {
    match host {
        Host::Ip(ip) if ip.is_unspecified() || ip.is_multicast() || *ip == BROADCAST => {
            Err(PolicyError::Unconnectable(text.to_owned()))
        }
        _ => Ok(()),
    }
}

const BROADCAST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::BROADCAST);

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(at) => at.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests;
