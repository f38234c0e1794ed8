//! A GET to an admin server or to Envoy's admin interface, over TCP or a Unix
//! socket.

use std::time::Duration;

use adit_tunnel::admin::AdminAddr;
use anyhow::{Context as _, Result, bail};
use http::{Request, StatusCode, header::HOST};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::timeout,
};

/// From connect to the last byte.
const TIMEOUT: Duration = Duration::from_secs(5);
/// A dialer with ten thousand connectors answers about 4 MiB.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// Gets `path` from the server at `addr`.
pub async fn get(addr: &AdminAddr, path: &str) -> Result<Bytes> {
    let exchange = async {
        match addr {
            AdminAddr::Tcp(tcp) => over(TcpStream::connect(tcp).await?, path).await,
            AdminAddr::Unix(unix) => over(UnixStream::connect(unix).await?, path).await,
        }
    };
    timeout(TIMEOUT, exchange)
        .await
        .with_context(|| format!("no answer within {TIMEOUT:?}"))
        .flatten()
        .with_context(|| format!("asking {addr} for {path}"))
}

async fn over(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    path: &str,
) -> Result<Bytes> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::get(path)
        .header(HOST, "localhost")
        .body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_ANSWER)
        .collect()
        .await;
    let body = body.map_err(|e| anyhow::anyhow!(e))?.to_bytes();
    if status != StatusCode::OK {
        bail!("{status}: {}", String::from_utf8_lossy(&body).trim());
    }
    Ok(body)
}
