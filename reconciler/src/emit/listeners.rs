//! Listeners.

use serde_json::{Value, json};

use super::{
    ADIT, Setting, clusters, show,
    xds::{
        self, Address, Any, ConfigSource, DownstreamHttp2, Extension, FilterChain,
        HttpConnectionManager, HttpFilter, Keepalive, Rds, SocketOption, Struct, Upgrade,
    },
};
use crate::model::{Listener, ListenerKind};

pub(super) fn listener(listener: &Listener, setting: &Setting) -> Any<xds::Listener> {
    let ListenerKind::Http(_) = &listener.kind;
    let name = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    let manager = Extension {
        name: "envoy.filters.network.http_connection_manager".into(),
        typed_config: Any::new(name, connection_manager(listener, setting)),
    };
    let message = xds::Listener {
        name: listener.name.clone(),
        address: Address::SocketAddress {
            address: listener.address.ip().to_string(),
            port_value: listener.address.port(),
            network_namespace_filepath: listener.netns.as_deref().map(show),
        },
        // With it a second gateway on the same port would silently take half
        // of the connections; without it its start fails.
        enable_reuse_port: false,
        tcp_backlog_size: 4096,
        socket_options: keep_alive(),
        filter_chains: [FilterChain { filters: [manager] }],
    };
    Any::new("envoy.config.listener.v3.Listener", message)
}

/// Linux's TCP keep-alive: a client that vanished is noticed within about
/// 75 s, as streams have no idle timeout here.
fn keep_alive() -> Vec<SocketOption> {
    const SOL_SOCKET: u32 = 1;
    const SO_KEEPALIVE: u32 = 9;
    const IPPROTO_TCP: u32 = 6;
    let option = |description, level, name, int_value| SocketOption {
        description,
        level,
        name,
        int_value,
    };
    vec![
        option("SO_KEEPALIVE", SOL_SOCKET, SO_KEEPALIVE, 1),
        option("TCP_KEEPIDLE", IPPROTO_TCP, 4, 30),
        option("TCP_KEEPINTVL", IPPROTO_TCP, 5, 15),
        option("TCP_KEEPCNT", IPPROTO_TCP, 6, 3),
    ]
}

fn connection_manager(listener: &Listener, setting: &Setting) -> HttpConnectionManager {
    let upgrade = |upgrade_type| Upgrade {
        upgrade_type,
        connect_config: None,
    };
    HttpConnectionManager {
        stat_prefix: listener.name.clone(),
        codec_type: "AUTO",
        rds: Rds {
            route_config_name: listener.name.clone(),
            config_source: ConfigSource::file(show(&setting.routes_file)),
        },
        use_remote_address: true,
        normalize_path: true,
        http2_protocol_options: DownstreamHttp2 {
            allow_connect: true,
            max_concurrent_streams: 1000,
            connection_keepalive: Keepalive {
                interval: "30s",
                timeout: "15s",
            },
        },
        // CONNECT still needs a route made for it. It stands here so that one
        // which cannot be programmed answers 500, not 403.
        upgrade_configs: vec![upgrade("websocket"), upgrade("CONNECT")],
        request_headers_timeout: "30s",
        stream_idle_timeout: "0s",
        access_log: setting
            .access_log
            .iter()
            .map(|path| access_log(&show(path)))
            .collect(),
        http_filters: vec![module_filter(setting), router()],
    }
}

fn module_filter(setting: &Setting) -> Extension<HttpFilter> {
    let config = match &setting.html_page {
        Some(page) => json!({"html_page": page}),
        None => json!({}),
    };
    Extension {
        name: ADIT.into(),
        typed_config: Any::new(
            "envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter",
            HttpFilter::Module {
                dynamic_module_config: clusters::module(&setting.module, Some(ADIT)),
                filter_name: ADIT,
                filter_config: Any::new("google.protobuf.Struct", Struct { value: config }),
            },
        ),
    }
}

fn router() -> Extension<HttpFilter> {
    Extension {
        name: "envoy.filters.http.router".into(),
        typed_config: Any::new(
            "envoy.extensions.filters.http.router.v3.Router",
            HttpFilter::Router {},
        ),
    }
}

/// One JSON object a request, with what the module found out about it.
fn access_log(path: &str) -> Extension<Value> {
    let format = json!({
        "time": "%START_TIME%",
        "method": "%REQ(:METHOD)%",
        "host": "%REQ(:AUTHORITY)%",
        "path": "%REQ(:PATH)%",
        "protocol": "%PROTOCOL%",
        "status": "%RESPONSE_CODE%",
        "flags": "%RESPONSE_FLAGS%",
        "details": "%RESPONSE_CODE_DETAILS%",
        "bytes_received": "%BYTES_RECEIVED%",
        "bytes_sent": "%BYTES_SENT%",
        "duration_ms": "%DURATION%",
        "route": "%ROUTE_NAME%",
        "request_id": "%REQ(X-REQUEST-ID)%",
        "adit": "%DYNAMIC_METADATA(adit)%",
    });
    Extension {
        name: "envoy.access_loggers.file".into(),
        typed_config: Any::new(
            "envoy.extensions.access_loggers.file.v3.FileAccessLog",
            json!({"path": path, "log_format": {"json_format": format}}),
        ),
    }
}
