//! Backends: what a route names, and what Envoy Gateway makes clusters of.

use adit_api::envoy_gateway::{
    Backend, BackendEndpoint, BackendSpec, BackendTls, FqdnEndpoint, IpEndpoint,
};
use adit_wire::{Host, HostPort};

use super::{
    Place,
    owned::{Owner, seal},
};
use crate::model::{Cluster, Transport, UpstreamProtocol};

/// HTTP/2 without TLS.
const H2C: &str = "gateway.envoyproxy.io/h2c";
/// The placeholders' network: RFC 6676's documentation range of multicast
/// addresses, which the kernel refuses at once (ENETUNREACH in 1 ms; 192.0.2.0/24
/// hung for 3 s).
pub(super) const PLACEHOLDERS: &str = "233.252.0.";
/// The placeholder's port where the service's does not matter.
const ANY_PORT: u16 = 1;

pub(super) fn backend(owner: &Owner<'_>, name: &str, k: usize, cluster: &Cluster) -> Backend {
    let (endpoint, tls) = match &cluster.transport {
        Transport::Adit(_) => (placeholder(k), None),
        Transport::Raw(address) => (endpoint(address), None),
        Transport::Tls {
            address,
            server_name,
            ..
        } => (
            endpoint(address),
            Some(BackendTls {
                well_known_ca_certificates: Some("System".into()),
                sni: Some(server_name.to_string()),
            }),
        ),
    };
    let place = Place {
        namespace: owner.namespace(),
        name: name.to_owned(),
    };
    let spec = BackendSpec {
        endpoints: vec![endpoint],
        app_protocols: match cluster.protocol {
            UpstreamProtocol::Http2 => vec![H2C.to_owned()],
            UpstreamProtocol::Http1 | UpstreamProtocol::Bytes => Vec::new(),
        },
        tls,
    };
    seal(Backend {
        metadata: owner.metadata(place),
        spec,
        status: None,
    })
}

/// Without its patch a cluster reaches nothing.
fn placeholder(k: usize) -> BackendEndpoint {
    let address = format!("{PLACEHOLDERS}{}", u8::try_from(k + 1).unwrap_or(u8::MAX));
    BackendEndpoint {
        fqdn: None,
        ip: Some(IpEndpoint {
            address,
            port: ANY_PORT.into(),
        }),
    }
}

fn endpoint(address: &HostPort) -> BackendEndpoint {
    let port = address.port.into();
    match &address.host {
        Host::Ip(ip) => BackendEndpoint {
            fqdn: None,
            ip: Some(IpEndpoint {
                address: ip.to_string(),
                port,
            }),
        },
        Host::Name(name) => BackendEndpoint {
            fqdn: Some(FqdnEndpoint {
                hostname: name.clone(),
                port,
            }),
            ip: None,
        },
    }
}
