//! What goes wrong beyond Envoy, one thing at a time. The configuration is
//! written by hand, so there is no retry that could hide a failure.
//!
//! | who | how |
//! |---|---|
//! | connector | unknown id, wrong protocol, another key at its address, garbage, half an answer, an endless answer, slow, silent, hangs up |
//! | service | closes first, resets, never reads, is not there |
//! | client | sends before the 200, leaves while waiting, while uploading, while downloading, in a tunnel |

use std::{
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use adit_tests::{
    bare::{self, Dialer, Route},
    client::{
        connect::{self, End},
        http::{Client, empty, get, pattern},
        patiently,
    },
    connector::Connector,
    envoy::Envoy,
    fake_connector::{Asked, FakeConnector},
    keys::Key,
    on_each_envoy,
    process::until,
    services::{
        http::HttpService,
        nobody,
        tcp::{Manner, TcpService},
    },
};
use adit_wire::connect::encode_answer;
use anyhow::{Context, Result};
use bytes::Bytes;
use futures_util::future::join_all;
use http::Method;
use tokio::{io::AsyncWriteExt, net::TcpStream};

on_each_envoy!(
    a_connector_that_misbehaves_is_a_clear_failure_of_its_own_routes_only,
    a_service_that_ends_badly_ends_its_tunnel_the_same_way,
    a_service_that_never_reads_holds_back_its_own_stream_only,
    early_data_waits_for_the_verdict_and_arrives_in_order,
    a_client_that_leaves_is_noticed_at_the_service_at_each_stage,
);

const DEADLINE: Duration = Duration::from_secs(2);

/// One fake connector and what its route must answer.
struct Fake {
    name: &'static str,
    fake: FakeConnector,
    class: &'static str,
}

async fn fakes() -> Result<Vec<Fake>> {
    let mut all = Vec::new();
    let mut add = |name, class, fake| all.push(Fake { name, fake, class });
    add(
        "garbage",
        "internal",
        FakeConnector::start(async |mut asked: Asked| {
            asked.send.write_all(&[0xff; 512]).await?;
            asked.recv.read_to_end(1 << 20).await?;
            Ok(())
        })
        .await?,
    );
    add(
        "half",
        "internal",
        FakeConnector::start(async |mut asked: Asked| {
            asked.send.write_all(b"HTTP/1.1 200 Conn").await?;
            asked.send.finish()?;
            asked.recv.read_to_end(1 << 20).await?;
            Ok(())
        })
        .await?,
    );
    add(
        "endless",
        "internal",
        FakeConnector::start(async |mut asked: Asked| {
            asked.send.write_all(b"HTTP/1.1 200 OK\r\nx: ").await?;
            while asked.send.write_all(&[b'x'; 1000]).await.is_ok() {}
            Ok(())
        })
        .await?,
    );
    add(
        "hangs-up",
        "internal",
        FakeConnector::start(async |mut asked: Asked| {
            asked.send.reset(7_u8.into())?;
            asked.recv.stop(7_u8.into())?;
            Ok(())
        })
        .await?,
    );
    add(
        "silent",
        "timeout",
        FakeConnector::start(async |asked: Asked| {
            let _held = asked;
            std::future::pending().await
        })
        .await?,
    );
    add(
        "slow",
        "ok",
        FakeConnector::start(async |asked: Asked| {
            tokio::time::sleep(DEADLINE / 4).await;
            asked.serve().await
        })
        .await?,
    );
    add(
        "other-alpn",
        "offline",
        FakeConnector::start_with_alpn(b"h3", Asked::serve).await?,
    );
    Ok(all)
}

async fn a_connector_that_misbehaves_is_a_clear_failure_of_its_own_routes_only(
    version: &str,
) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let fakes = fakes().await?;
    let unknown = Key::new(dir.path(), "unknown")?;
    let stolen = Key::new(dir.path(), "stolen")?;
    let good = FakeConnector::start(Asked::serve).await?;
    let key = Key::new(dir.path(), "dialer")?;
    let mut hints: Vec<_> = fakes
        .iter()
        .map(|f| (f.fake.id.as_str(), f.fake.addr))
        .collect();
    hints.push((&good.id, good.addr));
    // At this address another key answers.
    hints.push((&stolen.id, good.addr));
    let dialer = Dialer::start(dir.path(), &key, &hints, &[]).await?;

    let mut expected: Vec<(&str, &str)> = fakes.iter().map(|f| (f.name, f.class)).collect();
    let mut routes = Vec::new();
    let mut add = |name, id: &str| {
        let target = bare::target(&[id], "service.internal.test:80", DEADLINE)?;
        routes.push(route(name, target, false));
        anyhow::Ok(())
    };
    for fake in &fakes {
        add(fake.name, &fake.fake.id)?;
    }
    for (name, id, class) in [
        ("unknown", &unknown.id, "offline"),
        ("stolen", &stolen.id, "offline"),
        ("good", &good.id, "ok"),
    ] {
        add(name, id)?;
        expected.push((name, class));
    }
    let envoy = bare::envoy(version, dir.path(), &dialer.socket, &routes).await?;
    let addr = envoy.listener("main").await?;

    let asked = expected.iter().map(|(name, class)| async move {
        let begun = Instant::now();
        let host = format!("{name}.test");
        let answer = patiently(name, get(addr, &host, "/")).await?;
        println!("{name}: {} after {:?}", answer.status, begun.elapsed());
        let text = answer.text();
        let status = match *class {
            "ok" => 200,
            "timeout" => 504,
            _ => 503,
        };
        assert_eq!(answer.status, status, "{name}: {text}");
        if *class != "ok" {
            assert!(text.contains(class), "{name} is not {class}: {text}");
        }
        assert!(!text.contains("internal.test"), "{name} tells: {text}");
        let retry = answer.header("retry-after").is_some();
        assert_eq!(retry, *class == "offline", "{name}");
        anyhow::Ok(())
    });
    for result in join_all(asked).await {
        result?;
    }
    assert_eq!(get(addr, "good.test", "/").await?.text(), "fake\n");
    Ok(())
}

fn route(name: &'static str, target: adit_wire::Target, connect: bool) -> Route {
    Route {
        name,
        target,
        h2: false,
        connect,
    }
}

/// A real connector before these services, a dialer, and Envoy.
struct Bench {
    envoy: Envoy,
    addr: SocketAddr,
    dialer: Dialer,
    _edge: Connector,
}

async fn bench(
    version: &str,
    dir: &Path,
    services: &[(&'static str, SocketAddr, bool)],
) -> Result<Bench> {
    let key = Key::new(dir, "dialer")?;
    let targets: Vec<_> = services
        .iter()
        .map(|(_, addr, _)| addr.to_string())
        .collect();
    let mut edge = Connector::new(dir, "edge", &[&key.id], &targets)?;
    edge.start().await?;
    let hints = [(edge.key.id.as_str(), edge.bound().await?[0])];
    let dialer = Dialer::start(dir, &key, &hints, &[]).await?;
    let mut routes = Vec::new();
    for (name, addr, connect) in services {
        let target = bare::target(&[&edge.key.id], &addr.to_string(), DEADLINE)?;
        routes.push(route(name, target, *connect));
    }
    let envoy = bare::envoy(version, dir, &dialer.socket, &routes).await?;
    let addr = envoy.listener("main").await?;
    Ok(Bench {
        envoy,
        addr,
        dialer,
        _edge: edge,
    })
}

fn authority(name: &str, service: SocketAddr) -> String {
    format!("{name}.test:{}", service.port())
}

async fn a_service_that_ends_badly_ends_its_tunnel_the_same_way(version: &str) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let first = TcpService::start(Manner::ClosesFirst)?;
    let resets = TcpService::start(Manner::Resets)?;
    let absent = nobody()?;
    let services = [
        ("first", first.addr, true),
        ("resets", resets.addr, true),
        ("absent", absent, true),
        ("web", resets.addr, false),
    ];
    let bench = bench(version, dir.path(), &services).await?;
    let client = connect::Http2::connect(bench.addr).await?;

    let mut tunnel = client.tunnel(&authority("first", first.addr)).await?;
    let (got, end) = patiently("the banner", async { Ok(tunnel.read_to_end().await) }).await?;
    assert_eq!((got.as_slice(), end), (&b"banner\n"[..], End::Clean));

    let mut tunnel = client.tunnel(&authority("resets", resets.addr)).await?;
    tunnel.send("x").await?;
    let (got, end) = patiently("the reset", async { Ok(tunnel.read_to_end().await) }).await?;
    assert_eq!(got, b"banner\n");
    assert!(matches!(end, End::Reset(_)), "{end:?}");

    let tunnel = client.tunnel(&authority("absent", absent)).await?;
    assert_eq!(tunnel.status, 502);

    // The connect succeeded, so this is Envoy's business: no answer of ours.
    let answer = get(bench.addr, "web.test", "/").await?;
    assert!(answer.status.is_server_error(), "{}", answer.status);
    Ok(())
}

async fn a_service_that_never_reads_holds_back_its_own_stream_only(version: &str) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let never = TcpService::start(Manner::NeverReads)?;
    let web = HttpService::start()?;
    let services = [("never", never.addr, true), ("web", web.addr, false)];
    let bench = bench(version, dir.path(), &services).await?;
    let client = connect::Http2::connect(bench.addr).await?;
    let mut stalled = Vec::new();
    for _ in 0..8 {
        let mut tunnel = client.tunnel(&authority("never", never.addr)).await?;
        assert_eq!(tunnel.status, 200);
        stalled.push(tokio::spawn(async move {
            let piece = Bytes::from(vec![0; 64 * 1024]);
            let mut sent = 0_u64;
            // Until nothing is taken any more for a while.
            while let Ok(done) =
                tokio::time::timeout(Duration::from_secs(2), tunnel.send(piece.clone())).await
            {
                done?;
                sent += piece.len() as u64;
                anyhow::ensure!(sent < 1 << 30, "1 GiB was taken by nobody");
            }
            anyhow::Ok((sent, tunnel))
        }));
    }
    let mut held = Vec::new();
    for task in stalled {
        held.push(task.await??);
    }
    let sent: Vec<_> = held.iter().map(|(sent, _)| sent / 1024).collect();
    println!("KiB taken by a service that never reads: {sent:?}");
    // Their sibling on the same iroh connection is not held back.
    let mut web_client = Client::http1(bench.addr, "web.test").await?;
    patiently("an upload beside", web_client.upload(1, 16 << 20)).await?;
    let rss = bench.dialer.process.rss()?;
    println!("dialer's RSS with 8 stalled streams: {} MiB", rss >> 20);
    assert!(rss < 200 << 20, "{rss}");
    Ok(())
}

async fn early_data_waits_for_the_verdict_and_arrives_in_order(version: &str) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let slow = FakeConnector::start(async |mut asked: Asked| {
        // The head of the request, then the verdict, then an echo.
        let mut head = vec![0; 4096];
        let n = asked.recv.read(&mut head).await?.context("a request")?;
        let head = String::from_utf8_lossy(&head[..n]).into_owned();
        let early = head
            .split_once("\r\n\r\n")
            .map_or(0, |(_, rest)| rest.len());
        tokio::time::sleep(Duration::from_millis(500)).await;
        asked.send.write_all(&encode_answer(Ok(()))).await?;
        asked.send.write_all(format!("{early};").as_bytes()).await?;
        while let Some(piece) = asked.recv.read_chunk(64 * 1024).await? {
            asked.send.write_all(&piece).await?;
        }
        asked.send.finish()?;
        Ok(())
    })
    .await?;
    let key = Key::new(dir.path(), "dialer")?;
    let hints = [(slow.id.as_str(), slow.addr)];
    let dialer = Dialer::start(dir.path(), &key, &hints, &[]).await?;
    let target = bare::target(&[&slow.id], "service.internal.test:22", DEADLINE)?;
    let routes = [route("slow", target, true)];
    let envoy = bare::envoy(version, dir.path(), &dialer.socket, &routes).await?;
    let addr = envoy.listener("main").await?;
    let early: Vec<u8> = (0..30_000_u32).flat_map(u32::to_be_bytes).collect();

    // HTTP/1.1.
    let mut tunnel = connect::http1(addr, "slow.test:22", &early).await?;
    assert_eq!(tunnel.status, 200);
    let got = patiently("the echo", tunnel.read_exact(early.len() + 2)).await?;
    assert_eq!(&got[..2], b"0;", "bytes left before the verdict");
    assert!(got[2..] == early, "early data was changed");

    // HTTP/2.
    let client = connect::Http2::connect(addr).await?;
    let (answer, mut send) = client.ask("slow.test:22").await?;
    connect::send(&mut send, Bytes::from(early.clone())).await?;
    send.send_data(Bytes::new(), true)?;
    let response = answer.await?;
    assert_eq!(response.status(), 200);
    let mut tunnel = connect::Http2Tunnel {
        status: response.status(),
        headers: response.headers().clone(),
        recv: response.into_body(),
        send,
    };
    let (got, end) = patiently("the echo", async { Ok(tunnel.read_to_end().await) }).await?;
    assert_eq!(end, End::Clean);
    assert!(
        got[..2] == *b"0;" && got[2..] == early,
        "early data was changed"
    );
    Ok(())
}

async fn a_client_that_leaves_is_noticed_at_the_service_at_each_stage(version: &str) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let web = HttpService::start()?;
    let echo = TcpService::start(Manner::Echo)?;
    let never = TcpService::start(Manner::NeverReads)?;
    let services = [
        ("web", web.addr, false),
        ("echo", echo.addr, true),
        ("never", never.addr, true),
    ];
    let bench = bench(version, dir.path(), &services).await?;
    let addr = bench.addr;

    // Half a request.
    let mut tcp = TcpStream::connect(addr).await?;
    tcp.write_all(b"GET / HTTP/1.1\r\nHost: web.te").await?;
    drop(tcp);
    // A request, and gone before any answer.
    let mut tcp = TcpStream::connect(addr).await?;
    tcp.write_all(b"GET /slow?ms=300 HTTP/1.1\r\nHost: web.test\r\n\r\n")
        .await?;
    drop(tcp);
    // CONNECT, and gone before the 200.
    let mut tcp = TcpStream::connect(addr).await?;
    let ask = format!("CONNECT {} HTTP/1.1\r\n\r\n", authority("echo", echo.addr));
    tcp.write_all(ask.as_bytes()).await?;
    drop(tcp);
    // In the middle of an upload.
    {
        let mut client = Client::http1(addr, "web.test").await?;
        let length = [("content-length", "100000000")];
        let body = pattern(1, 100_000_000);
        let upload = client.open(Method::POST, "/hash", &length, body);
        let _ = tokio::time::timeout(Duration::from_millis(100), upload).await;
    }
    // In the middle of a download.
    {
        let mut client = Client::http1(addr, "web.test").await?;
        let path = "/download?bytes=1000000000";
        let response = client.open(Method::GET, path, &[], empty()).await?;
        assert_eq!(response.status(), 200);
    }
    // In a tunnel that flows, and in one whose service does not read.
    for (name, service) in [("echo", &echo), ("never", &never)] {
        let authority = authority(name, service.addr);
        let mut tunnel = connect::http1(addr, &authority, b"hello").await?;
        assert_eq!(tunnel.status, 200);
        if name == "echo" {
            assert_eq!(tunnel.read_exact(5).await?, b"hello");
        }
        let client = connect::Http2::connect(addr).await?;
        let tunnel = client.tunnel(&authority).await?;
        assert_eq!(tunnel.status, 200);
    }
    // Envoy does not take back a connect whose client has left: that one
    // connection stays in its pool, unused, until its idle timeout.
    until("end of the tunnels at the services", async || {
        let pooled = bench
            .envoy
            .stat("cluster.echo.upstream_cx_active")
            .await
            .ok()?;
        let open = echo.record.open() as u64;
        (open <= pooled && pooled <= 1 && never.record.open() == 0).then_some(())
    })
    .await?;
    // Idle keep-alive connections of Envoy's pool may stay; nothing else.
    until("end of cut requests at the service", async || {
        let idle = bench
            .envoy
            .stat("cluster.web.upstream_cx_active")
            .await
            .ok()?;
        (web.record.open() as u64 <= idle && idle <= 4).then_some(())
    })
    .await?;
    let streams = bench.dialer.admin.json("/status").await?["streams"].clone();
    println!("streams left in the dialer: {streams}");
    assert_eq!(get(addr, "web.test", "/echo").await?.status, 200);
    assert!(web.record.connections() > 0 && echo.record.connections() >= 2);
    Ok(())
}
