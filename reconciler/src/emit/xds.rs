//! The part of Envoy's v3 API that is written, as JSON.
//!
//! The protobuf crates for Envoy's API have no JSON form, and JSON is needed:
//! for files that a person can read, and for patches of another control
//! plane's resources. Field order is the order below, so the bytes are stable.

#![allow(missing_docs, reason = "the fields are those of Envoy's API reference")]

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

/// A message with its type beside its fields.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Any<T> {
    #[serde(rename = "@type")]
    type_url: String,
    #[serde(flatten)]
    message: T,
}

impl<T> Any<T> {
    /// `message` as the type `name`, without the `type.googleapis.com/`.
    pub fn new(name: &str, message: T) -> Self {
        Self {
            type_url: format!("type.googleapis.com/{name}"),
            message,
        }
    }

    /// The message.
    pub fn get(&self) -> &T {
        &self.message
    }
}

/// An extension: its name and its typed configuration.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Extension<T> {
    /// The extension's (or, for a filter, our own) name.
    pub name: String,
    /// Its configuration.
    pub typed_config: Any<T>,
}

/// An empty message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Empty {}

/// `google.protobuf.Struct` inside an `Any`: its JSON stands under `value`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Struct {
    /// The object.
    pub value: Value,
}

/// `core.v3.Metadata`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Metadata {
    /// By namespace, then by key.
    pub filter_metadata: BTreeMap<String, BTreeMap<String, Value>>,
}

/// `core.v3.Address`: one of the two.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Address {
    /// TCP.
    SocketAddress {
        /// An IP address or a name.
        address: String,
        /// The port.
        port_value: u16,
        /// A path below `/proc`: the namespace to listen in.
        #[serde(skip_serializing_if = "Option::is_none")]
        network_namespace_filepath: Option<String>,
    },
    /// A Unix socket.
    Pipe {
        /// Its path; `@` before the name of an abstract one.
        path: String,
        /// Its mode, where Envoy makes it.
        #[serde(skip_serializing_if = "Option::is_none")]
        mode: Option<u32>,
    },
}

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

/// `dynamic_modules.v3.DynamicModuleConfig`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DynamicModule {
    pub module: ModuleSource,
    pub do_not_close: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics_namespace: Option<&'static str>,
}

/// `core.v3.AsyncDataSource` with a file.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModuleSource {
    pub local: LocalFile,
}

/// `core.v3.DataSource` with a file.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LocalFile {
    pub filename: String,
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

/// `route.v3.RouteConfiguration`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RouteConfiguration {
    pub name: String,
    pub ignore_port_in_host_matching: bool,
    pub virtual_hosts: Vec<VirtualHost>,
}

/// `route.v3.VirtualHost`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VirtualHost {
    pub name: String,
    pub domains: Vec<String>,
    pub routes: Vec<Route>,
}

/// `route.v3.Route`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Route {
    pub name: String,
    #[serde(rename = "match")]
    pub match_: RouteMatch,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Metadata>,
    #[serde(flatten)]
    pub action: RouteActionKind,
    #[serde(flatten)]
    pub headers: HeaderMutations,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_body_buffer_limit: Option<u64>,
}

/// What a route does: one of the three.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RouteActionKind {
    Route(Box<RouteAction>),
    Redirect(RedirectAction),
    DirectResponse { status: u16 },
}

/// `route.v3.RouteMatch`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RouteMatch {
    #[serde(flatten)]
    pub path: PathSpecifier,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<ValueMatcher>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub query_parameters: Vec<ValueMatcher>,
}

/// One of the ways to match a path.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PathSpecifier {
    Path(String),
    Prefix(String),
    PathSeparatedPrefix(String),
    SafeRegex(Regex),
    ConnectMatcher {},
}

/// `type.matcher.v3.RegexMatcher`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Regex {
    pub regex: String,
}

/// `route.v3.HeaderMatcher` and `QueryParameterMatcher`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ValueMatcher {
    pub name: String,
    pub string_match: StringMatch,
}

/// `type.matcher.v3.StringMatcher`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StringMatch {
    Exact(String),
    SafeRegex(Regex),
}

/// `route.v3.RouteAction`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RouteAction {
    #[serde(flatten)]
    pub cluster: ClusterSpecifier,
    #[serde(flatten)]
    pub rewrite: PathRewrite,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_rewrite_literal: Option<String>,
    pub timeout: &'static str,
    pub idle_timeout: &'static str,
    pub retry_policy: RetryPolicy,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub upgrade_configs: Vec<Upgrade>,
}

/// One cluster or several.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ClusterSpecifier {
    Cluster(String),
    WeightedClusters { clusters: Vec<ClusterWeight> },
}

/// `route.v3.WeightedCluster.ClusterWeight`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClusterWeight {
    pub name: String,
    pub weight: u32,
    #[serde(flatten)]
    pub headers: HeaderMutations,
}

/// The path rewrite of a route or redirect: at most one of them.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct PathRewrite {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix_rewrite: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regex_rewrite: Option<RegexRewrite>,
}

/// `type.matcher.v3.RegexMatchAndSubstitute`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RegexRewrite {
    pub pattern: Regex,
    pub substitution: String,
}

/// `route.v3.RetryPolicy`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RetryPolicy {
    pub retry_on: &'static str,
    pub num_retries: u32,
    pub retry_back_off: BackOff,
}

/// `route.v3.RetryPolicy.RetryBackOff`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BackOff {
    pub base_interval: &'static str,
    pub max_interval: &'static str,
}

/// `UpgradeConfig` of a route or of the connection manager.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Upgrade {
    pub upgrade_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_config: Option<Empty>,
}

/// `route.v3.RedirectAction`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RedirectAction {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheme_redirect: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_redirect: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port_redirect: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_redirect: Option<String>,
    #[serde(flatten)]
    pub rewrite: PathRewrite,
    pub response_code: &'static str,
}

/// Header changes of a route or of one of its clusters.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct HeaderMutations {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub request_headers_to_add: Vec<HeaderOption>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub request_headers_to_remove: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub response_headers_to_add: Vec<HeaderOption>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub response_headers_to_remove: Vec<String>,
}

/// `core.v3.HeaderValueOption`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HeaderOption {
    pub header: HeaderValue,
    pub append_action: &'static str,
}

/// `core.v3.HeaderValue`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HeaderValue {
    pub key: String,
    pub value: String,
}

/// `listener.v3.Listener`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Listener {
    pub name: String,
    pub address: Address,
    pub enable_reuse_port: bool,
    pub tcp_backlog_size: u32,
    pub socket_options: Vec<SocketOption>,
    pub filter_chains: [FilterChain; 1],
}

/// `core.v3.SocketOption` with a number.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SocketOption {
    pub description: &'static str,
    pub level: u32,
    pub name: u32,
    pub int_value: u32,
}

/// `listener.v3.FilterChain` with one filter.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FilterChain {
    pub filters: [Extension<HttpConnectionManager>; 1],
}

/// `filters.network.http_connection_manager.v3.HttpConnectionManager`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HttpConnectionManager {
    pub stat_prefix: String,
    pub codec_type: &'static str,
    pub rds: Rds,
    pub use_remote_address: bool,
    pub normalize_path: bool,
    pub http2_protocol_options: DownstreamHttp2,
    pub upgrade_configs: Vec<Upgrade>,
    pub request_headers_timeout: &'static str,
    pub stream_idle_timeout: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub access_log: Vec<Extension<Value>>,
    pub http_filters: Vec<Extension<HttpFilter>>,
}

/// `core.v3.Http2ProtocolOptions` towards clients.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DownstreamHttp2 {
    pub allow_connect: bool,
    pub max_concurrent_streams: u32,
    pub connection_keepalive: Keepalive,
}

/// `core.v3.KeepaliveSettings`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Keepalive {
    pub interval: &'static str,
    pub timeout: &'static str,
}

/// `http_connection_manager.v3.Rds`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rds {
    pub route_config_name: String,
    pub config_source: ConfigSource,
}

/// `core.v3.ConfigSource` with a file.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ConfigSource {
    pub path_config_source: PathConfigSource,
    pub resource_api_version: &'static str,
}

/// `core.v3.PathConfigSource`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PathConfigSource {
    pub path: String,
}

/// An HTTP filter: ours, or the router.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum HttpFilter {
    /// `filters.http.dynamic_modules.v3.DynamicModuleFilter`.
    Module {
        dynamic_module_config: DynamicModule,
        filter_name: &'static str,
        filter_config: Any<Struct>,
    },
    /// `filters.http.router.v3.Router`.
    Router {},
}

/// `discovery.v3.DiscoveryResponse`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DiscoveryResponse<'a, T> {
    pub version_info: &'a str,
    pub resources: &'a [T],
}

impl ConfigSource {
    /// A file.
    pub fn file(path: String) -> Self {
        Self {
            path_config_source: PathConfigSource { path },
            resource_api_version: "V3",
        }
    }
}
