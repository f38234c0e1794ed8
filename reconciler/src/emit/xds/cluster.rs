//! Clusters.

#![allow(missing_docs, reason = "the fields are those of Envoy's API reference")]

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::{Address, Any, DynamicModule, Extension, Metadata, Struct};

/// `cluster.v3.Cluster`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cluster {
    pub name: String,
    #[serde(rename = "type")]
    pub type_: &'static str,
    pub connect_timeout: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns_lookup_family: Option<&'static str>,
    pub load_assignment: LoadAssignment,
    pub circuit_breakers: CircuitBreakers,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Metadata>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transport_socket: Option<Extension<TransportSocket>>,
    pub typed_extension_protocol_options: BTreeMap<String, Any<HttpProtocolOptions>>,
}

/// `endpoint.v3.ClusterLoadAssignment` with one endpoint.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LoadAssignment {
    pub cluster_name: String,
    pub endpoints: [LocalityEndpoints; 1],
}

/// `endpoint.v3.LocalityLbEndpoints` with one endpoint.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LocalityEndpoints {
    pub lb_endpoints: [LbEndpoint; 1],
}

/// `endpoint.v3.LbEndpoint`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LbEndpoint {
    pub endpoint: Endpoint,
}

/// `endpoint.v3.Endpoint`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Endpoint {
    pub address: Address,
}

/// `cluster.v3.CircuitBreakers`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CircuitBreakers {
    pub thresholds: [Thresholds; 1],
}

/// `cluster.v3.CircuitBreakers.Thresholds`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Thresholds {
    pub max_connections: u32,
    pub max_pending_requests: u32,
    pub max_requests: u32,
    pub retry_budget: RetryBudget,
}

/// `cluster.v3.CircuitBreakers.Thresholds.RetryBudget`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RetryBudget {
    pub budget_percent: Percent,
    pub min_retry_concurrency: u32,
}

/// `type.v3.Percent`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Percent {
    pub value: u32,
}

/// The configuration of a transport socket: ours, or TLS.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum TransportSocket {
    /// `transport_sockets.dynamic_modules.v3.DynamicModuleTransportSocket`.
    Module {
        dynamic_module_config: DynamicModule,
        transport_socket_name: &'static str,
        transport_socket_config: Any<Struct>,
    },
    /// `transport_sockets.tls.v3.UpstreamTlsContext`.
    Tls {
        common_tls_context: Value,
        sni: String,
    },
}

/// `upstreams.http.v3.HttpProtocolOptions`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HttpProtocolOptions {
    pub common_http_protocol_options: CommonHttp,
    pub explicit_http_config: ExplicitHttp,
}

/// `core.v3.HttpProtocolOptions`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CommonHttp {
    pub idle_timeout: String,
}

/// One of the two.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ExplicitHttp {
    HttpProtocolOptions {},
    Http2ProtocolOptions { allow_connect: bool },
}
