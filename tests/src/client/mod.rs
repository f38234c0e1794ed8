//! Clients of Envoy: what a browser, a gRPC stub or a tunnel client would do,
//! with the wire in view.

pub mod connect;
pub mod grpc;
pub mod http;
pub mod load;
pub mod ws;

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result};
use tokio::net::TcpStream;

/// Longer than anything that is not broken takes, on a busy machine too.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a future with [`PATIENCE`], so that a hang is a failure with a name.
pub async fn patiently<T>(what: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(PATIENCE, work)
        .await
        .map_err(|_| anyhow::anyhow!("{what}: nothing within {} s", PATIENCE.as_secs()))?
        .with_context(|| what.to_owned())
}

async fn dial(addr: SocketAddr) -> Result<TcpStream> {
    let tcp = TcpStream::connect(addr)
        .await
        .with_context(|| format!("connect to {addr}"))?;
    tcp.set_nodelay(true)?;
    Ok(tcp)
}
