//! How a connection begins and ends: the transport socket in real Envoy with a dialer that does as it is
//! told.
//!
//! | what | how |
//! |---|---|
//! | verdict | in single bytes, with the service's first bytes behind it, nonsense, cut short, none |
//! | before the verdict | nothing but the preface |
//! | ends | clean, half-closed by either side, aborted; HTTP/1.1 with each kind of length, CONNECT, WebSocket |

use std::{sync::Arc, time::Duration};

use adit_tests::{
    client::{
        connect::{self, End, Http2},
        http::{Client, empty},
        patiently, ws,
    },
    filter_stage::{FakeDialer, Opened, accepted, start_each, unchanged},
    on_each_envoy, process,
    services::http::HttpService,
};
use anyhow::{Result, bail};
use futures_util::{SinkExt, StreamExt};
use http::Method;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::Notify,
    time::timeout,
};

on_each_envoy!(
    a_verdict_is_read_exactly,
    what_is_no_verdict_is_an_internal_error,
    nothing_is_sent_before_the_verdict,
    either_side_may_end_first,
    an_abort_never_looks_like_a_clean_end,
);

async fn a_verdict_is_read_exactly(version: &str) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let _dialer = FakeDialer::start(&dir.path().join("dialer.sock"), |mut opened| async move {
        let verdict = accepted(&opened.target);
        let (last, first) = verdict.split_last().expect("not empty");
        if opened.target.name == "slow" {
            for byte in first {
                opened.stream.write_all(&[*byte]).await?;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        } else {
            opened.stream.write_all(first).await?;
        }
        // The service speaks first, in the same piece as the verdict's end.
        let rest = [&[*last][..], b"220 banner\r\n"].concat();
        opened.stream.write_all(&rest).await?;
        opened.end().await
    })?;
    let (_envoy, addr) = start_each(version, dir.path(), &["slow", "fast"], unchanged).await?;
    let h2 = Http2::connect(addr).await?;
    for name in ["slow", "fast"] {
        let authority = format!("{name}.test:7777");
        let check = async {
            let mut tunnel = connect::http1(addr, &authority, b"").await?;
            assert_eq!(tunnel.status, 200);
            assert_eq!(tunnel.read_exact(12).await?, b"220 banner\r\n");
            let mut tunnel = h2.tunnel(&authority).await?;
            assert_eq!(tunnel.status, 200);
            let (got, end) = tunnel.read_to_end().await;
            assert_eq!((&got[..], end), (&b"220 banner\r\n"[..], End::Clean));
            Ok(())
        };
        patiently(name, check).await?;
    }
    Ok(())
}

async fn what_is_no_verdict_is_an_internal_error(version: &str) -> Result<()> {
    const NAMES: [&str; 8] = [
        "closes", "ends", "http", "zero", "huge", "half", "broken", "future",
    ];
    let dir = tempfile::tempdir()?;
    let _dialer = FakeDialer::start(&dir.path().join("dialer.sock"), |mut opened| async move {
        let verdict = accepted(&opened.target);
        let bytes: &[u8] = match opened.target.name.as_str() {
            "closes" | "ends" => b"",
            "http" => b"HTTP/1.1 400 Bad Request\r\n\r\n",
            "zero" => b"\0\0",
            "huge" => b"\xff\xff\x0a",
            "half" => &verdict[..verdict.len() - 1],
            "broken" => b"\0\x04\xff\xff\xff\xff",
            // A refusal of a class that does not exist yet.
            "future" => b"\0\x08\x12\x06\x0a\x04held",
            other => bail!("no such case: {other}"),
        };
        opened.stream.write_all(bytes).await?;
        match opened.target.name.as_str() {
            "closes" | "half" => Ok(()),
            _ => opened.end().await,
        }
    })?;
    let (mut envoy, addr) = start_each(version, dir.path(), &NAMES, unchanged).await?;
    for name in NAMES {
        let mut client = Client::http1(addr, &format!("{name}.test")).await?;
        let accept = [("accept", "application/json")];
        let answer = client.send(Method::GET, "/", &accept, empty());
        let answer = patiently(name, answer).await?;
        assert_eq!(answer.status, 503, "{name}");
        assert_eq!(answer.json()?["error"], "internal", "{name}");
    }
    assert!(envoy.process.is_running());
    Ok(())
}

async fn nothing_is_sent_before_the_verdict(version: &str) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let _dialer = FakeDialer::start(&dir.path().join("dialer.sock"), |mut opened| async move {
        let early = timeout(Duration::from_millis(300), opened.stream.read_u8()).await;
        // A byte too early is answered by nothing, which fails the test.
        if early.is_ok() {
            return Ok(());
        }
        opened.accept().await?;
        let mut got = [0; 10];
        opened.stream.read_exact(&mut got).await?;
        opened.stream.write_all(&got).await?;
        opened.end().await
    })?;
    let (_envoy, addr) = start_each(version, dir.path(), &["a"], unchanged).await?;
    let check = async {
        let mut tunnel = connect::http1(addr, "a.test:7777", b"early").await?;
        assert_eq!(tunnel.status, 200);
        tunnel.tcp.write_all(b" late").await?;
        assert_eq!(tunnel.read_exact(10).await?, b"early late");
        Ok(())
    };
    patiently("early data", check).await
}

async fn either_side_may_end_first(version: &str) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let _dialer = FakeDialer::start(&dir.path().join("dialer.sock"), |mut opened| async move {
        opened.accept().await?;
        if opened.target.name == "client" {
            // Answers only after the client's end.
            let mut got = Vec::new();
            opened.stream.read_to_end(&mut got).await?;
            got.extend_from_slice(b" and BYE");
            opened.stream.write_all(&got).await?;
            return opened.end().await;
        }
        opened.stream.write_all(b"banner").await?;
        opened.end().await
    })?;
    let (_envoy, addr) = start_each(version, dir.path(), &["client", "service"], unchanged).await?;
    let check = async {
        let h2 = Http2::connect(addr).await?;
        let mut tunnel = h2.tunnel("client.test:7777").await?;
        tunnel.send("HELLO").await?;
        tunnel.finish()?;
        let (got, end) = tunnel.read_to_end().await;
        assert_eq!((&got[..], end), (&b"HELLO and BYE"[..], End::Clean));

        let mut tunnel = h2.tunnel("service.test:7777").await?;
        let (got, end) = tunnel.read_to_end().await;
        assert_eq!((&got[..], end), (&b"banner"[..], End::Clean));
        Ok(())
    };
    patiently("ends", check).await
}

/// What the service of a name has sent when its end comes.
fn sent(name: &str) -> &'static [u8] {
    match name {
        "length" => b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
        "chunked" => b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        _ => b"HTTP/1.1 200 OK\r\n\r\nhalf",
    }
}

async fn request_head(opened: &mut Opened) -> Result<()> {
    let mut got = Vec::new();
    while !got.ends_with(b"\r\n\r\n") {
        if opened.stream.read_buf(&mut got).await? == 0 {
            bail!("no whole request");
        }
    }
    Ok(())
}

async fn an_abort_never_looks_like_a_clean_end(version: &str) -> Result<()> {
    let names = ["length", "chunked", "close", "late", "whole", "raw", "web"];
    let dir = tempfile::tempdir()?;
    let web = HttpService::start()?;
    let service = web.addr;
    let cut = Arc::new(Notify::new());
    let ready = cut.clone();
    let _dialer = FakeDialer::start(&dir.path().join("dialer.sock"), move |mut opened| {
        let ready = ready.clone();
        async move {
            let name = opened.target.name.clone();
            if name == "web" {
                tokio::select! {
                    result = opened.join(service) => return result,
                    () = ready.notified() => return Ok(()),
                }
            }
            opened.accept().await?;
            if name == "raw" {
                opened.stream.write_all(b"half").await?;
                opened.stream.read_u8().await?;
                return Ok(());
            }
            request_head(&mut opened).await?;
            opened.stream.write_all(sent(&name)).await?;
            match name.as_str() {
                "whole" => opened.end().await,
                "late" => {
                    // The client has the bytes; the break comes alone.
                    ready.notified().await;
                    Ok(())
                }
                // Bytes and break arrive together.
                _ => Ok(()),
            }
        }
    })?;
    let (envoy, addr) = start_each(version, dir.path(), &names, unchanged).await?;
    let check = async {
        for name in ["length", "chunked", "close"] {
            let host = format!("{name}.test");
            let mut h1 = Client::http1(addr, &host).await?;
            assert!(h1.get("/").await.is_err(), "{name} over HTTP/1.1");
            let mut h2 = Client::http2(addr, &host).await?;
            assert!(h2.get("/").await.is_err(), "{name} over HTTP/2");
        }
        let mut h1 = Client::http1(addr, "whole.test").await?;
        assert_eq!(h1.get("/").await?.text(), "half");
        let mut h2 = Client::http2(addr, "whole.test").await?;
        assert_eq!(h2.get("/").await?.text(), "half");

        let mut h2 = Client::http2(addr, "late.test").await?;
        let answer = h2.open(Method::GET, "/", &[], empty()).await?;
        let mut body = http_body_util::BodyExt::into_data_stream(answer.into_body());
        assert_eq!(body.next().await.expect("bytes")?, "half");
        cut.notify_one();
        assert!(body.next().await.expect("an end").is_err());

        let h2 = Http2::connect(addr).await?;
        let mut tunnel = h2.tunnel("raw.test:7777").await?;
        assert_eq!(tunnel.read_at_least(4).await?, b"half");
        tunnel.send("x").await?;
        let (_, end) = tunnel.read_to_end().await;
        assert!(matches!(end, End::Reset(_)), "{end:?}");

        let mut socket = ws::open(addr, "web.test").await?;
        socket.send("hello".into()).await?;
        let back = socket.next().await.expect("an answer")?;
        assert_eq!(back.into_text()?.as_str(), "hello");
        cut.notify_one();
        assert!(matches!(socket.next().await, None | Some(Err(_))));
        Ok(())
    };
    patiently("aborts", check).await?;
    // "close" over both, and "late".
    let name = "adit.requests_total.outcome.cut";
    process::until(name, async || {
        (envoy.stat(name).await.ok()? == 3).then_some(())
    })
    .await
}
