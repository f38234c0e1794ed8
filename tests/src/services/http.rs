//! An HTTP service: HTTP/1.1 and HTTP/2 without TLS on one port, or with TLS.
//!
//! | path | answer |
//! |---|---|
//! | `/echo` | the request as it arrived, as JSON |
//! | `/hash` | SHA-256 and length of the body |
//! | `/download?bytes=N&seed=S` | a [`Pattern`] |
//! | `/sse?events=N&gap=MS` | server-sent events |
//! | `/slow?ms=N` | `slow`, later |
//! | `/drip?pieces=N&gap=MS` | one piece at a time |
//! | `/status?code=N` | that status |
//! | `/ws` | a WebSocket that echoes |
//! | `/adit.test.Echo/*` | gRPC, see [`super::grpc`] |

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Result;
use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{RawQuery, Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{any, get},
};
use futures_util::{StreamExt, stream};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

use super::{Received, Record, any_port, grpc, listen, websocket};
use crate::pattern::{Hasher, Pattern};

/// A running service; dropping it closes the listener and every connection.
pub struct HttpService {
    /// Where it listens.
    pub addr: SocketAddr,
    /// What it saw.
    pub record: Arc<Record>,
    _task: AbortOnDropHandle<()>,
}

impl HttpService {
    /// Starts one on a free port.
    pub fn start() -> Result<Self> {
        Self::start_at(any_port(), None)
    }

    /// Starts one that speaks TLS on a free port.
    pub fn start_tls(tls: Arc<rustls::ServerConfig>) -> Result<Self> {
        Self::start_at(any_port(), Some(tls))
    }

    /// Starts one at an address, where another may have been.
    pub fn start_at(addr: SocketAddr, tls: Option<Arc<rustls::ServerConfig>>) -> Result<Self> {
        let listener = listen(addr)?;
        let addr = listener.local_addr()?;
        let record = Arc::new(Record::default());
        let router = router(record.clone());
        let acceptor = tls.map(TlsAcceptor::from);
        let counted = record.clone();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                while connections.try_join_next().is_some() {}
                let Ok((tcp, _)) = listener.accept().await else {
                    continue;
                };
                let _ = tcp.set_nodelay(true);
                let (router, acceptor) = (router.clone(), acceptor.clone());
                let open = counted.connection();
                connections.spawn(async move {
                    let _open = open;
                    match acceptor {
                        None => serve(tcp, router).await,
                        Some(acceptor) => {
                            if let Ok(tls) = acceptor.accept(tcp).await {
                                serve(tls, router).await;
                            }
                        }
                    }
                });
            }
        });
        Ok(Self {
            addr,
            record,
            _task: AbortOnDropHandle::new(task),
        })
    }
}

async fn serve<S>(io: S, router: Router)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let mut router = router.clone();
        async move {
            let request = request.map(Body::new);
            Ok::<_, Infallible>(tower_call(&mut router, request).await)
        }
    });
    let mut builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    builder.http2().max_concurrent_streams(1000);
    let _ = builder
        .serve_connection_with_upgrades(TokioIo::new(io), service)
        .await;
}

/// The router's answer; a [`Router`] cannot fail.
async fn tower_call(router: &mut Router, request: Request) -> Response {
    use tonic::codegen::Service;
    match router.call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

fn router(record: Arc<Record>) -> Router {
    Router::new()
        .route("/echo", any(echo))
        .route("/hash", any(hash))
        .route("/download", get(download))
        .route("/sse", get(sse))
        .route("/slow", any(slow))
        .route("/drip", get(drip))
        .route("/status", any(status))
        .route("/ws", any(websocket::serve))
        .route("/adit.test.Echo/{method}", any(grpc::serve))
        .fallback(any(echo))
        .layer(axum::middleware::from_fn_with_state(record, keep))
}

/// Records the request before it is answered.
async fn keep(
    State(record): State<Arc<Record>>,
    request: Request,
    next: axum::middleware::Next,
) -> Response {
    record.push(received(&request));
    next.run(request).await
}

fn received(request: &Request) -> Received {
    let text = |value: &header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers = request.headers().iter();
    Received {
        version: format!("{:?}", request.version()),
        method: request.method().to_string(),
        path: request
            .uri()
            .path_and_query()
            .map_or_else(String::new, ToString::to_string),
        headers: headers
            .map(|(name, value)| (name.to_string(), text(value)))
            .collect(),
    }
}

async fn echo(request: Request) -> Json<serde_json::Value> {
    let got = received(&request);
    Json(json!({
        "version": got.version,
        "method": got.method,
        "path": got.path,
        "host": request.uri().authority().map(ToString::to_string)
            .or_else(|| got.header("host").map(str::to_owned)),
        "headers": got.headers,
    }))
}

async fn hash(request: Request) -> Result<String, StatusCode> {
    let mut body = request.into_body().into_data_stream();
    let mut hasher = Hasher::default();
    while let Some(piece) = body.next().await {
        hasher.update(&piece.map_err(|_| StatusCode::BAD_REQUEST)?);
    }
    let len = hasher.len();
    Ok(format!("{} {len}", hasher.finish()))
}

/// A number of the query, as in `?ms=100`.
fn parameter(query: &RawQuery, name: &str, default: u64) -> u64 {
    let query = query.0.as_deref().unwrap_or_default();
    url::form_urlencoded::parse(query.as_bytes())
        .find(|(key, _)| key == name)
        .and_then(|(_, value)| value.parse().ok())
        .unwrap_or(default)
}

async fn download(query: RawQuery) -> impl IntoResponse {
    let bytes = parameter(&query, "bytes", 1024);
    let pattern = Pattern::new(parameter(&query, "seed", 1));
    let pieces = stream::unfold((pattern, bytes), |(mut pattern, left)| async move {
        (left > 0).then(|| {
            let piece = pattern.next_piece(left);
            let left = left - piece.len() as u64;
            (Ok::<_, Infallible>(piece), (pattern, left))
        })
    });
    (
        [(header::CONTENT_LENGTH, bytes.to_string())],
        Body::from_stream(pieces),
    )
}

/// `count` pieces with a gap before each but the first.
fn paced(count: u64, gap: u64, piece: fn(u64) -> String) -> Body {
    let gap = Duration::from_millis(gap);
    Body::from_stream(stream::unfold(0, move |i| async move {
        if i == count {
            return None;
        }
        if i > 0 {
            tokio::time::sleep(gap).await;
        }
        Some((Ok::<_, Infallible>(Bytes::from(piece(i))), i + 1))
    }))
}

async fn sse(query: RawQuery) -> impl IntoResponse {
    let (events, gap) = (
        parameter(&query, "events", 3),
        parameter(&query, "gap", 100),
    );
    (
        [(header::CONTENT_TYPE, "text/event-stream")],
        paced(events, gap, |i| format!("id: {i}\ndata: event {i}\n\n")),
    )
}

async fn drip(query: RawQuery) -> Body {
    let (pieces, gap) = (
        parameter(&query, "pieces", 10),
        parameter(&query, "gap", 100),
    );
    paced(pieces, gap, |i| format!("piece {i}\n"))
}

async fn slow(query: RawQuery) -> &'static str {
    tokio::time::sleep(Duration::from_millis(parameter(&query, "ms", 1000))).await;
    "slow"
}

async fn status(query: RawQuery) -> StatusCode {
    u16::try_from(parameter(&query, "code", 200))
        .ok()
        .and_then(|code| StatusCode::from_u16(code).ok())
        .unwrap_or(StatusCode::BAD_REQUEST)
}
