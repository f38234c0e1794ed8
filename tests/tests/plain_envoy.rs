//! The stage itself, without Adit: every client against every service through a
//! plain Envoy. What fails here is no fault of Adit's, and what passes here and
//! fails in another file is.
//!
//! | client \ service | HTTP/1.1 | HTTP/2 | TCP |
//! |---|---|---|---|
//! | HTTP/1.1 | echo, upload, download, sse, websocket | echo | CONNECT |
//! | HTTP/2 | echo, upload | gRPC | CONNECT with half-close, reset |

use adit_tests::{
    client::{
        connect::{self, End},
        grpc,
        http::Client,
        patiently, ws,
    },
    envoy::{self, Envoy},
    on_each_envoy,
    pattern::{Pattern, sha256},
    services::{
        grpc::{FAILURE, Note},
        http::HttpService,
        tcp::{Manner, TcpService, closing_line},
    },
};
use anyhow::Result;
use futures_util::{SinkExt, StreamExt, stream};
use serde_json::json;
use tokio::io::AsyncWriteExt;

on_each_envoy!(every_client_reaches_every_service);

async fn every_client_reaches_every_service(version: &str) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let web = HttpService::start()?;
    let echo = TcpService::start(Manner::Echo)?;
    let rude = TcpService::start(Manner::Resets)?;
    let hosts = json!([
        envoy::virtual_host("web", &["web.test"], &[envoy::prefix_route("web")]),
        envoy::virtual_host("h2", &["h2.test"], &[envoy::prefix_route("h2")]),
        envoy::virtual_host("echo", &["echo.test"], &[envoy::connect_route("echo")]),
        envoy::virtual_host("rude", &["rude.test"], &[envoy::connect_route("rude")]),
    ]);
    let resources = json!({
        "listeners": [envoy::http_listener("main", &hosts, &[])],
        "clusters": [
            envoy::tcp_cluster("web", web.addr, false),
            envoy::tcp_cluster("h2", web.addr, true),
            envoy::tcp_cluster("echo", echo.addr, false),
            envoy::tcp_cluster("rude", rude.addr, false),
        ],
    });
    let envoy = Envoy::start(version, dir.path(), 2, &resources).await?;
    let addr = envoy.listener("main").await?;

    let all = async {
        let mut h1 = Client::http1(addr, "web.test").await?;
        let answer = h1.get("/echo?x=1").await?;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.json()?["path"], "/echo?x=1");
        h1.upload(7, 3 << 20).await?;
        let got = h1.download("/download?bytes=3000000&seed=9").await?;
        assert_eq!(
            (got.len, got.sha256),
            (3_000_000, Pattern::sha256(9, 3_000_000))
        );
        let events = h1.get("/sse?events=3&gap=10").await?;
        assert_eq!(events.text().matches("data: event").count(), 3);

        let mut h2 = Client::http2(addr, "h2.test").await?;
        assert_eq!(h2.get("/echo").await?.json()?["version"], "HTTP/2.0");
        h2.upload(8, 3 << 20).await?;

        let mut socket = ws::open(addr, "web.test").await?;
        socket.send("hello".into()).await?;
        let back = socket.next().await.expect("an answer")?;
        assert_eq!(back.into_text()?.as_str(), "hello");

        let mut stub = grpc::Client::connect(addr, "h2.test").await?;
        let note = |text: &str| Note {
            text: text.into(),
            number: 5,
        };
        assert_eq!(stub.unary(note("a")).await?.into_inner(), note("a"));
        let failed = stub.unary(note("fail")).await.expect_err("a failure");
        assert_eq!(
            (failed.code(), failed.message()),
            (tonic::Code::FailedPrecondition, FAILURE)
        );
        let mut chat = stub
            .chat(stream::iter([note("x"), note("y")]))
            .await?
            .into_inner();
        assert_eq!(chat.message().await?, Some(note("x")));
        assert_eq!(chat.message().await?, Some(note("y")));
        assert_eq!(chat.message().await?, None);

        let mut tunnel = connect::http1(addr, "echo.test:80", b"early").await?;
        assert_eq!(tunnel.status, 200);
        assert_eq!(tunnel.read_exact(5).await?, b"early");
        tunnel.tcp.write_all(b"more").await?;
        assert_eq!(tunnel.read_exact(4).await?, b"more");

        let h2c = connect::Http2::connect(addr).await?;
        let mut tunnel = h2c.tunnel("echo.test:80").await?;
        assert_eq!(tunnel.status, 200);
        tunnel.send("whole").await?;
        tunnel.finish()?;
        let (got, end) = tunnel.read_to_end().await;
        let expected = format!("whole{}", closing_line(5, &sha256(b"whole")));
        assert_eq!((String::from_utf8(got)?, end), (expected, End::Clean));

        let mut tunnel = h2c.tunnel("rude.test:80").await?;
        tunnel.send("x").await?;
        let (got, end) = tunnel.read_to_end().await;
        assert_eq!(got, b"banner\n");
        assert!(matches!(end, End::Reset(_)), "{end:?}");
        Ok(())
    };
    patiently("every client", all).await?;
    assert_eq!(envoy.stat("cluster.web.upstream_cx_none_healthy").await?, 0);
    Ok(())
}
