//! Reads the admin servers of Envoy, dialer and connector.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};

use crate::client::patiently;

/// Where an admin server listens.
#[derive(Debug, Clone)]
pub enum Admin {
    /// On loopback.
    Tcp(SocketAddr),
    /// On a Unix socket.
    Unix(PathBuf),
}

impl From<&Path> for Admin {
    fn from(path: &Path) -> Self {
        Self::Unix(path.to_owned())
    }
}

impl Admin {
    /// GET; anything but 200 is an error.
    pub async fn get(&self, path: &str) -> Result<String> {
        let (status, body) = self.send(Method::GET, path, "").await?;
        ensure!(status == 200, "{path}: {status} {body}");
        Ok(body)
    }

    /// GET of a JSON document.
    pub async fn json(&self, path: &str) -> Result<serde_json::Value> {
        serde_json::from_str(&self.get(path).await?).with_context(|| format!("JSON of {path}"))
    }

    /// Any request: the status and the body.
    pub async fn send(&self, method: Method, path: &str, body: &str) -> Result<(u16, String)> {
        let what = format!("{method} {path} of {self:?}");
        let exchange = async {
            match self {
                Self::Tcp(addr) => {
                    exchange(TcpStream::connect(addr).await?, method, path, body).await
                }
                Self::Unix(file) => {
                    exchange(UnixStream::connect(file).await?, method, path, body).await
                }
            }
        };
        patiently(&what, exchange).await
    }
}

async fn exchange<S>(io: S, method: Method, path: &str, body: &str) -> Result<(u16, String)>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await?;
    let task = tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "admin")
        .body(Full::<bytes::Bytes>::from(body.to_owned()))?;
    let response = sender.send_request(request).await?;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await?.to_bytes();
    task.abort();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}
