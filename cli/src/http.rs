//! A small HTTP client for admin servers, on TCP or a Unix socket.

use std::time::Duration;

use adit_tunnel::admin::AdminAddr;
use anyhow::{Context as _, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::timeout,
};

const TIMEOUT: Duration = Duration::from_secs(5);
const MAX_BODY: usize = 16 << 20;

/// Status and body of `GET path`.
pub(crate) async fn get(addr: &AdminAddr, path: &str) -> anyhow::Result<(u16, Bytes)> {
    let exchange = async {
        match addr {
            AdminAddr::Tcp(addr) => exchange(TcpStream::connect(addr).await?, path).await,
            AdminAddr::Unix(socket) => exchange(UnixStream::connect(socket).await?, path).await,
        }
    };
    match timeout(TIMEOUT, exchange).await {
        Ok(answer) => answer.with_context(|| format!("no answer from {addr}{path}")),
        Err(_) => bail!("{addr}{path} did not answer within {} s", TIMEOUT.as_secs()),
    }
}

async fn exchange<S>(stream: S, path: &str) -> anyhow::Result<(u16, Bytes)>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request = http::Request::get(path)
        .header("host", "admin")
        .body(Empty::<Bytes>::new())?;
    let answer = async {
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), MAX_BODY).collect().await;
        let bytes = body.map_err(|e| anyhow::anyhow!("{e}"))?.to_bytes();
        Ok((status, bytes))
    };
    let answer = answer.await;
    connection.abort();
    answer
}
