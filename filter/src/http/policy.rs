//! Which target a request is for, and whether it may go there: decided by the
//! route's and the cluster's metadata and the request line alone. Nothing else
//! that a client sends takes part.

use adit_wire::{EndpointId, HostPort, MAX_CONNECTORS, ParseEndpointIdError, ParseHostError};

use super::fault::Fault;

/// The metadata namespace, on routes, clusters and streams.
pub const NAMESPACE: &str = "adit";

/// What one metadata namespace says, unread.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Declared<'a> {
    /// `datum-node-id`: EndpointIds in order, separated by commas.
    pub nodes: Option<&'a str>,
    /// `datum-target-host`.
    pub host: Option<&'a str>,
    /// `datum-target-port`.
    pub port: Option<f64>,
    /// `datum-target-proto`: `tcp` (also when absent) or `tls`.
    pub proto: Option<&'a str>,
}

/// A target as metadata names it.
#[derive(Debug, PartialEq, Eq)]
pub struct Named {
    /// In order.
    pub connectors: Vec<EndpointId>,
    /// The service behind them.
    pub service: HostPort,
    tls: bool,
}

/// Why metadata names no target, or two.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Misconfigured {
    /// A key that must be there is not, or has the wrong type.
    #[error("the key {0} is missing or of the wrong type")]
    Missing(&'static str),
    /// A connector.
    #[error("datum-node-id: {0}")]
    Node(#[from] ParseEndpointIdError),
    /// None, too many, or the same twice.
    #[error("datum-node-id names {0} connectors; 1 to {MAX_CONNECTORS}, each once, are allowed")]
    Nodes(usize),
    /// The host.
    #[error("datum-target-host: {0}")]
    Host(#[from] ParseHostError),
    /// The port.
    #[error("datum-target-port is {0}, not a whole number between 1 and 65535")]
    Port(f64),
    /// The protocol.
    #[error("datum-target-proto is neither tcp nor tls")]
    Proto,
    /// Route and cluster disagree.
    #[error("the route and its cluster name different targets")]
    Contradiction,
}

impl Declared<'_> {
    fn names_something(&self) -> bool {
        self.nodes.is_some() || self.host.is_some() || self.port.is_some()
    }

    fn read(&self) -> Result<Named, Misconfigured> {
        let nodes = self.nodes.ok_or(Misconfigured::Missing("datum-node-id"))?;
        let host = self
            .host
            .ok_or(Misconfigured::Missing("datum-target-host"))?;
        let port = self
            .port
            .ok_or(Misconfigured::Missing("datum-target-port"))?;
        // The count is known before anything is read or stored.
        let count = nodes.split(',').count();
        if count > MAX_CONNECTORS {
            return Err(Misconfigured::Nodes(count));
        }
        let connectors = nodes
            .split(',')
            .map(|id| id.trim().parse())
            .collect::<Result<Vec<EndpointId>, _>>()?;
        if (1..count).any(|i| connectors[..i].contains(&connectors[i])) {
            return Err(Misconfigured::Nodes(count));
        }
        if port.fract() != 0.0 || !(1.0..=65535.0).contains(&port) {
            return Err(Misconfigured::Port(port));
        }
        Ok(Named {
            connectors,
            service: HostPort::new(host.parse()?, port as u16),
            tls: match self.proto {
                None | Some("tcp") => false,
                Some("tls") => true,
                Some(_) => return Err(Misconfigured::Proto),
            },
        })
    }
}

/// The target of a route that has our namespace on itself or on its cluster;
/// the route's word counts, and the cluster's must not differ from it.
pub fn target(
    route: Option<Declared<'_>>,
    cluster: Option<Declared<'_>>,
) -> Result<Named, Misconfigured> {
    let Some(route) = route else {
        return cluster.unwrap_or_default().read();
    };
    let named = route.read()?;
    if let Some(cluster) = cluster
        && cluster.names_something()
        && cluster != route
        && cluster.read()? != named
    {
        return Err(Misconfigured::Contradiction);
    }
    Ok(named)
}

/// The part of a request that can be a reason to refuse it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Request<'a> {
    /// `:method`.
    pub method: &'a [u8],
    /// `:authority`.
    pub authority: &'a [u8],
    /// `upgrade`. Envoy turns an HTTP/2 extended CONNECT into this form.
    pub upgrade: &'a [u8],
}

/// Whether a request may go to `target`.
pub fn admit(request: Request<'_>, connect: bool, target: &Named) -> Result<(), Fault> {
    if request
        .upgrade
        .split(|&b| b == b',')
        .any(|p| p.trim_ascii().eq_ignore_ascii_case(b"connect-udp"))
    {
        return Err(Fault::Udp);
    }
    if request.method != b"CONNECT" {
        return Ok(());
    }
    // The host of the authority chose the route; the port must not be one that
    // the client believes to reach and does not.
    let port = std::str::from_utf8(request.authority)
        .ok()
        .and_then(|authority| authority.parse::<HostPort>().ok())
        .map(|authority| authority.port);
    if connect && port == Some(target.service.port) {
        Ok(())
    } else {
        Err(Fault::Connect)
    }
}

/// Whether a request may be sent again although the service may have had it
/// already (RFC 9110 section 9.2.2).
pub fn is_idempotent(method: &[u8]) -> bool {
    matches!(
        method,
        b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE" | b"PUT" | b"DELETE"
    )
}

/// Headers that are ours to set: a client's are removed, so that nothing behind
/// the tunnel takes them for the gateway's. Names arrive in lowercase. An
/// underscore counts as a hyphen: services that pass fields on as CGI did make
/// one variable of both (RFC 3875, section 4.1.18).
pub fn is_reserved(name: &[u8]) -> bool {
    const NODE: &[u8] = b"datum-node-id";
    const PREFIXES: [&[u8]; 4] = [b"x-adit-", b"x-iroh-", b"x-datum-", b"datum-target-"];
    let begins = |prefix: &[u8]| {
        let same = |(a, b): (&u8, &u8)| a == b || (*a == b'_' && *b == b'-');
        name.len() >= prefix.len() && name.iter().zip(prefix).all(same)
    };
    matches!(name.first(), Some(b'x' | b'd'))
        && ((name.len() == NODE.len() && begins(NODE)) || PREFIXES.iter().any(|p| begins(p)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_compared_as_they_are_written() {
        for method in ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"] {
            assert!(is_idempotent(method.as_bytes()), "{method}");
        }
        for method in ["POST", "PATCH", "CONNECT", "get", "GETS", ""] {
            assert!(!is_idempotent(method.as_bytes()), "{method}");
        }
    }

    fn id(byte: u8) -> String {
        EndpointId::from_bytes([byte; 32]).to_string()
    }

    fn declared(nodes: &str) -> Declared<'_> {
        Declared {
            nodes: Some(nodes),
            host: Some("shop.example"),
            port: Some(8443.0),
            proto: Some("tls"),
        }
    }

    #[test]
    fn the_route_names_the_target_else_its_cluster() {
        let (one, two) = (id(1), format!("{},{}", id(1), id(2)));
        let route = target(Some(declared(&two)), None).unwrap();
        assert_eq!(route.connectors.len(), 2);
        assert_eq!(route.service.to_string(), "shop.example:8443");
        assert!(target(None, Some(declared(&one))).is_ok());
        assert!(target(None, None).is_err());
    }

    #[test]
    fn route_and_cluster_must_name_the_same_target() {
        let (one, two) = (id(1), id(2));
        let route = declared(&one);
        let upper = one.to_uppercase();
        let same = Declared {
            nodes: Some(&upper),
            host: Some("SHOP.example."),
            ..route
        };
        assert!(target(Some(route), Some(route)).is_ok());
        assert!(target(Some(route), Some(same)).is_ok(), "another spelling");
        for cluster in [
            declared(&two),
            Declared {
                host: Some("other.example"),
                ..route
            },
            Declared {
                port: Some(80.0),
                ..route
            },
            Declared {
                proto: None,
                ..route
            },
        ] {
            assert_eq!(
                target(Some(route), Some(cluster)),
                Err(Misconfigured::Contradiction)
            );
        }
        let bare = Declared::default();
        assert!(target(Some(route), Some(bare)).is_ok(), "only a name there");
        assert!(target(Some(bare), Some(route)).is_err(), "only a name here");
    }

    #[test]
    fn metadata_that_names_no_target_is_refused() {
        let one = id(1);
        let good = declared(&one);
        let twice = format!("{one},{one}");
        let many = vec![id(3); MAX_CONNECTORS + 1].join(",");
        for (bad, key) in [
            (
                Declared {
                    nodes: None,
                    ..good
                },
                "datum-node-id",
            ),
            (Declared { host: None, ..good }, "datum-target-host"),
            (Declared { port: None, ..good }, "datum-target-port"),
            (declared("abc"), "datum-node-id"),
            (declared(""), "datum-node-id"),
            (declared(&twice), "datum-node-id"),
            (declared(&many), "datum-node-id"),
            (
                Declared {
                    host: Some("0x7f.1"),
                    ..good
                },
                "datum-target-host",
            ),
            (
                Declared {
                    port: Some(0.0),
                    ..good
                },
                "datum-target-port",
            ),
            (
                Declared {
                    port: Some(80.5),
                    ..good
                },
                "datum-target-port",
            ),
            (
                Declared {
                    port: Some(65536.0),
                    ..good
                },
                "datum-target-port",
            ),
            (
                Declared {
                    port: Some(f64::NAN),
                    ..good
                },
                "datum-target-port",
            ),
            (
                Declared {
                    proto: Some("udp"),
                    ..good
                },
                "datum-target-proto",
            ),
        ] {
            let error = target(Some(bad), None).unwrap_err().to_string();
            assert!(error.contains(key), "{key}: {error}");
        }
    }

    #[test]
    fn connect_needs_the_routes_leave_and_the_targets_port() {
        let one = id(1);
        let target = declared(&one).read().unwrap();
        let connect = |authority: &'static [u8], allowed| {
            let request = Request {
                method: b"CONNECT",
                authority,
                upgrade: b"",
            };
            admit(request, allowed, &target)
        };
        assert_eq!(connect(b"any.name:8443", true), Ok(()));
        for authority in [
            &b"any.name:8444"[..],
            b"any.name",
            b"any.name:",
            b"any.name:08443x",
            b"::1:8443",
            b"\xff:8443",
            b"",
        ] {
            assert_eq!(connect(authority, true), Err(Fault::Connect));
        }
        assert_eq!(connect(b"any.name:8443", false), Err(Fault::Connect));
        let get = Request {
            method: b"GET",
            ..Request::default()
        };
        assert_eq!(admit(get, false, &target), Ok(()));
    }

    #[test]
    fn a_request_for_udp_is_refused_and_a_websocket_is_not() {
        let one = id(1);
        let target = declared(&one).read().unwrap();
        let upgrade = |upgrade: &'static [u8]| {
            let request = Request {
                method: b"GET",
                authority: b"a",
                upgrade,
            };
            admit(request, true, &target)
        };
        assert_eq!(upgrade(b"h2c, Connect-UDP"), Err(Fault::Udp));
        assert_eq!(upgrade(b"websocket"), Ok(()));
    }

    #[test]
    fn reserved_headers_are_known_by_name_and_prefix() {
        for name in [
            "x-adit-anything",
            "x-iroh-endpoint-id",
            "x-datum-target-host",
            "datum-node-id",
            "datum-target-port",
            "x_adit_anything",
            "datum_node-id",
        ] {
            assert!(is_reserved(name.as_bytes()), "{name}");
        }
        for name in [
            "x-aditional",
            "x_aditional",
            "datum-node-idx",
            "datum-node",
            "date",
            "x-request-id",
            "",
        ] {
            assert!(!is_reserved(name.as_bytes()), "{name}");
        }
    }
}
