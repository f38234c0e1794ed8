//! What the tests of the module alone put around it: a dialer that does as it
//! is told, and Envoy resources written by hand.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use adit_wire::{
    Connected, EndpointId, ErrorClass, Protocol, Refusal, Target, Verdict, preface::Preface,
};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    binaries,
    client::http::Answer,
    envoy::{self, Envoy},
};

/// Stands in every refusal's text and must never reach a client.
pub const SECRET: &str = "10.98.76.54:3210";

/// Accepts on a Unix socket, reads prefaces, and leaves the rest to a test.
pub struct FakeDialer {
    /// Where it listens.
    pub path: PathBuf,
    opened: Arc<AtomicUsize>,
    _task: AbortOnDropHandle<()>,
}

/// A connection whose preface has been read, and nothing after it.
pub struct Opened {
    /// What the preface asked for.
    pub target: Target,
    /// The connection.
    pub stream: UnixStream,
    /// How many connections there were before it.
    pub number: usize,
}

impl FakeDialer {
    /// Starts one; every connection is handed to `behave`.
    pub fn start<F>(
        path: &Path,
        behave: impl Fn(Opened) -> F + Send + Sync + 'static,
    ) -> Result<Self>
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let listener = UnixListener::bind(path).context("bind the dialer's socket")?;
        let opened = Arc::new(AtomicUsize::new(0));
        let (counter, behave) = (opened.clone(), Arc::new(behave));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (counter, behave) = (counter.clone(), behave.clone());
                tokio::spawn(async move {
                    let (target, stream) = read_preface(stream).await?;
                    let number = counter.fetch_add(1, Ordering::SeqCst);
                    behave(Opened {
                        target,
                        stream,
                        number,
                    })
                    .await
                });
            }
        });
        Ok(Self {
            path: path.to_owned(),
            opened,
            _task: AbortOnDropHandle::new(task),
        })
    }

    /// How many prefaces it has read.
    pub fn opened(&self) -> usize {
        self.opened.load(Ordering::SeqCst)
    }
}

async fn read_preface(mut stream: UnixStream) -> Result<(Target, UnixStream)> {
    let mut got = Vec::new();
    loop {
        if let Some((preface, len)) = Preface::decode(&got)? {
            ensure!(preface.wants_verdict, "no verdict is wanted");
            ensure!(len == got.len(), "bytes before the verdict");
            return Ok((preface.target, stream));
        }
        ensure!(stream.read_buf(&mut got).await? > 0, "no whole preface");
    }
}

impl Opened {
    /// "Connected".
    pub async fn accept(&mut self) -> Result<()> {
        Ok(self.stream.write_all(&accepted(&self.target)).await?)
    }

    /// "Not connected", and the end.
    pub async fn refuse(mut self, class: ErrorClass) -> Result<()> {
        let text = format!("connect to {SECRET}: no");
        let verdict = Verdict::Refused(Refusal { class, text }).encode();
        self.stream.write_all(&verdict).await?;
        self.end().await
    }

    /// A clean end: no more bytes, and the descriptor stays open until the
    /// other side has closed.
    pub async fn end(mut self) -> Result<()> {
        self.stream.shutdown().await?;
        tokio::io::copy(&mut self.stream, &mut tokio::io::sink()).await?;
        Ok(())
    }

    /// Accepts, and joins the connection to a TCP service.
    pub async fn join(mut self, service: std::net::SocketAddr) -> Result<()> {
        let mut tcp = tokio::net::TcpStream::connect(service).await?;
        tcp.set_nodelay(true)?;
        self.accept().await?;
        tokio::io::copy_bidirectional_with_sizes(&mut self.stream, &mut tcp, 1 << 18, 1 << 18)
            .await?;
        Ok(())
    }
}

/// The bytes of a verdict "connected".
pub fn accepted(target: &Target) -> Vec<u8> {
    Verdict::Connected(Connected {
        connector: target.connectors[0],
        path: adit_wire::Path::Direct,
        rtt: Duration::from_millis(3),
    })
    .encode()
}

/// A target of this name; its service is `svc.test:7777`.
pub fn target(name: &str) -> Target {
    Target {
        connectors: vec![EndpointId::from_bytes([0xab; 32])],
        service: "svc.test:7777".parse().expect("a host and port"),
        protocol: Protocol::Tcp,
        deadline: Duration::from_secs(20),
        name: name.into(),
    }
}

/// The metadata that names a target.
pub fn metadata(target: &Target) -> Value {
    let ids: Vec<_> = target.connectors.iter().map(ToString::to_string).collect();
    json!({
        "datum-node-id": ids.join(","),
        "datum-target-host": target.service.host.to_string(),
        "datum-target-port": target.service.port,
        "datum-target-proto": "tcp",
        "name": target.name,
        "connect": true,
    })
}

/// Puts metadata of ours on a route or cluster.
pub fn with_metadata(mut resource: Value, metadata: Value) -> Value {
    resource["metadata"]["filter_metadata"]["adit"] = metadata;
    resource
}

/// How the module is loaded.
fn load(module: &Path) -> Value {
    json!({
        "module": {"local": {"filename": module}},
        "do_not_close": true,
        "metrics_namespace": "adit",
    })
}

/// The HTTP filter with this configuration.
pub fn filter(module: &Path, config: Value) -> Value {
    json!({
        "name": "adit",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter",
            "dynamic_module_config": load(module),
            "filter_name": "adit",
            "filter_config": {"@type": "type.googleapis.com/google.protobuf.Struct", "value": config},
        },
    })
}

/// The filter's configuration for one route.
pub fn route_filter(module: &Path, config: Value) -> Value {
    json!({"adit": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilterPerRoute",
        "dynamic_module_config": load(module),
        "filter_name": "adit",
        "filter_config": {"@type": "type.googleapis.com/google.protobuf.Struct", "value": config},
    }})
}

/// The transport socket with this configuration.
pub fn transport_socket(module: &Path, config: Value) -> Value {
    json!({
        "name": "envoy.transport_sockets.dynamic_modules",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.dynamic_modules.v3.DynamicModuleTransportSocket",
            "dynamic_module_config": load(module),
            "transport_socket_name": "adit",
            "transport_socket_config": {"@type": "type.googleapis.com/google.protobuf.Struct", "value": config},
        },
    })
}

/// A cluster to a target by the dialer at `socket`.
pub fn cluster(module: &Path, name: &str, socket: &Path, target: &Target, h2: bool) -> Value {
    let mut cluster = envoy::tcp_cluster(name, ([127, 0, 0, 1], 1).into(), h2);
    cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"] =
        json!({"pipe": {"path": socket}});
    cluster["transport_socket"] = transport_socket(module, json!({"target": target.to_base64()}));
    with_metadata(cluster, metadata(target))
}

/// A virtual host `<name>.test` with CONNECT and everything else to the cluster
/// of its name, for the target of its name.
pub fn host(name: &str) -> Value {
    let metadata = metadata(&target(name));
    let domain = format!("{name}.test");
    envoy::virtual_host(
        name,
        &[&domain],
        &[
            with_metadata(envoy::connect_route(name), metadata.clone()),
            with_metadata(envoy::prefix_route(name), metadata),
        ],
    )
}

/// A listener `main` with the filter, and an access log of what a request was.
pub fn listener(module: &Path, hosts: &[Value]) -> Value {
    listener_with(hosts, &[filter(module, json!({}))])
}

/// A listener `main` with these filters, and the same access log.
pub fn listener_with(hosts: &[Value], filters: &[Value]) -> Value {
    let mut listener = envoy::http_listener("main", &hosts.into(), filters);
    listener["filter_chains"][0]["filters"][0]["typed_config"]["access_log"] = json!([{
        "name": "log",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
            "log_format": {"text_format_source": {"inline_string":
                "ACCESS %REQ(:METHOD)% %REQ(:AUTHORITY)% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %DYNAMIC_METADATA(adit)%\n"}},
        },
    }]);
    listener
}

/// `libadit_fault.so`: the module with panics to order.
pub fn faulty_module() -> Result<PathBuf> {
    binaries::built("libadit_fault.so")
}

/// Envoy with the module, and where it listens; the resources name the
/// dialer's socket in `dir`.
pub async fn start(
    version: &str,
    dir: &Path,
    hosts: &[Value],
    clusters: &[Value],
) -> Result<(Envoy, SocketAddr)> {
    let module = binaries::module()?;
    let resources = json!({
        "listeners": [listener(&module, hosts)],
        "clusters": clusters,
    });
    let envoy = Envoy::start(version, dir, 2, &resources).await?;
    let addr = envoy.listener("main").await?;
    Ok((envoy, addr))
}

/// Envoy with one cluster and host for each name, all to one dialer; a name
/// that begins with `h2` is HTTP/2 to the service.
pub async fn start_each(
    version: &str,
    dir: &Path,
    names: &[&str],
    change: impl Fn(&mut Value),
) -> Result<(Envoy, SocketAddr)> {
    let module = binaries::module()?;
    let socket = dir.join("dialer.sock");
    let clusters = names.iter().map(|name| {
        let h2 = name.starts_with("h2");
        let mut cluster = cluster(&module, name, &socket, &target(name), h2);
        cluster["circuit_breakers"] = json!({"thresholds": [{
            "max_connections": 10_000, "max_pending_requests": 10_000, "max_requests": 10_000,
        }]});
        change(&mut cluster);
        cluster
    });
    let clusters: Vec<_> = clusters.collect();
    let hosts: Vec<_> = names.iter().map(|name| host(name)).collect();
    start(version, dir, &hosts, &clusters).await
}

/// For [`start_each`]: clusters as they are.
pub fn unchanged(_: &mut Value) {}

/// Fails when a text for a client names a key, an address or a socket.
pub fn names_nothing(dir: &Path, text: &str) {
    let key = target("x").connectors[0].to_string();
    let path = dir.display().to_string();
    for secret in [SECRET, "svc.test:7777", &key, &path, "upstream"] {
        assert!(!text.contains(secret), "{secret} is shown: {text}");
    }
}

/// All of an answer as text.
pub fn shown(answer: &Answer) -> String {
    format!("{:?}\n{}", answer.headers, answer.text())
}
