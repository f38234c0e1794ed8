//! The sidecar that reads headers: the design that Adit is measured against.
//!
//! ```text
//! Envoy ──TCP, HTTP/1.1──► downstream ══iroh══► upstream ──► service
//!        x-node-id, x-target-host, x-target-port
//! ```
//!
//! Both ends are the public crate `iroh-proxy-utils` as it comes; the only code
//! here is what a user of it has to write: read three headers, name a peer.

use std::{
    io::Write as _,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use iroh::{
    Endpoint, EndpointAddr, EndpointId, SecretKey,
    address_lookup::memory::MemoryLookup,
    endpoint::{PortmapperConfig, presets},
    protocol::Router,
};
use iroh_proxy_utils::{
    ALPN, Authority, HttpRequest,
    downstream::{
        Deny, DownstreamProxy, HttpProxyOpts, PoolOpts, ProxyMode, RequestHandler, SrcAddr,
    },
    upstream::{AcceptAll, UpstreamProxy},
};
use tokio::net::TcpListener;

/// One end of the header-reading sidecar.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    end: End,
}

#[derive(Subcommand)]
enum End {
    /// Beside Envoy: takes HTTP on a TCP port, prints `listening ADDR`
    Downstream {
        /// Where peers are, as ID=ADDR
        #[arg(long = "peer", value_parser = peer)]
        peers: Vec<EndpointAddr>,
        /// Where to listen
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
    },
    /// Beside the service: prints `listening ID ADDR`
    Upstream {
        /// The secret key, 64 hex digits
        #[arg(long)]
        key_file: PathBuf,
        /// The UDP address
        #[arg(long, default_value = "127.0.0.1:0")]
        bind: SocketAddr,
    },
}

/// Takes peer and service from the headers that Envoy's route has set.
struct ByHeaders;

impl RequestHandler for ByHeaders {
    async fn handle_request(
        &self,
        _from: SrcAddr,
        request: &mut HttpRequest,
    ) -> Result<EndpointId, Deny> {
        let header = |name: &str| {
            let value = request.headers.get(name).and_then(|v| v.to_str().ok());
            value.map(str::to_owned).ok_or_else(|| unusable(name))
        };
        let id: EndpointId = header("x-node-id")?
            .parse()
            .map_err(|_| unusable("x-node-id"))?;
        let host = header("x-target-host")?;
        let port = header("x-target-port")?
            .parse()
            .map_err(|_| unusable("x-target-port"))?;
        for name in ["x-node-id", "x-target-host", "x-target-port"] {
            request.headers.remove(name);
        }
        request
            .set_absolute_http_authority(Authority::new(host, port))
            .map_err(|_| unusable("request target"))?;
        Ok(id)
    }
}

/// A header that is missing, or that nobody can read.
fn unusable(name: &str) -> Deny {
    Deny::bad_request(format!("no usable {name}").as_str())
}

#[tokio::main]
async fn main() -> Result<()> {
    match Cli::parse().end {
        End::Downstream { peers, listen } => downstream(peers, listen).await,
        End::Upstream { key_file, bind } => upstream(key_file, bind).await,
    }
}

async fn downstream(peers: Vec<EndpointAddr>, listen: SocketAddr) -> Result<()> {
    let known = MemoryLookup::new();
    for peer in peers {
        known.add_endpoint_info(peer);
    }
    let endpoint = endpoint(SecretKey::generate(), (Ipv4Addr::LOCALHOST, 0).into()).await?;
    endpoint.address_lookup()?.add(known);
    let proxy = DownstreamProxy::new(endpoint, PoolOpts::default());
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("listen on {listen}"))?;
    say(&format!("listening {}", listener.local_addr()?))?;
    let mode = ProxyMode::Http(HttpProxyOpts::new(ByHeaders));
    proxy
        .forward_tcp_listener(listener, mode)
        .await
        .map_err(|error| anyhow::anyhow!("the sidecar has ended: {error:#}"))
}

async fn upstream(key_file: PathBuf, bind: SocketAddr) -> Result<()> {
    let key: SecretKey = std::fs::read_to_string(&key_file)
        .with_context(|| format!("read {}", key_file.display()))?
        .trim()
        .parse()?;
    let endpoint = endpoint(key, bind).await?;
    let at = endpoint.bound_sockets();
    let at = at.first().context("a bound socket")?;
    say(&format!("listening {} {at}", endpoint.id()))?;
    let proxy =
        UpstreamProxy::new(AcceptAll).map_err(|error| anyhow::anyhow!("the proxy: {error:#}"))?;
    let _router = Router::builder(endpoint).accept(ALPN, proxy).spawn();
    std::future::pending().await
}

/// Loopback only: no relay, no discovery, no port mapping.
async fn endpoint(key: SecretKey, bind: SocketAddr) -> Result<Endpoint> {
    let endpoint = Endpoint::builder(presets::Minimal)
        .secret_key(key)
        .portmapper_config(PortmapperConfig::Disabled)
        .clear_ip_transports()
        .bind_addr(bind)?
        .bind()
        .await?;
    Ok(endpoint)
}

fn peer(text: &str) -> Result<EndpointAddr> {
    let (id, addr) = text.split_once('=').context("write it as ID=ADDR")?;
    Ok(EndpointAddr::new(id.parse()?).with_ip_addr(addr.parse()?))
}

fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
