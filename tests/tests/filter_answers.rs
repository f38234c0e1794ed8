//! What a client is told when its request cannot go on, by the module in real
//! Envoy with a dialer that does as it is told.
//!
//! | why \ client | GET h1 | GET h2 | HEAD | gRPC | CONNECT h1 | CONNECT h2 |
//! |---|---|---|---|---|---|---|
//! | each of the eight classes | text, page | problem | x | x | x | x |
//! | dialer absent, silent, full | x | | | | | |
//! | Envoy's own reasons | x | | | | | |
//!
//! And nowhere a target's address, the socket's path, a key, or the verdict's
//! text.

use std::{
    net::SocketAddr,
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::Path,
};

use adit_tests::{
    binaries,
    client::{
        connect::{self, Http2},
        grpc,
        http::{Answer, Client, empty, full},
        patiently,
    },
    envoy::Envoy,
    filter_stage::{self as stage, FakeDialer, SECRET, names_nothing, shown, start, target},
    on_each_envoy,
    services::{grpc::Note, http::HttpService},
};
use adit_wire::ErrorClass;
use anyhow::Result;
use http::Method;
use rustix::{
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with},
};
use serde_json::{Value, json};

on_each_envoy!(
    every_class_reaches_every_kind_of_client_in_its_form,
    a_dialer_that_is_absent_silent_or_full_is_told_apart_and_not_shown,
    what_envoy_answers_for_its_own_reasons_stays_its_own,
    a_retry_that_connects_leaves_no_trace_of_the_refusal,
    connectors_that_were_off_a_moment_ago_are_asked_once,
    a_page_of_ones_own_is_shown_and_a_route_may_have_another,
);

async fn every_class_reaches_every_kind_of_client_in_its_form(version: &str) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let socket = dir.path().join("dialer.sock");
    let _dialer = FakeDialer::start(&socket, |opened| {
        let class = opened.target.name.parse().expect("a class");
        opened.refuse(class)
    })?;
    let module = binaries::module()?;
    let names = ErrorClass::ALL.map(|class| class.as_str());
    let hosts = names.map(stage::host);
    let clusters = names.map(|n| stage::cluster(&module, n, &socket, &target(n), false));
    let (envoy, addr) = start(version, dir.path(), &hosts, &clusters).await?;

    for class in ErrorClass::ALL {
        let check = each_kind_of_client(addr, class, dir.path());
        patiently(class.as_str(), check).await?;
    }
    let log = envoy.process.log();
    assert!(log.contains(SECRET), "the verdict's text is in Envoy's log");
    Ok(())
}

async fn each_kind_of_client(addr: SocketAddr, class: ErrorClass, dir: &Path) -> Result<()> {
    let host = format!("{class}.test");
    let retry_after = class.retry_after().map(|s| s.to_string());
    let check = |answer: &Answer| {
        assert_eq!(answer.status.as_u16(), class.http_status(), "{class}");
        assert_eq!(answer.header("retry-after"), retry_after.as_deref());
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        names_nothing(dir, &shown(answer));
    };

    let mut h1 = Client::http1(addr, &host).await?;
    let text = h1.get("/").await?;
    check(&text);
    assert_eq!(
        text.header("content-type"),
        Some("text/plain; charset=utf-8")
    );
    assert!(
        text.text().contains(&format!("({class})")),
        "{}",
        text.text()
    );

    let accept = [("accept", "text/html,application/xhtml+xml,*/*;q=0.8")];
    let page = h1.send(Method::GET, "/", &accept, empty()).await?;
    check(&page);
    assert_eq!(
        page.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    assert!(
        page.text().starts_with("<!doctype html>"),
        "{}",
        page.text()
    );

    let head = h1.send(Method::HEAD, "/", &[], empty()).await?;
    check(&head);
    assert_eq!(head.body.len(), 0);
    assert_eq!(head.header("content-length"), text.header("content-length"));

    let mut h2 = Client::http2(addr, &host).await?;
    let accept = [("accept", "application/json")];
    let problem = h2.send(Method::POST, "/", &accept, full("a body")).await?;
    check(&problem);
    assert_eq!(
        problem.header("content-type"),
        Some("application/problem+json")
    );
    assert_eq!(problem.json()?["error"], class.as_str());
    assert_eq!(problem.json()?["status"], class.http_status());

    let mut stub = grpc::Client::connect(addr, &host).await?;
    let status = stub.unary(Note::default()).await.expect_err("no service");
    assert_eq!(status.code() as u32, class.grpc_status(), "{class}");
    assert!(status.message().ends_with('.'), "{status:?}");
    names_nothing(dir, &format!("{status:?}"));

    let authority = format!("{host}:7777");
    let mut tunnel = connect::http1(addr, &authority, b"early").await?;
    assert_eq!(tunnel.status, class.http_status());
    let body = tunnel.read_to_end().await?;
    assert!(String::from_utf8_lossy(&body).contains(class.as_str()));
    names_nothing(
        dir,
        &format!("{}{}", tunnel.head, String::from_utf8_lossy(&body)),
    );

    let mut tunnel = Http2::connect(addr).await?.tunnel(&authority).await?;
    assert_eq!(tunnel.status.as_u16(), class.http_status());
    let (body, _) = tunnel.read_to_end().await;
    assert!(String::from_utf8_lossy(&body).contains(class.as_str()));
    Ok(())
}

async fn a_dialer_that_is_absent_silent_or_full_is_told_apart_and_not_shown(
    version: &str,
) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let socket = dir.path().join("dialer.sock");
    let _dialer = FakeDialer::start(&socket, |opened| async move {
        let _opened = opened;
        std::future::pending().await
    })?;
    let module = binaries::module()?;
    let absent = dir.path().join("absent.sock");
    let busy = dir.path().join("busy.sock");
    let _waiting = full_backlog(&busy)?;
    let mut silent = stage::cluster(&module, "silent", &socket, &target("silent"), false);
    silent["connect_timeout"] = json!("0.2s");
    let clusters = [
        stage::cluster(&module, "absent", &absent, &target("absent"), false),
        stage::cluster(&module, "full", &busy, &target("full"), false),
        silent,
    ];
    let hosts = ["absent", "silent", "full"].map(stage::host);
    let (envoy, addr) = start(version, dir.path(), &hosts, &clusters).await?;
    for (name, status, word) in [
        ("absent", 503, "internal"),
        ("full", 503, "internal"),
        ("silent", 504, "timeout"),
    ] {
        let mut client = Client::http1(addr, &format!("{name}.test")).await?;
        let accept = [("accept", "application/problem+json")];
        let answer = client.send(Method::GET, "/", &accept, empty());
        let answer = patiently(name, answer).await?;
        assert_eq!(answer.status, status, "{name}");
        assert_eq!(answer.json()?["error"], word, "{name}");
        names_nothing(dir.path(), &shown(&answer));
    }
    drop(envoy);
    Ok(())
}

/// A Unix socket on which nobody accepts, with connections until no more fit.
fn full_backlog(path: &Path) -> Result<(OwnedFd, Vec<UnixStream>)> {
    let flags = SocketFlags::CLOEXEC;
    let listener = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    bind(&listener, &SocketAddrUnix::new(path)?)?;
    listen(&listener, 1)?;
    let mut waiting = Vec::new();
    loop {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let client = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        match rustix::net::connect(&client, &SocketAddrUnix::new(path)?) {
            Ok(()) => waiting.push(client.into()),
            Err(Errno::AGAIN) => return Ok((listener, waiting)),
            Err(e) => return Err(e.into()),
        }
    }
}

async fn what_envoy_answers_for_its_own_reasons_stays_its_own(version: &str) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let socket = dir.path().join("dialer.sock");
    let module = binaries::module()?;
    let mut full_up = stage::cluster(&module, "full", &socket, &target("full"), false);
    full_up["circuit_breakers"] =
        json!({"thresholds": [{"max_pending_requests": 0, "max_connections": 1}]});
    let mut empty_cluster = stage::cluster(&module, "empty", &socket, &target("empty"), false);
    empty_cluster["load_assignment"]["endpoints"] = json!([]);
    let hosts = [stage::host("full"), stage::host("empty")];
    let (envoy, addr) = start(version, dir.path(), &hosts, &[full_up, empty_cluster]).await?;
    for (name, says) in [("full", "overflow"), ("empty", "no healthy upstream")] {
        let mut client = Client::http1(addr, &format!("{name}.test")).await?;
        let answer = patiently(name, client.get("/")).await?;
        assert_eq!(answer.status, 503, "{name}");
        assert!(answer.text().contains(says), "{name}: {}", answer.text());
        assert_eq!(answer.header("retry-after"), None);
    }
    drop(envoy);
    Ok(())
}

/// A dialer that decides by a connection's number whether it reaches the service.
fn dialer_before(
    web: &HttpService,
    socket: &Path,
    decide: fn(usize) -> Result<(), ErrorClass>,
) -> Result<FakeDialer> {
    let service = web.addr;
    FakeDialer::start(socket, move |opened| async move {
        match decide(opened.number) {
            Ok(()) => opened.join(service).await,
            Err(class) => opened.refuse(class).await,
        }
    })
}

/// A host whose route retries as Adit's do, and sooner.
fn host_with_retries(name: &str) -> Value {
    let mut host = stage::host(name);
    host["routes"][1]["route"]["retry_policy"] = json!({
        "retry_on": "connect-failure", "num_retries": 2,
        "retry_back_off": {"base_interval": "0.001s"},
    });
    host
}

async fn a_retry_that_connects_leaves_no_trace_of_the_refusal(version: &str) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let socket = dir.path().join("dialer.sock");
    let web = HttpService::start()?;
    let dialer = dialer_before(&web, &socket, |number| match number {
        0 => Err(ErrorClass::Refused),
        _ => Ok(()),
    })?;
    let module = binaries::module()?;
    let host = host_with_retries("a");
    let clusters = [stage::cluster(&module, "a", &socket, &target("a"), false)];
    let (_envoy, addr) = start(version, dir.path(), &[host], &clusters).await?;
    let mut client = Client::http1(addr, "a.test").await?;
    patiently("a POST", client.upload(5, 300_000)).await?;
    assert_eq!(dialer.opened(), 2);
    Ok(())
}

/// Three tries of Envoy's are one while the dialer's last word was "offline", on
/// the routes that Adit writes. On another, a cluster may have hosts that are
/// none of Adit's.
async fn connectors_that_were_off_a_moment_ago_are_asked_once(version: &str) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let socket = dir.path().join("dialer.sock");
    let web = HttpService::start()?;
    let dialer = dialer_before(&web, &socket, |number| match number {
        4 => Ok(()),
        _ => Err(ErrorClass::Offline),
    })?;
    let module = binaries::module()?;
    let [mut ours, other] = ["ours", "other"].map(host_with_retries);
    ours["routes"][1]["metadata"]["filter_metadata"]["adit"]["retry"] = json!(true);
    let clusters =
        ["ours", "other"].map(|n| stage::cluster(&module, n, &socket, &target(n), false));
    let (_envoy, addr) = start(version, dir.path(), &[ours, other], &clusters).await?;
    let asked = async |host: &str, status| {
        let before = dialer.opened();
        // No answer may come through a connection that stands.
        let mut client = Client::http1(addr, &format!("{host}.test")).await?;
        let answer = patiently(host, client.get("/echo")).await?;
        assert_eq!(answer.status, status, "{host}");
        anyhow::Ok(dialer.opened() - before)
    };
    assert_eq!(asked("ours", 503).await?, 3);
    assert_eq!(asked("ours", 503).await?, 1);
    assert_eq!(asked("ours", 200).await?, 1);
    assert_eq!(asked("other", 503).await?, 3);
    assert_eq!(asked("other", 503).await?, 3);
    Ok(())
}

async fn a_page_of_ones_own_is_shown_and_a_route_may_have_another(version: &str) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let socket = dir.path().join("dialer.sock");
    let _dialer = FakeDialer::start(&socket, |opened| opened.refuse(ErrorClass::Offline))?;
    let module = binaries::module()?;
    let mut special = stage::host("b");
    special["routes"][1]["typed_per_filter_config"] =
        stage::route_filter(&module, json!({"html_page": "route: {{error}}"}));
    let page = json!({"html_page": "<b>{{status}} {{title}}</b> {{message}}"});
    let listener = stage::listener_with(
        &[stage::host("a"), special],
        &[stage::filter(&module, page)],
    );
    let clusters = ["a", "b"].map(|n| stage::cluster(&module, n, &socket, &target(n), false));
    let resources = json!({"listeners": [listener], "clusters": clusters});
    let envoy = Envoy::start(version, dir.path(), 1, &resources).await?;
    let addr = envoy.listener("main").await?;
    let accept = [("accept", "text/html")];
    let mut a = Client::http1(addr, "a.test").await?;
    let answer = patiently("a", a.send(Method::GET, "/", &accept, empty())).await?;
    assert_eq!(
        answer.text(),
        "<b>503 Service Unavailable</b> The service is not connected at the moment."
    );
    let mut b = Client::http1(addr, "b.test").await?;
    let answer = patiently("b", b.send(Method::GET, "/", &accept, empty())).await?;
    assert_eq!(answer.text(), "route: offline");
    Ok(())
}
