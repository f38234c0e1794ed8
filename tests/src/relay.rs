//! A self-hosted iroh relay on loopback, in this process.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use anyhow::{Context, Result};
use iroh_relay::server::{CertConfig, RelayConfig, Server, ServerConfig, TlsConfig};

use crate::services::tls::Authority;

/// A running relay; dropping it stops it.
pub struct Relay {
    server: Server,
    /// Its URL, as connectors and dialers take it.
    pub url: String,
    /// Where it listens.
    pub addr: SocketAddr,
}

impl Relay {
    /// A relay without TLS on a free port.
    pub async fn start() -> Result<Self> {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into()).await
    }

    /// A relay without TLS at an address, where another may have been.
    pub async fn start_at(addr: SocketAddr) -> Result<Self> {
        Self::spawn(RelayConfig::new(addr), "http").await
    }

    /// A relay with a certificate of `authority` for 127.0.0.1.
    pub async fn start_tls(authority: &Authority) -> Result<Self> {
        let any: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
        let tls = authority.server(&["127.0.0.1", "localhost"])?;
        let mut server_config = Arc::unwrap_or_clone(tls);
        // The relay speaks HTTP/1.1 upgrades only.
        server_config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let mut relay = RelayConfig::new(any);
        relay.tls = Some(TlsConfig::new(any, CertConfig::Manual { server_config }));
        Self::spawn(relay, "https").await
    }

    async fn spawn(mut relay: RelayConfig, scheme: &str) -> Result<Self> {
        // The default reserves a million entries.
        relay.key_cache_capacity = Some(1024);
        let mut config = ServerConfig::default();
        config.relay = Some(relay);
        let server = Server::spawn(config).await.context("start the relay")?;
        let addr = match scheme {
            "https" => server.https_addr(),
            _ => server.http_addr(),
        }
        .context("the relay's address")?;
        Ok(Self {
            server,
            url: format!("{scheme}://{addr}"),
            addr,
        })
    }

    /// Stops it; its clients see their connections end.
    pub async fn stop(self) -> Result<()> {
        self.server.shutdown().await.context("stop the relay")
    }
}
