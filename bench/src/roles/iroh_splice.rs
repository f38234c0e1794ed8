//! Unix socket → iroh → TCP, as simply as one would write it with the iroh
//! crate: one connection, a stream for each socket, no request, no answer, no
//! limits, no statistics. It is what Adit's speed is compared with.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
};

use anyhow::{Context as _, Result};
use iroh::{
    Endpoint, EndpointAddr, EndpointId, SecretKey,
    endpoint::{Connection, PortmapperConfig, RecvStream, SendStream, presets},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, copy_bidirectional_with_sizes, join},
    net::{TcpStream, UnixStream},
};

use super::splice::{BUFFER, listen};

const ALPN: &[u8] = b"adit-bench/splice";

/// The side of the Unix socket.
pub async fn dial(socket: &Path, peer: EndpointId, at: SocketAddr) -> Result<()> {
    let bind = (Ipv4Addr::LOCALHOST, 0).into();
    let endpoint = endpoint(SecretKey::generate(), bind).await?;
    let peer = EndpointAddr::new(peer).with_ip_addr(at);
    let listener = listen(socket)?;
    let mut connection: Option<Connection> = None;
    loop {
        let (unix, _) = listener.accept().await?;
        let connection = match &connection {
            Some(connection) if connection.close_reason().is_none() => connection,
            _ => connection.insert(endpoint.connect(peer.clone(), ALPN).await?),
        };
        let (send, recv) = connection.open_bi().await?;
        tokio::spawn(up(unix, send, recv));
    }
}

/// The side of the service.
pub async fn accept(key_file: &Path, bind: SocketAddr, to: SocketAddr) -> Result<()> {
    let key = std::fs::read_to_string(key_file)
        .with_context(|| format!("read {}", key_file.display()))?;
    let endpoint = endpoint(key.trim().parse()?, bind).await?;
    while let Some(incoming) = endpoint.accept().await {
        tokio::spawn(async move {
            let Ok(connection) = incoming.await else {
                return;
            };
            while let Ok((send, recv)) = connection.accept_bi().await {
                tokio::spawn(async move {
                    let Ok(tcp) = TcpStream::connect(to).await else {
                        return;
                    };
                    let _ = tcp.set_nodelay(true);
                    copy(tcp, send, recv).await;
                });
            }
        });
    }
    Ok(())
}

async fn up(unix: UnixStream, send: SendStream, recv: RecvStream) {
    copy(unix, send, recv).await;
}

async fn copy(mut socket: impl AsyncRead + AsyncWrite + Unpin, send: SendStream, recv: RecvStream) {
    let mut stream = join(recv, send);
    let _ = copy_bidirectional_with_sizes(&mut socket, &mut stream, BUFFER, BUFFER).await;
}

/// Loopback only: no relay, no discovery, no port mapping. All else as iroh
/// comes.
async fn endpoint(key: SecretKey, bind: SocketAddr) -> Result<Endpoint> {
    let endpoint = Endpoint::builder(presets::Minimal)
        .secret_key(key)
        .alpns(vec![ALPN.to_vec()])
        .portmapper_config(PortmapperConfig::Disabled)
        .clear_ip_transports()
        .bind_addr(bind)?
        .bind()
        .await?;
    Ok(endpoint)
}
