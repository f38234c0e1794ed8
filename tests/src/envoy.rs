//! Envoy on a configuration of its own, without `adit run`.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::{admin::Admin, binaries, process::Process};

/// A running Envoy.
pub struct Envoy {
    /// The process and its log.
    pub process: Process,
    /// Its admin server.
    pub admin: Admin,
}

impl Envoy {
    /// Starts Envoy of `version` with these static resources, and waits until
    /// it is live. Sockets, configuration and log go to `dir`.
    pub async fn start(
        version: &str,
        dir: &Path,
        concurrency: u16,
        static_resources: &Value,
    ) -> Result<Self> {
        Self::start_with(version, dir, concurrency, static_resources, &[]).await
    }

    /// As [`Envoy::start`], with more environment.
    pub async fn start_with(
        version: &str,
        dir: &Path,
        concurrency: u16,
        static_resources: &Value,
        env: &[(&str, &str)],
    ) -> Result<Self> {
        let (config, admin) = write(dir, static_resources)?;
        let mut command = Command::new(binaries::envoy(version)?);
        command
            .arg("-c")
            .arg(&config)
            .args(["--disable-hot-restart", "--log-level", "info"])
            .arg("--concurrency")
            .arg(concurrency.to_string())
            .envs(env.iter().copied());
        let process = Process::start("envoy", dir, &mut command)?;
        let mut envoy = Self {
            process,
            admin: Admin::Unix(admin),
        };
        let admin = envoy.admin.clone();
        envoy
            .process
            .until("ready Envoy", async || {
                let ready = admin.get("/ready").await.ok()?;
                (ready.trim() == "LIVE").then_some(())
            })
            .await?;
        Ok(envoy)
    }

    /// The address a listener is bound to, by its name.
    pub async fn listener(&self, name: &str) -> Result<SocketAddr> {
        listener(&self.admin, name).await
    }

    /// The sum of all counters and gauges with this name.
    pub async fn stat(&self, name: &str) -> Result<u64> {
        stat(&self.admin, name).await
    }
}

/// Runs `envoy --mode validate` on a configuration, with more environment.
pub fn validate(
    version: &str,
    dir: &Path,
    static_resources: &Value,
    env: &[(&str, &str)],
) -> Result<Output> {
    let (config, _) = write(dir, static_resources)?;
    Command::new(binaries::envoy(version)?)
        .arg("-c")
        .arg(&config)
        .args(["--mode", "validate"])
        .envs(env.iter().copied())
        .output()
        .context("run envoy --mode validate")
}

/// The address a listener of an Envoy is bound to, by its name.
pub async fn listener(admin: &Admin, name: &str) -> Result<SocketAddr> {
    let listeners = admin.json("/listeners?format=json").await?;
    let found = listeners["listener_statuses"]
        .as_array()
        .and_then(|all| all.iter().find(|l| l["name"] == name))
        .with_context(|| format!("no listener {name}: {listeners}"))?;
    let socket = &found["local_address"]["socket_address"];
    let host = socket["address"].as_str().context("an address")?;
    let port = socket["port_value"].as_u64().context("a port")?;
    Ok(format!("{host}:{port}").parse()?)
}

/// A counter or gauge of an Envoy; 0 if it does not exist yet.
pub async fn stat(admin: &Admin, name: &str) -> Result<u64> {
    let stats = admin.get("/stats").await?;
    let values = stats.lines().filter_map(|line| {
        let (found, value) = line.split_once(": ")?;
        (found == name).then(|| value.trim().parse::<u64>().ok())?
    });
    Ok(values.sum())
}

fn write(dir: &Path, static_resources: &Value) -> Result<(PathBuf, PathBuf)> {
    let admin = dir.join("envoy-admin.sock");
    let bootstrap = json!({
        "node": {"id": "adit-tests", "cluster": "adit-tests"},
        "admin": {"address": {"pipe": {"path": admin}}},
        "static_resources": static_resources,
    });
    let config = dir.join("envoy.json");
    fs::write(&config, serde_json::to_vec_pretty(&bootstrap)?)?;
    Ok((config, admin))
}

/// An HTTP listener on a free port of loopback: CONNECT and WebSocket allowed,
/// these virtual hosts, and these HTTP filters before the router.
pub fn http_listener(name: &str, virtual_hosts: &Value, filters: &[Value]) -> Value {
    let mut http_filters = filters.to_vec();
    http_filters.push(json!({
        "name": "router",
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
    }));
    json!({
        "name": name,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [{"filters": [{
            "name": "hcm",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "stat_prefix": name,
                "codec_type": "AUTO",
                "stream_idle_timeout": "0s",
                "http2_protocol_options": {"allow_connect": true},
                "upgrade_configs": [{"upgrade_type": "CONNECT"}, {"upgrade_type": "websocket"}],
                "route_config": {"name": name, "ignore_port_in_host_matching": true, "virtual_hosts": virtual_hosts},
                "http_filters": http_filters,
            },
        }]}],
    })
}

/// A plain cluster with one TCP endpoint; `h2` speaks HTTP/2 to it.
pub fn tcp_cluster(name: &str, endpoint: SocketAddr, h2: bool) -> Value {
    let protocol = if h2 {
        json!({"http2_protocol_options": {}})
    } else {
        json!({"http_protocol_options": {}})
    };
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {
            "address": {"socket_address": {"address": endpoint.ip(), "port_value": endpoint.port()}},
        }}]}]},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": protocol,
            },
        },
    })
}

/// A route for CONNECT whose bytes go raw to the cluster.
pub fn connect_route(cluster: &str) -> Value {
    json!({
        "match": {"connect_matcher": {}},
        "route": {
            "cluster": cluster,
            "timeout": "0s",
            "upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}],
        },
    })
}

/// A route for everything else.
pub fn prefix_route(cluster: &str) -> Value {
    json!({"match": {"prefix": "/"}, "route": {"cluster": cluster, "timeout": "0s"}})
}

/// A virtual host.
pub fn virtual_host(name: &str, domains: &[&str], routes: &[Value]) -> Value {
    json!({"name": name, "domains": domains, "routes": routes})
}
