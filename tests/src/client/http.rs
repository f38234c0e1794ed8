//! HTTP/1.1 and HTTP/2 without TLS, one connection at a time.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures_util::{TryStreamExt, stream};
use http::{HeaderMap, Method, Request, StatusCode, Version};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Frame, Incoming},
    client::conn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio_util::task::AbortOnDropHandle;

use super::dial;
use crate::pattern::{Hasher, Pattern};

/// A request body.
pub type Body = BoxBody<Bytes, std::io::Error>;

/// One connection to Envoy; it is kept alive and used again.
pub struct Client {
    sender: Sender,
    host: String,
    _connection: AbortOnDropHandle<()>,
}

enum Sender {
    Http1(conn::http1::SendRequest<Body>),
    Http2(conn::http2::SendRequest<Body>),
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// HTTP version.
    pub version: Version,
    /// The header fields.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header field as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body as JSON.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("JSON: {}", self.text()))
    }
}

/// What a download was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Downloaded {
    /// The status.
    pub status: StatusCode,
    /// How many bytes came.
    pub len: u64,
    /// Their SHA-256.
    pub sha256: String,
}

/// No body.
pub fn empty() -> Body {
    full(Bytes::new())
}

/// These bytes as a body.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed()
}

/// A [`Pattern`] of `len` bytes as a body, made while it is sent.
pub fn pattern(seed: u64, len: u64) -> Body {
    let pieces = stream::unfold(
        (Pattern::new(seed), len),
        |(mut pattern, left)| async move {
            (left > 0).then(|| {
                let piece = pattern.next_piece(left);
                let left = left - piece.len() as u64;
                (Ok(Frame::data(piece)), (pattern, left))
            })
        },
    );
    BodyExt::boxed(StreamBody::new(Box::pin(pieces)))
}

impl Client {
    /// An HTTP/1.1 connection; requests carry this host.
    pub async fn http1(addr: SocketAddr, host: &str) -> Result<Self> {
        let (sender, connection) = conn::http1::handshake(TokioIo::new(dial(addr).await?)).await?;
        let task = tokio::spawn(async move {
            let _ = connection.with_upgrades().await;
        });
        Ok(Self {
            sender: Sender::Http1(sender),
            host: host.to_owned(),
            _connection: AbortOnDropHandle::new(task),
        })
    }

    /// An HTTP/2 connection with prior knowledge.
    pub async fn http2(addr: SocketAddr, host: &str) -> Result<Self> {
        let io = TokioIo::new(dial(addr).await?);
        let (sender, connection) = conn::http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(1024 * 1024)
            .initial_connection_window_size(8 * 1024 * 1024)
            .handshake(io)
            .await?;
        let task = tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(Self {
            sender: Sender::Http2(sender),
            host: host.to_owned(),
            _connection: AbortOnDropHandle::new(task),
        })
    }

    /// Whether the connection stands, as far as is known.
    pub fn is_open(&self) -> bool {
        match &self.sender {
            Sender::Http1(sender) => !sender.is_closed(),
            Sender::Http2(sender) => !sender.is_closed(),
        }
    }

    /// Sends a request and returns as soon as the head of the answer is there.
    pub async fn open(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Body,
    ) -> Result<http::Response<Incoming>> {
        let mut request = Request::builder().method(method);
        match &mut self.sender {
            Sender::Http1(_) => {
                request = request.uri(path).header("host", &self.host);
            }
            Sender::Http2(_) => request = request.uri(format!("http://{}{path}", self.host)),
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body)?;
        let response = match &mut self.sender {
            Sender::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
            Sender::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
        };
        Ok(response)
    }

    /// Sends a request and reads the whole answer.
    pub async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Body,
    ) -> Result<Answer> {
        let response = self.open(method, path, headers, body).await?;
        let (head, body) = response.into_parts();
        let body = body.collect().await;
        let body = body.with_context(|| format!("the body of {head:?}"))?;
        Ok(Answer {
            status: head.status,
            version: head.version,
            headers: head.headers,
            body: body.to_bytes(),
        })
    }

    /// GET.
    pub async fn get(&mut self, path: &str) -> Result<Answer> {
        self.send(Method::GET, path, &[], empty()).await
    }

    /// Downloads and hashes, keeping nothing.
    pub async fn download(&mut self, path: &str) -> Result<Downloaded> {
        let response = self.open(Method::GET, path, &[], empty()).await?;
        let status = response.status();
        let mut hasher = Hasher::default();
        let mut body = response.into_body().into_data_stream();
        while let Some(piece) = body.try_next().await.context("the answer's body")? {
            hasher.update(&piece);
        }
        Ok(Downloaded {
            status,
            len: hasher.len(),
            sha256: hasher.finish(),
        })
    }

    /// Uploads a [`Pattern`] to `/hash` and checks that the service got it all.
    pub async fn upload(&mut self, seed: u64, len: u64) -> Result<()> {
        let length = len.to_string();
        let answer = self
            .send(
                Method::POST,
                "/hash",
                &[("content-length", &length)],
                pattern(seed, len),
            )
            .await?;
        let expected = format!("{} {len}", Pattern::sha256(seed, len));
        ensure!(
            answer.status == 200 && answer.text() == expected,
            "the service answered {} {:?}, expected {expected:?}",
            answer.status,
            answer.text()
        );
        Ok(())
    }
}

/// One GET on a connection of its own.
pub async fn get(addr: SocketAddr, host: &str, path: &str) -> Result<Answer> {
    Client::http1(addr, host).await?.get(path).await
}
