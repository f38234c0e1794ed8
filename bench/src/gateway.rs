//! The one Envoy that all paths start from.
//!
//! Each path has its hosts, by what the load wants of the cluster behind them:
//!
//! | host | the cluster |
//! |---|---|
//! | `PATH.test` | HTTP/1.1, kept alive |
//! | `PATH-h2.test` | HTTP/2 |
//! | `PATH-fresh.test` | HTTP/1.1, a new connection for each request |
//! | `PATH-connect.test` | CONNECT, bytes as they come |
//! | `PATH-off.test` | HTTP/1.1 to a device that is switched off, with retries |

use std::{fs, net::SocketAddr, process::Command};

use adit_tests::{admin::Admin, bare, binaries, envoy, process::Process};
use anyhow::Result;
use serde_json::{Value, json};

use crate::paths::{Exit, Ground, Path};

/// The running Envoy.
pub struct Gateway {
    /// The process.
    pub process: Process,
    /// The listener of everything but Adit.
    pub plain: SocketAddr,
    /// The listener with Adit's HTTP filter: the others do not pay for it.
    pub adit: SocketAddr,
}

/// What a host is for; see the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host {
    /// HTTP/1.1, kept alive.
    Http1,
    /// HTTP/2.
    Http2,
    /// A new connection for each request.
    Fresh,
    /// CONNECT.
    Connect,
    /// A device that is off.
    Off,
}

impl Host {
    const ALL: [Self; 5] = [
        Self::Http1,
        Self::Http2,
        Self::Fresh,
        Self::Connect,
        Self::Off,
    ];

    /// The cluster's name; with `.test`, the host's.
    pub fn cluster(self, path: &str) -> String {
        let end = match self {
            Self::Http1 => "",
            Self::Http2 => "-h2",
            Self::Fresh => "-fresh",
            Self::Connect => "-connect",
            Self::Off => "-off",
        };
        format!("{path}{end}")
    }
}

impl Gateway {
    /// Starts Envoy with hosts for all these paths.
    pub async fn start(ground: &Ground, workers: u16, paths: &[Path]) -> Result<Self> {
        let dir = ground.dir.join("gateway");
        fs::create_dir_all(&dir)?;
        let admin = dir.join("admin.sock");
        let config = dir.join("envoy.json");
        let bootstrap = json!({
            "node": {"id": "gateway", "cluster": "gateway"},
            "admin": {"address": {"pipe": {"path": admin}}},
            "bootstrap_extensions": paths.iter().filter_map(reverse_extension).collect::<Vec<_>>(),
            "static_resources": resources(paths)?,
        });
        fs::write(&config, serde_json::to_vec_pretty(&bootstrap)?)?;
        let mut command = Command::new(binaries::envoy(&ground.envoy)?);
        command.arg("-c").arg(&config);
        command.args(["--disable-hot-restart", "--concurrency"]);
        command.arg(workers.to_string());
        let mut process = Process::start("envoy", &dir, &mut command)?;
        let admin = Admin::Unix(admin);
        let ready = admin.clone();
        process
            .until("ready Envoy", async || {
                let ready = ready.get("/ready").await.ok()?;
                (ready.trim() == "LIVE").then_some(())
            })
            .await?;
        Ok(Self {
            plain: envoy::listener(&admin, "plain").await?,
            adit: envoy::listener(&admin, "adit").await?,
            process,
        })
    }
}

fn resources(paths: &[Path]) -> Result<Value> {
    let (mut plain, mut adit, mut clusters) = (Vec::new(), Vec::new(), Vec::new());
    for path in paths {
        for host in Host::ALL {
            let exit = match host {
                Host::Off => path.off.as_ref(),
                _ => Some(&path.exit),
            };
            let Some(exit) = exit else { continue };
            let name = host.cluster(path.name);
            let Some(cluster) = cluster(&name, host, exit)? else {
                continue;
            };
            clusters.push(cluster);
            let entry = envoy::virtual_host(
                &name,
                &[&format!("{name}.test")],
                &[route(&name, host, exit)],
            );
            match exit {
                Exit::Adit { .. } => adit.push(entry),
                _ => plain.push(entry),
            }
        }
    }
    let mut listeners = vec![
        envoy::http_listener("plain", &json!(plain), &[]),
        envoy::http_listener("adit", &json!(adit), &[bare::filter()?]),
    ];
    listeners.extend(paths.iter().filter_map(reverse_listener));
    Ok(json!({"listeners": listeners, "clusters": clusters}))
}

/// The cluster, or none where the path has no such thing.
fn cluster(name: &str, host: Host, exit: &Exit) -> Result<Option<Value>> {
    let h2 = host == Host::Http2;
    let nowhere = ([127, 0, 0, 1], 1).into();
    let mut cluster = match exit {
        Exit::Bare(_) => return Ok(None),
        // A proxy of HTTP has no raw bytes to offer.
        Exit::Tcp { headers, .. } if !headers.is_empty() && host == Host::Connect => {
            return Ok(None);
        }
        Exit::Reverse { .. } if matches!(host, Host::Fresh | Host::Connect) => return Ok(None),
        Exit::Tcp { at, .. } => envoy::tcp_cluster(name, *at, h2),
        Exit::Adit { socket, target } => bare::cluster(name, socket, target, h2)?,
        Exit::Pipe(socket) => {
            let mut cluster = envoy::tcp_cluster(name, nowhere, h2);
            cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"] =
                json!({"pipe": {"path": socket}});
            cluster
        }
        Exit::Reverse { node, .. } => reverse_cluster(name, node),
    };
    // As Adit's clusters have it: none of the paths is to meet Envoy's own limits.
    cluster["circuit_breakers"] = json!({"thresholds": [{
        "max_connections": 100_000,
        "max_pending_requests": 100_000,
        "max_requests": 100_000,
        "max_retries": 1000,
    }]});
    if host == Host::Fresh {
        let options = &mut cluster["typed_extension_protocol_options"]["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"];
        options["common_http_protocol_options"] = json!({"max_requests_per_connection": 1});
    }
    Ok(Some(cluster))
}

fn route(cluster: &str, host: Host, exit: &Exit) -> Value {
    let mut route = match host {
        Host::Connect => envoy::connect_route(cluster),
        _ => envoy::prefix_route(cluster),
    };
    match exit {
        Exit::Adit { target, .. } => {
            route["metadata"] = bare::metadata(target, host == Host::Connect);
            route["metadata"]["filter_metadata"]["adit"]["retry"] = json!(host != Host::Connect);
        }
        Exit::Tcp { headers, .. } => {
            let headers = headers
                .iter()
                .map(|(key, value)| json!({"header": {"key": key, "value": value}}));
            route["request_headers_to_add"] = headers.collect();
        }
        _ => {}
    }
    // On the plain socket too: what is measured against it is the module alone.
    let as_adit = matches!(exit, Exit::Adit { .. } | Exit::Pipe(_)) && host != Host::Connect;
    if as_adit || host == Host::Off {
        // What `adit run` and the reconciler write: reconciler/src/emit/routes.rs.
        route["route"]["retry_policy"] = json!({
            "retry_on": "connect-failure",
            "num_retries": 2,
            "retry_back_off": {"base_interval": "0.005s", "max_interval": "0.050s"},
        });
    }
    route
}

fn reverse_extension(path: &Path) -> Option<Value> {
    matches!(path.exit, Exit::Reverse { .. }).then(|| {
        json!({
            "name": "envoy.bootstrap.reverse_tunnel.upstream_socket_interface",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.bootstrap.reverse_tunnel.upstream_socket_interface.v3.UpstreamReverseConnectionSocketInterface",
                "stat_prefix": "reverse",
            },
        })
    })
}

fn reverse_listener(path: &Path) -> Option<Value> {
    let Exit::Reverse { accept, .. } = &path.exit else {
        return None;
    };
    Some(json!({
        "name": "reverse",
        "address": {"socket_address": {"address": accept.ip(), "port_value": accept.port()}},
        "filter_chains": [{"filters": [{
            "name": "envoy.filters.network.reverse_tunnel",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.reverse_tunnel.v3.ReverseTunnel",
                "ping_interval": "2s",
            },
        }]}],
    }))
}

fn reverse_cluster(name: &str, node: &str) -> Value {
    json!({
        "name": name,
        "connect_timeout": "5s",
        "lb_policy": "CLUSTER_PROVIDED",
        "cluster_type": {
            "name": "envoy.clusters.reverse_connection",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.clusters.reverse_connection.v3.ReverseConnectionClusterConfig",
                "cleanup_interval": "60s",
                "host_id_format": node,
            },
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            },
        },
    })
}
