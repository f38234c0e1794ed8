//! The service at the end of every path, in a process of its own: HTTP/1.1,
//! HTTP/2 without TLS, gRPC and WebSocket on one port. Its bodies are made
//! once, and it keeps nothing.

use std::{convert::Infallible, net::SocketAddr};

use adit_tests::services::{grpc, websocket};
use anyhow::{Context as _, Result};
use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::net::TcpSocket;

/// 1 KiB.
const SMALL: [u8; 1024] = [b'k'; 1024];
/// What a large body is made of.
static PIECE: [u8; 64 * 1024] = [b'd'; 64 * 1024];
/// More than any load opens at once.
const BACKLOG: u32 = 4096;

/// Serves for ever.
pub async fn run(listen: SocketAddr) -> Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket
        .bind(listen)
        .with_context(|| format!("listen on {listen}"))?;
    let listener = socket.listen(BACKLOG)?;
    loop {
        let Ok((tcp, _)) = listener.accept().await else {
            continue;
        };
        let _ = tcp.set_nodelay(true);
        tokio::spawn(async move {
            let answer = service_fn(|request| async { Ok::<_, Infallible>(answer(request).await) });
            let mut builder = auto::Builder::new(TokioExecutor::new());
            builder
                .http2()
                .max_concurrent_streams(1000)
                .initial_stream_window_size(1024 * 1024)
                .initial_connection_window_size(8 * 1024 * 1024);
            let _ = builder
                .serve_connection_with_upgrades(TokioIo::new(tcp), answer)
                .await;
        });
    }
}

async fn answer(request: Request<Incoming>) -> Response<Body> {
    match request.uri().path() {
        "/kib" => Response::new(Body::from(Bytes::from_static(&SMALL))),
        "/download" => download(request.uri().query()),
        "/upload" if request.method() == Method::POST => upload(request).await,
        "/ws" => websocket::serve(request.map(Body::new)).await,
        grpc::UNARY => grpc::serve(request.map(Body::new)).await,
        _ => status(StatusCode::NOT_FOUND),
    }
}

fn status(code: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = code;
    response
}

/// `?N`: so many bytes.
fn download(query: Option<&str>) -> Response<Body> {
    let Some(len) = query.and_then(|n| n.parse::<u64>().ok()) else {
        return status(StatusCode::BAD_REQUEST);
    };
    let pieces = stream::unfold(len, |left| async move {
        let piece = left.min(PIECE.len() as u64);
        let bytes = Bytes::from_static(&PIECE).slice(..piece as usize);
        (piece > 0).then_some((Ok::<_, Infallible>(bytes), left - piece))
    });
    let mut response = Response::new(Body::from_stream(pieces));
    response
        .headers_mut()
        .insert(header::CONTENT_LENGTH, len.into());
    response
}

/// Answers with the number of bytes that came.
async fn upload(request: Request<Incoming>) -> Response<Body> {
    let mut body = request.into_body();
    let mut got = 0;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return status(StatusCode::BAD_REQUEST);
        };
        got += frame.data_ref().map_or(0, Bytes::len);
    }
    Response::new(Body::from(got.to_string()))
}
