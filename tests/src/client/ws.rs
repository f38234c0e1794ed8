//! A WebSocket over HTTP/1.1.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use tokio::net::TcpStream;
use tokio_tungstenite::{WebSocketStream, client_async};

use super::dial;

/// Opens a WebSocket at `/ws`.
pub async fn open(addr: SocketAddr, host: &str) -> Result<WebSocketStream<TcpStream>> {
    let tcp = dial(addr).await?;
    let (socket, _) = client_async(format!("ws://{host}/ws"), tcp)
        .await
        .context("the WebSocket handshake")?;
    Ok(socket)
}
