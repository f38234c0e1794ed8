//! Listeners with an HTTP connection manager.

#![allow(missing_docs, reason = "the fields are those of Envoy's API reference")]

use serde::Serialize;
use serde_json::Value;

use super::{Address, Any, ConfigSource, DynamicModule, Extension, Struct, Upgrade};

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
