//! Envoy and `adit dialer` without `adit run`: a configuration written by hand,
//! for tests that look at one process alone.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use adit_api::{ConnectorHint, DialerState};
use adit_wire::{Protocol, Target, Verdict, preface::Preface};
use anyhow::{Result, ensure};
use serde_json::{Value, json};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

use crate::{
    admin::Admin, binaries, client::patiently, envoy, envoy::Envoy, keys::Key, process::Process,
};

/// `adit dialer` as a child process.
pub struct Dialer {
    /// The process.
    pub process: Process,
    /// Its Unix socket.
    pub socket: PathBuf,
    /// Its admin server.
    pub admin: Admin,
}

impl Dialer {
    /// Starts it with hints where connectors are, and more options as flags.
    pub async fn start(
        dir: &Path,
        key: &Key,
        hints: &[(&str, SocketAddr)],
        flags: &[&str],
    ) -> Result<Self> {
        let mut command = Self::command(dir, key, hints)?;
        command.args(flags);
        Self::run(dir, command).await
    }

    /// Runs a command made by [`Dialer::command`].
    pub async fn run(dir: &Path, mut command: Command) -> Result<Self> {
        let mut process = Process::start("dialer", dir, &mut command)?;
        let admin = Admin::Unix(dir.join("dialer-admin.sock"));
        let ready = admin.clone();
        process
            .until("ready dialer", async || ready.get("/readyz").await.ok())
            .await?;
        Ok(Self {
            process,
            socket: dir.join("dialer.sock"),
            admin,
        })
    }

    /// A tunnel to a target, past its verdict.
    pub async fn tunnel(&self, target: &Target) -> Result<UnixStream> {
        let preface = Preface {
            target: target.clone(),
            wants_verdict: true,
        };
        let preface = preface.encode()?;
        patiently("a verdict", async {
            let mut socket = UnixStream::connect(&self.socket).await?;
            socket.write_all(&preface).await?;
            let mut got = Vec::new();
            loop {
                if let Some((verdict, len)) = Verdict::decode(&got)? {
                    ensure!(matches!(verdict, Verdict::Connected(_)), "{verdict:?}");
                    ensure!(len == got.len(), "bytes after the verdict");
                    return Ok(socket);
                }
                // One at a time: what follows the verdict is the service's.
                let mut byte = [0];
                ensure!(socket.read(&mut byte).await? > 0, "closed before a verdict");
                got.push(byte[0]);
            }
        })
        .await
    }

    /// Connects to its socket until the backlog is full. It must not accept:
    /// stop it before.
    pub fn fill_backlog(&self) -> Result<Vec<Socket>> {
        let addr = SockAddr::unix(&self.socket)?;
        let mut crowd = Vec::new();
        loop {
            let client = Socket::new(Domain::UNIX, Type::STREAM, None)?;
            client.set_nonblocking(true)?;
            if client.connect(&addr).is_err() {
                return Ok(crowd);
            }
            crowd.push(client);
            ensure!(crowd.len() < 16_000, "the backlog has no end");
        }
    }

    /// The command that [`Dialer::start`] runs, for [`Dialer::run`].
    pub fn command(dir: &Path, key: &Key, hints: &[(&str, SocketAddr)]) -> Result<Command> {
        let state = dir.join("dialer.json");
        let connectors = hints.iter().map(|(id, addr)| {
            Ok(ConnectorHint {
                endpoint_id: id.parse()?,
                relay: None,
                addresses: vec![*addr],
            })
        });
        let content = DialerState {
            connectors: connectors.collect::<Result<_>>()?,
            targets: None,
        };
        std::fs::write(&state, serde_json::to_vec(&content)?)?;
        let mut command = Command::new(binaries::adit()?);
        command
            .arg("dialer")
            .arg("--socket")
            .arg(dir.join("dialer.sock"))
            .arg("--state")
            .arg(&state)
            .arg("--key-file")
            .arg(&key.file)
            .args(["--bind", "127.0.0.1:0"])
            .arg("--admin")
            .arg(format!("unix:{}", dir.join("dialer-admin.sock").display()))
            .env_clear();
        Ok(command)
    }
}

/// A target for `service` through these connectors.
pub fn target(connectors: &[&str], service: &str, deadline: Duration) -> Result<Target> {
    let ids = connectors.iter().map(|id| id.parse());
    Ok(Target {
        connectors: ids.collect::<Result<_, _>>()?,
        service: service.parse()?,
        protocol: Protocol::Tcp,
        deadline,
        name: "test".into(),
    })
}

/// The module as Envoy's configuration names it.
pub fn module() -> Result<Value> {
    Ok(json!({
        "module": {"local": {"filename": binaries::module()?}},
        "do_not_close": true,
        "metrics_namespace": "adit",
    }))
}

/// The module's HTTP filter, for the list before the router.
pub fn filter() -> Result<Value> {
    Ok(json!({
        "name": "adit",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter",
            "dynamic_module_config": module()?,
            "filter_name": "adit",
            "filter_config": {"@type": "type.googleapis.com/google.protobuf.Struct", "value": {}},
        },
    }))
}

/// A cluster whose connections go through the dialer's socket to a target.
pub fn cluster(name: &str, socket: &Path, target: &Target, h2: bool) -> Result<Value> {
    // The address is replaced; only the rest of a plain cluster is wanted.
    let mut cluster = envoy::tcp_cluster(name, ([127, 0, 0, 1], 1).into(), h2);
    cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"] =
        json!({"pipe": {"path": socket}});
    let timeout = target.deadline + Duration::from_secs(1);
    cluster["connect_timeout"] = json!(format!("{}s", timeout.as_secs_f64()));
    cluster["circuit_breakers"] = json!({"thresholds": [{
        "max_connections": 100_000,
        "max_pending_requests": 100_000,
        "max_requests": 100_000,
        "max_retries": 1000,
    }]});
    cluster["transport_socket"] = json!({
        "name": "envoy.transport_sockets.dynamic_modules",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.dynamic_modules.v3.DynamicModuleTransportSocket",
            "dynamic_module_config": {
                "module": {"local": {"filename": binaries::module()?}},
                "do_not_close": true,
            },
            "transport_socket_name": "adit",
            "transport_socket_config": {
                "@type": "type.googleapis.com/google.protobuf.Struct",
                "value": {"target": target.to_base64()},
            },
        },
    });
    Ok(cluster)
}

/// The `adit` metadata of a route to a target.
pub fn metadata(target: &Target, connect: bool) -> Value {
    let ids: Vec<_> = target.connectors.iter().map(ToString::to_string).collect();
    json!({"filter_metadata": {"adit": {
        "datum-node-id": ids.join(","),
        "datum-target-host": target.service.host.to_string(),
        "datum-target-port": target.service.port,
        "datum-target-proto": "tcp",
        "name": target.name,
        "connect": connect,
    }}})
}

/// Envoy with one listener `main`; host `<name>.test` for each target, and with
/// `connect` it serves CONNECT only.
pub struct Route {
    /// The cluster's and the host's name.
    pub name: &'static str,
    /// Where it goes.
    pub target: Target,
    /// HTTP/2 to the service.
    pub h2: bool,
    /// CONNECT, and nothing else.
    pub connect: bool,
}

/// Starts Envoy on these routes.
pub async fn envoy(version: &str, dir: &Path, socket: &Path, routes: &[Route]) -> Result<Envoy> {
    let mut hosts = Vec::new();
    let mut clusters = Vec::new();
    for route in routes {
        let name = route.name;
        let mut entry = if route.connect {
            envoy::connect_route(name)
        } else {
            envoy::prefix_route(name)
        };
        entry["metadata"] = metadata(&route.target, route.connect);
        let domain = format!("{name}.test");
        hosts.push(envoy::virtual_host(name, &[&domain], &[entry]));
        clusters.push(cluster(name, socket, &route.target, route.h2)?);
    }
    let listener = envoy::http_listener("main", &Value::Array(hosts), &[filter()?]);
    let resources = json!({"listeners": [listener], "clusters": clusters});
    Envoy::start(version, dir, binaries::concurrency(), &resources).await
}
