//! Envoy's own reverse tunnels (experimental): a second Envoy beside the
//! service dials this one, which then sends its requests down that connection,
//! always as HTTP/2. The second Envoy is an HTTP proxy of its own.

use std::{fs, path::Path as File, process::Command};

use adit_tests::{binaries, envoy};
use anyhow::Result;
use serde_json::json;

use super::{Exit, Ground, Part, Path, tcp_port};

/// The name of the Envoy beside the service.
const NODE: &str = "device";
/// How many connections it holds open. One for each worker of the other Envoy
/// would do; a few let 64 clients be served side by side.
const CONNECTIONS: u8 = 4;

/// Starts the Envoy beside the service; the gateway's half is in its own
/// configuration, see [`crate::gateway`].
pub fn start(ground: &Ground, dir: &File) -> Result<Path> {
    let accept = tcp_port()?;
    // gRPC is HTTP/2 up to the service; all else ends as HTTP/1.1, as elsewhere.
    let mut grpc = envoy::prefix_route("service-h2");
    grpc["match"]["grpc"] = json!({});
    let routes = [grpc, envoy::prefix_route("service")];
    let host = envoy::virtual_host("service", &["*"], &routes);
    let mut listener = envoy::http_listener("reverse", &json!([host]), &[]);
    listener["address"] = json!({"socket_address": {
        "address": format!("rc://{NODE}:{NODE}:bench@gateway:{CONNECTIONS}"),
        "port_value": 0,
        "resolver_name": "envoy.resolvers.reverse_connection",
    }});
    listener["listener_filters_timeout"] = json!("0s");
    let bootstrap = json!({
        "node": {"id": NODE, "cluster": NODE},
        "bootstrap_extensions": [{
            "name": "envoy.bootstrap.reverse_tunnel.downstream_socket_interface",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.bootstrap.reverse_tunnel.downstream_socket_interface.v3.DownstreamReverseConnectionSocketInterface",
                "stat_prefix": "reverse",
            },
        }],
        "static_resources": {
            "listeners": [listener],
            "clusters": [
                envoy::tcp_cluster("gateway", accept, false),
                envoy::tcp_cluster("service", ground.service, false),
                envoy::tcp_cluster("service-h2", ground.service, true),
            ],
        },
    });
    let config = dir.join("device.json");
    fs::write(&config, serde_json::to_vec_pretty(&bootstrap)?)?;
    let mut device = Command::new(binaries::envoy(&ground.envoy)?);
    device.arg("-c").arg(&config);
    device.args(["--disable-hot-restart", "--concurrency", "1"]);
    Ok(Path {
        name: "reverse",
        exit: Exit::Reverse { accept, node: NODE },
        off: None,
        parts: vec![Part::start("device-envoy", dir, device)?],
    })
}
