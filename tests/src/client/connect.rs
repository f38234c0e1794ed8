//! CONNECT tunnels, over HTTP/1.1 by hand and over HTTP/2 with half-close.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use futures_util::future::join_all;
use h2::{RecvStream, SendStream, client::SendRequest};
use http::{HeaderMap, Method, Request, StatusCode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_util::task::AbortOnDropHandle;

use super::{dial, patiently};

/// A CONNECT over HTTP/1.1.
pub struct Http1Tunnel {
    /// The answer's status.
    pub status: u16,
    /// The answer's head as text.
    pub head: String,
    /// What came after the head already.
    pub early: Vec<u8>,
    /// The tunnel itself, if the status is 200.
    pub tcp: TcpStream,
}

/// Asks for a tunnel; `early` is sent with the request, before any answer.
pub async fn http1(addr: SocketAddr, authority: &str, early: &[u8]) -> Result<Http1Tunnel> {
    let mut tcp = dial(addr).await?;
    let mut request =
        format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n").into_bytes();
    request.extend_from_slice(early);
    tcp.write_all(&request).await?;
    let mut got = Vec::new();
    let end = loop {
        if let Some(end) = got.windows(4).position(|w| w == b"\r\n\r\n") {
            break end + 4;
        }
        if tcp.read_buf(&mut got).await? == 0 {
            bail!(
                "closed before an answer: {:?}",
                String::from_utf8_lossy(&got)
            );
        }
    };
    let early = got.split_off(end);
    let head = String::from_utf8_lossy(&got).into_owned();
    let status = head
        .split_whitespace()
        .nth(1)
        .and_then(|s| s.parse().ok())
        .with_context(|| format!("a status line: {head:?}"))?;
    Ok(Http1Tunnel {
        status,
        head,
        early,
        tcp,
    })
}

impl Http1Tunnel {
    /// Reads exactly `len` bytes of the tunnel.
    pub async fn read_exact(&mut self, len: usize) -> Result<Vec<u8>> {
        while self.early.len() < len {
            if self.tcp.read_buf(&mut self.early).await? == 0 {
                bail!("the tunnel ended after {} of {len} bytes", self.early.len());
            }
        }
        let rest = self.early.split_off(len);
        Ok(std::mem::replace(&mut self.early, rest))
    }

    /// Reads until the tunnel ends.
    pub async fn read_to_end(&mut self) -> Result<Vec<u8>> {
        self.tcp.read_to_end(&mut self.early).await?;
        Ok(std::mem::take(&mut self.early))
    }
}

/// An HTTP/2 connection that can carry many tunnels.
pub struct Http2 {
    sender: SendRequest<Bytes>,
    _connection: AbortOnDropHandle<()>,
}

/// One CONNECT over HTTP/2.
pub struct Http2Tunnel {
    /// The answer's status.
    pub status: StatusCode,
    /// The answer's header fields.
    pub headers: HeaderMap,
    /// Towards the service.
    pub send: SendStream<Bytes>,
    /// From the service.
    pub recv: RecvStream,
}

/// How a tunnel's answer side ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// END_STREAM: whole.
    Clean,
    /// RST_STREAM or the connection's end: cut, with the error code if any.
    Reset(Option<u32>),
}

impl Http2 {
    /// Connects to Envoy.
    pub async fn connect(addr: SocketAddr) -> Result<Self> {
        let (sender, connection) = h2::client::Builder::new()
            .initial_window_size(1024 * 1024)
            .initial_connection_window_size(64 * 1024 * 1024)
            .handshake(dial(addr).await?)
            .await?;
        let task = tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(Self {
            sender,
            _connection: AbortOnDropHandle::new(task),
        })
    }

    /// Asks for a tunnel to `authority`.
    pub async fn tunnel(&self, authority: &str) -> Result<Http2Tunnel> {
        let (tunnel, send) = self.ask(authority).await?;
        let response = tunnel.await?;
        let (head, recv) = response.into_parts();
        Ok(Http2Tunnel {
            status: head.status,
            headers: head.headers,
            send,
            recv,
        })
    }

    /// Asks for so many tunnels at once; those that stand have echoed a word.
    pub async fn crowd(&self, authority: &str, count: usize) -> Result<Vec<Http2Tunnel>> {
        let asked = (0..count).map(|_| async {
            let Ok(mut tunnel) = self.tunnel(authority).await else {
                return Ok(None);
            };
            if tunnel.status != 200 {
                return Ok(None);
            }
            tunnel.send("hello").await?;
            let got = tunnel.read_at_least(5).await?;
            ensure!(got == b"hello", "the tunnel said {got:?}");
            Ok(Some(tunnel))
        });
        let opened = patiently("the tunnels", async { Ok(join_all(asked).await) }).await?;
        opened.into_iter().filter_map(Result::transpose).collect()
    }

    /// Asks for a tunnel and does not wait for the answer.
    pub async fn ask(
        &self,
        authority: &str,
    ) -> Result<(h2::client::ResponseFuture, SendStream<Bytes>)> {
        let request = Request::builder()
            .method(Method::CONNECT)
            .uri(authority)
            .body(())?;
        let mut sender = self.sender.clone().ready().await?;
        Ok(sender.send_request(request, false)?)
    }
}

/// Sends bytes, waiting for the window.
pub async fn send(stream: &mut SendStream<Bytes>, mut bytes: Bytes) -> Result<()> {
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len());
        let granted = std::future::poll_fn(|cx| stream.poll_capacity(cx))
            .await
            .context("the stream is closed")??;
        let piece = bytes.split_to(granted.min(bytes.len()));
        stream.send_data(piece, false)?;
    }
    Ok(())
}

impl Http2Tunnel {
    /// Sends bytes.
    pub async fn send(&mut self, bytes: impl Into<Bytes>) -> Result<()> {
        send(&mut self.send, bytes.into()).await
    }

    /// Half-closes: nothing more will be sent.
    pub fn finish(&mut self) -> Result<()> {
        Ok(self.send.send_data(Bytes::new(), true)?)
    }

    /// The next bytes; `None` at the clean end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, h2::Error> {
        let Some(piece) = self.recv.data().await else {
            return Ok(None);
        };
        let piece = piece?;
        self.recv.flow_control().release_capacity(piece.len())?;
        Ok(Some(piece))
    }

    /// Reads at least `len` bytes.
    pub async fn read_at_least(&mut self, len: usize) -> Result<Vec<u8>> {
        let mut got = Vec::new();
        while got.len() < len {
            match self.next().await? {
                Some(piece) => got.extend_from_slice(&piece),
                None => bail!("the tunnel ended after {} of {len} bytes", got.len()),
            }
        }
        Ok(got)
    }

    /// Reads until the end, and tells how it ended.
    pub async fn read_to_end(&mut self) -> (Vec<u8>, End) {
        let mut got = Vec::new();
        loop {
            match self.next().await {
                Ok(Some(piece)) => got.extend_from_slice(&piece),
                Ok(None) => return (got, End::Clean),
                Err(error) => return (got, End::Reset(error.reason().map(u32::from))),
            }
        }
    }
}
