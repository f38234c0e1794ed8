//! Envoy, module, dialer and connector on a configuration written by hand: the
//! data path alone. The same clients and services as in `plain_envoy.rs`, so what
//! passes there and fails here is the module's, the dialer's or the connector's.

use std::time::Duration;

use adit_tests::{
    bare::{self, Dialer, Route},
    client::{
        connect::{self, End},
        grpc,
        http::{Client, get},
        patiently, ws,
    },
    connector::Connector,
    keys::Key,
    on_each_envoy,
    pattern::{Pattern, sha256},
    services::{
        grpc::Note,
        http::HttpService,
        nobody,
        tcp::{Manner, TcpService, closing_line},
    },
};
use anyhow::Result;
use futures_util::{SinkExt, StreamExt, stream};
use tokio::io::AsyncWriteExt;

on_each_envoy!(every_client_reaches_every_service_through_the_tunnel);

async fn every_client_reaches_every_service_through_the_tunnel(version: &str) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let web = HttpService::start()?;
    let echo = TcpService::start(Manner::Echo)?;
    let rude = TcpService::start(Manner::Resets)?;
    let closed = nobody()?;
    let dialer_key = Key::new(dir.path(), "dialer")?;
    let targets = [web.addr, echo.addr, rude.addr, closed].map(|addr| addr.to_string());
    let mut edge = Connector::new(dir.path(), "edge", &[&dialer_key.id], &targets)?;
    edge.start().await?;
    let hints = [(edge.key.id.as_str(), edge.bound().await?[0])];
    let dialer = Dialer::start(dir.path(), &dialer_key, &hints, &[]).await?;
    let to = |service: String| bare::target(&[&edge.key.id], &service, Duration::from_secs(5));
    let route = |name, target, h2, connect| Route {
        name,
        target,
        h2,
        connect,
    };
    let envoy = bare::envoy(
        version,
        dir.path(),
        &dialer.socket,
        &[
            route("web", to(web.addr.to_string())?, false, false),
            route("h2", to(web.addr.to_string())?, true, false),
            route("echo", to(echo.addr.to_string())?, false, true),
            route("rude", to(rude.addr.to_string())?, false, true),
            route("closed", to(closed.to_string())?, false, false),
            route("denied", to("127.0.0.1:9".to_owned())?, false, false),
        ],
    )
    .await?;
    let addr = envoy.listener("main").await?;
    let authority =
        |name: &str, service: std::net::SocketAddr| format!("{name}.test:{}", service.port());

    let all = async {
        let mut h1 = Client::http1(addr, "web.test").await?;
        let answer = h1.get("/echo?x=1").await?;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.json()?["path"], "/echo?x=1");
        h1.upload(7, 3 << 20).await?;
        let got = h1.download("/download?bytes=3000000&seed=9").await?;
        assert_eq!(
            (got.len, got.sha256),
            (3_000_000, Pattern::sha256(9, 3_000_000))
        );

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
        let mut chat = stub
            .chat(stream::iter([note("x"), note("y")]))
            .await?
            .into_inner();
        assert_eq!(chat.message().await?, Some(note("x")));
        assert_eq!(chat.message().await?, Some(note("y")));
        assert_eq!(chat.message().await?, None);

        let mut tunnel = connect::http1(addr, &authority("echo", echo.addr), b"early").await?;
        assert_eq!(tunnel.status, 200);
        assert_eq!(tunnel.read_exact(5).await?, b"early");
        tunnel.tcp.write_all(b"more").await?;
        assert_eq!(tunnel.read_exact(4).await?, b"more");

        let h2c = connect::Http2::connect(addr).await?;
        let mut tunnel = h2c.tunnel(&authority("echo", echo.addr)).await?;
        assert_eq!(tunnel.status, 200);
        tunnel.send("whole").await?;
        tunnel.finish()?;
        let (got, end) = tunnel.read_to_end().await;
        let expected = format!("whole{}", closing_line(5, &sha256(b"whole")));
        assert_eq!((String::from_utf8(got)?, end), (expected, End::Clean));

        let mut tunnel = h2c.tunnel(&authority("rude", rude.addr)).await?;
        tunnel.send("x").await?;
        let (got, end) = tunnel.read_to_end().await;
        assert_eq!(String::from_utf8(got)?, "banner\n");
        assert!(matches!(end, End::Reset(_)), "{end:?}");

        assert_eq!(get(addr, "closed.test", "/").await?.status, 502);
        assert_eq!(get(addr, "denied.test", "/").await?.status, 502);
        Ok(())
    };
    patiently("every client", all).await?;
    Ok(())
}
