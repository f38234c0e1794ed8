//! Clusters, and the metadata that names what they reach.

use std::{collections::BTreeMap, path::Path, time::Duration};

use adit_wire::{Host, HostPort, Protocol, Target};
use serde_json::{Value, json};

use super::{
    ADIT, Setting, show,
    xds::{
        self, Address, Any, CircuitBreakers, CommonHttp, DynamicModule, ExplicitHttp, Extension,
        HttpProtocolOptions, LbEndpoint, LoadAssignment, LocalFile, LocalityEndpoints, Metadata,
        ModuleSource, Percent, RetryBudget, Struct, Thresholds, TransportSocket,
    },
};
use crate::model::{Cluster, ClusterName, Transport, UpstreamProtocol};

/// Envoy's default of 1024 would be a limit on tunnels. The dialer has limits
/// of its own behind this one; past this one Envoy answers UO and purges
/// nothing.
const MAX_STREAMS: u32 = 10_000;
/// Retries at a time while few requests are active. Envoy's default of 3
/// turns retries off under load: of 40 parallel failures 37 were not retried.
const RETRIES: u32 = 1_000;
/// What our verdict may be late before Envoy gives up by itself.
pub(super) const VERDICT_GRACE: Duration = Duration::from_secs(1);
/// Towards plain backends.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Below the keep-alive of servers, so that a request does not meet a connection
/// that the service is just closing: Envoy may send no POST twice. Both times run
/// from the answer, but at either end of the path, so a round trip must fit
/// between: 500 ms to servers with 1 s (Gunicorn has 2 s, Node.js 5 s).
const IDLE_HTTP1: &str = "0.5s";
/// HTTP/2 says GOAWAY before it closes.
const IDLE_HTTP2: &str = "60s";

pub(super) fn cluster(
    name: &ClusterName,
    cluster: &Cluster,
    setting: &Setting,
) -> Any<xds::Cluster> {
    let (type_, address, connect_timeout) = match &cluster.transport {
        Transport::Adit(target) => {
            let path = setting.dialer_socket.clone();
            (
                "STATIC",
                Address::Pipe { path, mode: None },
                target.deadline + VERDICT_GRACE,
            )
        }
        Transport::Raw(address) | Transport::Tls { address, .. } => {
            let type_ = match address.host {
                Host::Ip(_) => "STATIC",
                Host::Name(_) => "STRICT_DNS",
            };
            (type_, socket_address(address), CONNECT_TIMEOUT)
        }
    };
    let endpoint = LbEndpoint {
        endpoint: xds::Endpoint { address },
    };
    let message = xds::Cluster {
        name: name.to_string(),
        type_,
        connect_timeout: seconds(connect_timeout),
        dns_lookup_family: (type_ == "STRICT_DNS").then_some("ALL"),
        load_assignment: LoadAssignment {
            cluster_name: name.to_string(),
            endpoints: [LocalityEndpoints {
                lb_endpoints: [endpoint],
            }],
        },
        circuit_breakers: circuit_breakers(),
        metadata: match &cluster.transport {
            Transport::Adit(target) => Some(metadata(target, cluster.protocol)),
            Transport::Raw(_) | Transport::Tls { .. } => None,
        },
        transport_socket: transport_socket(&cluster.transport, &setting.module),
        typed_extension_protocol_options: protocol_options(cluster.protocol),
    };
    Any::new("envoy.config.cluster.v3.Cluster", message)
}

fn socket_address(address: &HostPort) -> Address {
    Address::SocketAddress {
        address: address.host.to_string(),
        port_value: address.port,
        network_namespace_filepath: None,
    }
}

pub(super) fn circuit_breakers() -> CircuitBreakers {
    CircuitBreakers {
        thresholds: [Thresholds {
            max_connections: MAX_STREAMS,
            max_pending_requests: MAX_STREAMS,
            max_requests: MAX_STREAMS,
            retry_budget: RetryBudget {
                budget_percent: Percent { value: 100 },
                min_retry_concurrency: RETRIES,
            },
        }],
    }
}

pub(super) fn protocol_options(
    protocol: UpstreamProtocol,
) -> BTreeMap<String, Any<HttpProtocolOptions>> {
    let (idle, explicit_http_config) = match protocol {
        UpstreamProtocol::Http2 => (
            IDLE_HTTP2,
            ExplicitHttp::Http2ProtocolOptions {
                allow_connect: true,
            },
        ),
        UpstreamProtocol::Http1 | UpstreamProtocol::Bytes => {
            (IDLE_HTTP1, ExplicitHttp::HttpProtocolOptions {})
        }
    };
    let options = HttpProtocolOptions {
        common_http_protocol_options: CommonHttp {
            idle_timeout: idle.into(),
        },
        explicit_http_config,
    };
    let name = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    BTreeMap::from([(name.into(), Any::new(name, options))])
}

pub(super) fn transport_socket(
    transport: &Transport,
    module_file: &Path,
) -> Option<Extension<TransportSocket>> {
    match transport {
        Transport::Raw(_) => None,
        Transport::Adit(target) => Some(Extension {
            name: "envoy.transport_sockets.dynamic_modules".into(),
            typed_config: Any::new(
                "envoy.extensions.transport_sockets.dynamic_modules.v3.DynamicModuleTransportSocket",
                TransportSocket::Module {
                    dynamic_module_config: module(module_file, None),
                    transport_socket_name: ADIT,
                    transport_socket_config: Any::new(
                        "google.protobuf.Struct",
                        Struct {
                            value: json!({"target": target.to_base64()}),
                        },
                    ),
                },
            ),
        }),
        Transport::Tls {
            server_name,
            ca_file,
            ..
        } => {
            let name = server_name.to_string();
            let mut validation = json!({
                "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": name}}],
            });
            // `compile` gives a file for each `https` backend of files' Envoy.
            if let Some(file) = ca_file {
                validation["trusted_ca"] = json!({"filename": show(file)});
            }
            let context = json!({
                "alpn_protocols": ["http/1.1"],
                "validation_context": validation,
            });
            Some(Extension {
                name: "envoy.transport_sockets.tls".into(),
                typed_config: Any::new(
                    "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                    TransportSocket::Tls {
                        common_tls_context: context,
                        sni: name,
                    },
                ),
            })
        }
    }
}

/// The module, by the file that this gateway was given.
pub(super) fn module(file: &Path, metrics_namespace: Option<&'static str>) -> DynamicModule {
    DynamicModule {
        module: ModuleSource {
            local: LocalFile {
                filename: show(file),
            },
        },
        do_not_close: true,
        metrics_namespace,
    }
}

/// What the module's HTTP filter reads: flat keys, as many readers of Envoy's
/// metadata see no nested ones.
pub(super) fn metadata(target: &Target, protocol: UpstreamProtocol) -> Metadata {
    let ids: Vec<_> = target.connectors.iter().map(ToString::to_string).collect();
    let proto = match target.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Tls(_) => "tls",
    };
    let mut keys: BTreeMap<String, Value> = BTreeMap::from([
        ("datum-node-id".into(), ids.join(",").into()),
        (
            "datum-target-host".into(),
            target.service.host.to_string().into(),
        ),
        ("datum-target-port".into(), target.service.port.into()),
        ("datum-target-proto".into(), proto.into()),
        ("name".into(), target.name.clone().into()),
    ]);
    let key = match protocol {
        UpstreamProtocol::Bytes => "connect",
        // The module has Envoy send a request again whose tunnel was cut before
        // an answer, if its method is idempotent.
        UpstreamProtocol::Http1 | UpstreamProtocol::Http2 => "retry",
    };
    keys.insert(key.into(), true.into());
    Metadata {
        filter_metadata: BTreeMap::from([(ADIT.into(), keys)]),
    }
}

/// A duration as protobuf's JSON writes it.
pub(super) fn seconds(duration: Duration) -> String {
    match duration.subsec_millis() {
        0 => format!("{}s", duration.as_secs()),
        millis => format!("{}.{millis:03}s", duration.as_secs()),
    }
}
