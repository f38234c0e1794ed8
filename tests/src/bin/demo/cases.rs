//! The cases, in the order in which they run.

use std::{pin::Pin, time::Instant};

use adit_tests::{
    client::{
        connect::{self, End},
        grpc,
        http::{Client, empty, get},
        ws,
    },
    pattern::{Pattern, sha256},
    services::{
        grpc::{FAILURE, Note},
        tcp::closing_line,
    },
};
use anyhow::{Context, Result, ensure};
use futures_util::{SinkExt, StreamExt, TryStreamExt, stream};
use http::Method;
use http_body_util::BodyExt;
use tokio::io::AsyncWriteExt;

use crate::{
    report::Outcome,
    site::{SHOP, Site},
};

const MIB: u64 = 1024 * 1024;

type Case<'a> = Pin<Box<dyn Future<Output = Result<Outcome>> + 'a>>;

/// Every case with its name.
pub fn all(site: &Site) -> Vec<(&'static str, Case<'_>)> {
    vec![
        ("HTTP/1.1 GET", Box::pin(http1_get(site))),
        ("HTTP/1.1 POST of 8 MiB", Box::pin(http1_post(site))),
        ("HTTP/2 GET and POST", Box::pin(http2(site))),
        ("gRPC unary", Box::pin(grpc_unary(site))),
        ("gRPC bidirectional stream", Box::pin(grpc_chat(site))),
        ("WebSocket echo", Box::pin(websocket(site))),
        ("server-sent events", Box::pin(server_sent_events(site))),
        ("CONNECT over HTTP/1.1", Box::pin(connect_http1(site))),
        (
            "CONNECT over HTTP/2 with half-close",
            Box::pin(connect_http2(site)),
        ),
        ("download of 256 MiB", Box::pin(download(site))),
        ("https service, SNI verified", Box::pin(https(site))),
        (
            "https service with another name",
            Box::pin(https_other_name(site)),
        ),
        ("through the relay", Box::pin(relayed(site))),
        (
            "target the manifests do not advertise",
            Box::pin(unadvertised(site)),
        ),
        (
            "target the connector does not allow",
            Box::pin(not_allowed(site)),
        ),
        ("connector that is off", Box::pin(off(site))),
        ("failover to a second connector", Box::pin(failover(site))),
    ]
}

async fn outcome(site: &Site, connector: &str, detail: String) -> Result<Outcome> {
    Ok(Outcome {
        path: site.gateway.path(connector).await,
        detail,
    })
}

async fn on_main(site: &Site, detail: String) -> Result<Outcome> {
    outcome(site, &site.main.key.id, detail).await
}

async fn http1_get(site: &Site) -> Result<Outcome> {
    let mut client = Client::http1(site.gateway.addr, "web.demo.test").await?;
    let spoofed = [
        ("x-demo", "1"),
        ("datum-node-id", "00"),
        ("x-adit-target", "a:1"),
    ];
    let answer = client
        .send(Method::GET, "/echo?hello=adit", &spoofed, empty())
        .await?;
    ensure!(answer.status == 200, "status {}", answer.status);
    let got = site.web.record.requests();
    let got = got.last().context("the service saw a request")?;
    ensure!(got.path == "/echo?hello=adit", "path {}", got.path);
    ensure!(got.header("x-demo") == Some("1"), "headers: {got:?}");
    ensure!(
        got.header("datum-node-id").is_none() && got.header("x-adit-target").is_none(),
        "reserved headers reached the service: {got:?}"
    );
    let host = got.header("host").unwrap_or_default().to_owned();
    ensure!(host == "web.demo.test", "host {host}");
    on_main(
        site,
        "200; path, headers and host as sent; reserved headers removed".to_owned(),
    )
    .await
}

async fn http1_post(site: &Site) -> Result<Outcome> {
    let mut client = Client::http1(site.gateway.addr, "web.demo.test").await?;
    client.upload(8, 8 * MIB).await?;
    on_main(site, "SHA-256 equal at both ends".to_owned()).await
}

async fn http2(site: &Site) -> Result<Outcome> {
    let mut client = Client::http2(site.gateway.addr, "h2.demo.test").await?;
    let answer = client.get("/echo").await?.json()?;
    ensure!(answer["version"] == "HTTP/2.0", "the service got {answer}");
    client.upload(9, MIB).await?;
    on_main(
        site,
        "HTTP/2 at the service too; SHA-256 of 1 MiB equal".to_owned(),
    )
    .await
}

fn note(text: &str, number: u64) -> Note {
    Note {
        text: text.to_owned(),
        number,
    }
}

async fn grpc_unary(site: &Site) -> Result<Outcome> {
    let mut client = grpc::Client::connect(site.gateway.addr, "h2.demo.test").await?;
    let answer = client.unary(note("hello", 1)).await?;
    ensure!(*answer.get_ref() == note("hello", 1), "answer {answer:?}");
    let failed = client.unary(note("fail", 2)).await;
    let status = failed.err().context("a failure was asked for")?;
    ensure!(
        status.code() == tonic::Code::FailedPrecondition && status.message() == FAILURE,
        "status {status:?}"
    );
    on_main(site, "message and failure status equal".to_owned()).await
}

async fn grpc_chat(site: &Site) -> Result<Outcome> {
    let mut client = grpc::Client::connect(site.gateway.addr, "h2.demo.test").await?;
    let (say, said) = tokio::sync::mpsc::channel::<Note>(1);
    let said = stream::unfold(said, async |mut said| {
        let note = said.recv().await?;
        Some((note, said))
    });
    let mut answers = client.chat(said).await?.into_inner();
    for i in 0..100 {
        say.send(note("ping", i)).await?;
        let answer = answers.message().await?;
        ensure!(answer == Some(note("ping", i)), "answer {answer:?}");
    }
    drop(say);
    ensure!(answers.message().await?.is_none(), "more than was sent");
    let trailers = answers.trailers().await?;
    ensure!(trailers.is_some(), "no trailers");
    on_main(site, "100 messages in turn, then trailers".to_owned()).await
}

async fn websocket(site: &Site) -> Result<Outcome> {
    let mut socket = ws::open(site.gateway.addr, "web.demo.test").await?;
    for i in 0..100_u32 {
        socket.send(format!("message {i}").into()).await?;
        let back = socket.next().await.context("an answer")??.into_text()?;
        ensure!(back.as_str() == format!("message {i}"), "got {back:?}");
    }
    socket.close(None).await?;
    on_main(site, "100 messages echoed".to_owned()).await
}

async fn server_sent_events(site: &Site) -> Result<Outcome> {
    let mut client = Client::http1(site.gateway.addr, "web.demo.test").await?;
    let begun = Instant::now();
    let response = client
        .open(Method::GET, "/sse?events=5&gap=100", &[], empty())
        .await?;
    let mut body = response.into_body().into_data_stream();
    let mut text = String::new();
    let mut first = None;
    while let Some(piece) = body.try_next().await? {
        first.get_or_insert(begun.elapsed());
        text += &String::from_utf8_lossy(&piece);
    }
    let expected: String = (0..5)
        .map(|i| format!("id: {i}\ndata: event {i}\n\n"))
        .collect();
    ensure!(text == expected, "got {text:?}");
    let first = first.context("an event")?;
    ensure!(
        first * 2 < begun.elapsed(),
        "the first event came with the last: they were held back"
    );
    on_main(
        site,
        format!(
            "5 events, the first after {:.1} ms",
            first.as_secs_f64() * 1e3
        ),
    )
    .await
}

async fn connect_http1(site: &Site) -> Result<Outcome> {
    let authority = format!("echo.demo.test:{}", site.echo.addr.port());
    let mut tunnel = connect::http1(site.gateway.addr, &authority, b"early ").await?;
    ensure!(tunnel.status == 200, "{}", tunnel.head);
    tunnel.tcp.write_all(b"and late").await?;
    let got = tunnel.read_exact(14).await?;
    ensure!(got == b"early and late", "echoed {got:?}");
    on_main(
        site,
        "bytes sent before and after the 200 echoed".to_owned(),
    )
    .await
}

async fn connect_http2(site: &Site) -> Result<Outcome> {
    let authority = format!("echo.demo.test:{}", site.echo.addr.port());
    let client = connect::Http2::connect(site.gateway.addr).await?;
    let mut tunnel = client.tunnel(&authority).await?;
    ensure!(tunnel.status == 200, "status {}", tunnel.status);
    let piece = Pattern::new(4).next_piece(20_000);
    tunnel.send(piece.clone()).await?;
    tunnel.finish()?;
    let (got, end) = tunnel.read_to_end().await;
    let last = closing_line(piece.len() as u64, &sha256(&piece));
    let expected = [&piece[..], last.as_bytes()].concat();
    ensure!(end == End::Clean, "the end: {end:?}");
    ensure!(got == expected, "{} bytes came back", got.len());
    on_main(
        site,
        "echo, then the service's last words after our end".to_owned(),
    )
    .await
}

async fn download(site: &Site) -> Result<Outcome> {
    let mut client = Client::http1(site.gateway.addr, "web.demo.test").await?;
    let len = 256 * MIB;
    let begun = Instant::now();
    let got = client
        .download(&format!("/download?bytes={len}&seed=256"))
        .await?;
    let seconds = begun.elapsed().as_secs_f64();
    ensure!(got.status == 200 && got.len == len, "got {got:?}");
    ensure!(got.sha256 == Pattern::sha256(256, len), "SHA-256 differs");
    on_main(site, format!("{:.0} MiB/s, SHA-256 equal", 256.0 / seconds)).await
}

async fn https(site: &Site) -> Result<Outcome> {
    let answer = get(site.gateway.addr, "shop.demo.test", "/echo").await?;
    ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
    ensure!(
        site.shop.record.requests().len() == 1,
        "the https service saw {} requests",
        site.shop.record.requests().len()
    );
    on_main(site, format!("certificate of {SHOP} verified")).await
}

async fn https_other_name(site: &Site) -> Result<Outcome> {
    refused(site, "other.demo.test", 502, "tls").await
}

/// A GET that must fail with this status, whose body tells nothing internal.
async fn refused(site: &Site, host: &str, status: u16, class: &str) -> Result<Outcome> {
    let answer = get(site.gateway.addr, host, "/echo").await?;
    ensure!(
        answer.status == status,
        "status {} {}",
        answer.status,
        answer.text()
    );
    let text = answer.text();
    for secret in ["127.0.0.1", "internal.test", ".sock", "/tmp"] {
        ensure!(!text.contains(secret), "the answer tells {secret}: {text}");
    }
    Ok(Outcome {
        path: None,
        detail: format!("{status}, as for {class}"),
    })
}

async fn relayed(site: &Site) -> Result<Outcome> {
    let answer = get(site.gateway.addr, "relayed.demo.test", "/echo").await?;
    ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
    let mut client = Client::http1(site.gateway.addr, "relayed.demo.test").await?;
    client.upload(77, 8 * MIB).await?;
    outcome(
        site,
        &site.relayed.key.id,
        "GET, and SHA-256 of 8 MiB equal".to_owned(),
    )
    .await
}

async fn unadvertised(site: &Site) -> Result<Outcome> {
    refused(site, "unadvertised.demo.test", 500, "misconfigured").await
}

async fn not_allowed(site: &Site) -> Result<Outcome> {
    refused(site, "payroll.demo.test", 502, "denied").await
}

async fn off(site: &Site) -> Result<Outcome> {
    let answer = get(site.gateway.addr, "asleep.demo.test", "/echo").await?;
    ensure!(
        answer.header("retry-after").is_some(),
        "no Retry-After: {:?}",
        answer.headers
    );
    refused(site, "asleep.demo.test", 503, "offline").await
}

async fn failover(site: &Site) -> Result<Outcome> {
    let mut pair = site.pair.lock().await;
    let [first, second] = &site.pair_services;
    let answer = get(site.gateway.addr, "pair.demo.test", "/echo").await?;
    ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
    ensure!(
        (
            first.record.requests().len(),
            second.record.requests().len()
        ) == (1, 0),
        "the first connector comes first"
    );
    pair[0].kill()?;
    let killed = Instant::now();
    let mut failed = 0;
    while second.record.requests().is_empty() {
        match get(site.gateway.addr, "pair.demo.test", "/echo").await {
            Ok(answer) if answer.status == 200 => {}
            _ => failed += 1,
        }
    }
    outcome(
        site,
        &pair[1].key.id,
        format!(
            "the second served {:.1} s after SIGKILL of the first, {failed} failed between",
            killed.elapsed().as_secs_f64()
        ),
    )
    .await
}
