//! What a client is told when its request cannot go on, by the module in real
//! Envoy with a dialer that does as it is told.
//!
//! | why \ client | GET h1 | GET h2 | HEAD | gRPC | CONNECT h1 | CONNECT h2 |
//! |---|---|---|---|---|---|---|
//! | each of the eight classes | text, page | problem | x | x | x | x |
//! | dialer absent, silent | x | | | | | |
//! | refused by the filter | x | problem | | x | x | x |
//! | Envoy's own reasons | x | | | | | |
//!
//! And nowhere a target's address, the socket's path, a key, or the verdict's
//! text.

use std::{net::SocketAddr, path::Path};

use adit_tests::{
    binaries,
    client::{
        connect::{self, Http2},
        grpc,
        http::{Answer, Client, empty, full},
        patiently,
    },
    envoy::{self, Envoy},
    filter_stage::{self as stage, FakeDialer, SECRET, target},
    on_each_envoy, process,
    services::{grpc::Note, http::HttpService},
};
use adit_wire::ErrorClass;
use anyhow::{Context, Result};
use http::Method;
use serde_json::{Value, json};

on_each_envoy!(
    every_class_reaches_every_kind_of_client_in_its_form,
    a_dialer_that_is_absent_or_silent_is_told_apart_and_not_shown,
    what_envoy_answers_for_its_own_reasons_stays_its_own,
    a_retry_that_connects_leaves_no_trace_of_the_refusal,
    a_page_of_ones_own_is_shown_and_a_route_may_have_another,
    a_route_without_a_valid_target_is_misconfigured,
    connect_is_refused_where_it_is_not_offered,
    reserved_headers_of_clients_are_removed_on_our_routes_only,
    a_route_chosen_late_is_the_one_that_counts,
    requests_are_counted_and_named_in_the_access_log,
);

/// Envoy with the module; the resources name the dialer's socket in `dir`.
async fn start(
    version: &str,
    dir: &Path,
    hosts: &[Value],
    clusters: &[Value],
) -> Result<(Envoy, SocketAddr)> {
    let module = binaries::module()?;
    let resources = json!({
        "listeners": [stage::listener(&module, hosts)],
        "clusters": clusters,
    });
    let envoy = Envoy::start(version, dir, 2, &resources).await?;
    let addr = envoy.listener("main").await?;
    Ok((envoy, addr))
}

fn names_nothing(dir: &Path, text: &str) {
    let key = target("x").connectors[0].to_string();
    let path = dir.display().to_string();
    for secret in [SECRET, "svc.test:7777", &key, &path, "upstream"] {
        assert!(!text.contains(secret), "{secret} is shown: {text}");
    }
}

/// All of an answer as text.
fn shown(answer: &Answer) -> String {
    format!("{:?}\n{}", answer.headers, answer.text())
}

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

async fn a_dialer_that_is_absent_or_silent_is_told_apart_and_not_shown(
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
    let mut silent = stage::cluster(&module, "silent", &socket, &target("silent"), false);
    silent["connect_timeout"] = json!("0.2s");
    let clusters = [
        stage::cluster(&module, "absent", &absent, &target("absent"), false),
        silent,
    ];
    let hosts = [stage::host("absent"), stage::host("silent")];
    let (envoy, addr) = start(version, dir.path(), &hosts, &clusters).await?;
    for (name, status, word) in [("absent", 503, "internal"), ("silent", 504, "timeout")] {
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

async fn a_retry_that_connects_leaves_no_trace_of_the_refusal(version: &str) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let socket = dir.path().join("dialer.sock");
    let web = HttpService::start()?;
    let service = web.addr;
    let dialer = FakeDialer::start(&socket, move |opened| async move {
        match opened.number {
            0 => opened.refuse(ErrorClass::Refused).await,
            _ => opened.join(service).await,
        }
    })?;
    let module = binaries::module()?;
    let mut host = stage::host("a");
    host["routes"][1]["route"]["retry_policy"] = json!({
        "retry_on": "connect-failure", "num_retries": 2,
        "retry_back_off": {"base_interval": "0.001s"},
    });
    let clusters = [stage::cluster(&module, "a", &socket, &target("a"), false)];
    let (_envoy, addr) = start(version, dir.path(), &[host], &clusters).await?;
    let mut client = Client::http1(addr, "a.test").await?;
    patiently("a POST", client.upload(5, 300_000)).await?;
    assert_eq!(dialer.opened(), 2);
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

/// A host whose only route has this metadata.
fn bare_host(name: &str, cluster: &str, metadata: Option<Value>) -> Value {
    let route = envoy::prefix_route(cluster);
    let route = match metadata {
        Some(metadata) => stage::with_metadata(route, metadata),
        None => route,
    };
    envoy::virtual_host(name, &[&format!("{name}.test")], &[route])
}

async fn a_route_without_a_valid_target_is_misconfigured(version: &str) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let socket = dir.path().join("dialer.sock");
    let web = HttpService::start()?;
    let service = web.addr;
    let dialer = FakeDialer::start(&socket, move |opened| opened.join(service))?;
    let module = binaries::module()?;
    let good = stage::metadata(&target("a"));
    let with = |key: &str, value: Value| {
        let mut changed = good.clone();
        changed[key] = value;
        Some(changed)
    };
    let bad = [
        ("only-a-name", Some(json!({"name": "x"}))),
        ("no-key", with("datum-node-id", json!("zz"))),
        ("no-port", with("datum-target-port", json!(0))),
        ("text-port", with("datum-target-port", json!("7777"))),
        ("octal", with("datum-target-host", json!("0177.0.0.1"))),
        ("other-port", with("datum-target-port", json!(7778))),
        ("other-host", with("datum-target-host", json!("other.test"))),
        ("other-key", with("datum-node-id", json!("01".repeat(32)))),
        ("other-proto", with("datum-target-proto", json!("tls"))),
    ];
    let hosts: Vec<_> = bad
        .iter()
        .map(|(name, metadata)| bare_host(name, "a", metadata.clone()))
        .chain([
            bare_host("by-cluster", "a", None),
            bare_host("same", "a", Some(good.clone())),
        ])
        .collect();
    let clusters = [stage::cluster(&module, "a", &socket, &target("a"), false)];
    let (envoy, addr) = start(version, dir.path(), &hosts, &clusters).await?;
    for (name, _) in &bad {
        let mut client = Client::http2(addr, &format!("{name}.test")).await?;
        let accept = [("accept", "application/json")];
        let answer = patiently(name, client.send(Method::GET, "/echo", &accept, empty())).await?;
        assert_eq!(answer.status, 500, "{name}");
        assert_eq!(answer.json()?["error"], "misconfigured", "{name}");
        names_nothing(dir.path(), &shown(&answer));
    }
    assert_eq!(dialer.opened(), 0, "nothing went out");
    let mut stub = grpc::Client::connect(addr, "only-a-name.test").await?;
    let status = stub.unary(Note::default()).await.expect_err("no target");
    assert_eq!(status.code(), tonic::Code::Internal);
    for name in ["by-cluster.test", "same.test"] {
        let mut client = Client::http1(addr, name).await?;
        assert_eq!(patiently(name, client.get("/echo")).await?.status, 200);
    }
    assert!(envoy.process.log().contains("a request is refused: "));
    Ok(())
}

async fn connect_is_refused_where_it_is_not_offered(version: &str) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let socket = dir.path().join("dialer.sock");
    let dialer = FakeDialer::start(&socket, |mut opened| async move {
        opened.accept().await?;
        opened.end().await
    })?;
    let module = binaries::module()?;
    let mut closed = stage::host("closed");
    closed["routes"][0]["metadata"]["filter_metadata"]["adit"]["connect"] = json!(false);
    // Envoy looks for the route of a CONNECT-UDP by the host in its path.
    let mut any = stage::host("any");
    any["domains"] = json!(["*"]);
    let hosts = [stage::host("open"), closed, any];
    let clusters =
        ["open", "closed", "any"].map(|n| stage::cluster(&module, n, &socket, &target(n), false));
    let mut listener = stage::listener(&module, &hosts);
    let http = &mut listener["filter_chains"][0]["filters"][0]["typed_config"];
    http["upgrade_configs"] = json!([
        {"upgrade_type": "CONNECT"}, {"upgrade_type": "CONNECT-UDP"}, {"upgrade_type": "websocket"},
    ]);
    let resources = json!({"listeners": [listener], "clusters": clusters});
    let envoy = Envoy::start(version, dir.path(), 2, &resources).await?;
    let addr = envoy.listener("main").await?;
    let check = async {
        for authority in ["open.test:7778", "open.test:80", "closed.test:7777"] {
            let mut tunnel = connect::http1(addr, authority, b"").await?;
            assert_eq!(tunnel.status, 403, "{authority}");
            let body = tunnel.read_to_end().await?;
            assert!(String::from_utf8_lossy(&body).contains("CONNECT is not offered"));
            let tunnel = Http2::connect(addr).await?.tunnel(authority).await?;
            assert_eq!(tunnel.status, 403, "{authority}");
        }
        let mut client = Client::http1(addr, "open.test").await?;
        let upgrade = [("connection", "upgrade"), ("upgrade", "connect-udp")];
        let path = "/.well-known/masque/udp/192.0.2.1/53/";
        let answer = client.send(Method::GET, path, &upgrade, empty()).await?;
        assert_eq!(answer.status, 501);
        assert_eq!(dialer.opened(), 0, "nothing went out");
        let tunnel = connect::http1(addr, "open.test:7777", b"").await?;
        assert_eq!(tunnel.status, 200);
        Ok(())
    };
    patiently("CONNECT", check).await
}

async fn reserved_headers_of_clients_are_removed_on_our_routes_only(version: &str) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let socket = dir.path().join("dialer.sock");
    let web = HttpService::start()?;
    let service = web.addr;
    let _dialer = FakeDialer::start(&socket, move |opened| opened.join(service))?;
    let module = binaries::module()?;
    let hosts = [stage::host("ours"), bare_host("plain", "plain", None)];
    let clusters = [
        stage::cluster(&module, "ours", &socket, &target("ours"), false),
        envoy::tcp_cluster("plain", web.addr, false),
    ];
    let (_envoy, addr) = start(version, dir.path(), &hosts, &clusters).await?;
    let reserved = [
        ("x-adit-target", "1"),
        ("X-Iroh-Endpoint-Id", "2"),
        ("x-datum-target-host", "3"),
        ("x-datum-target-host", "4"),
        ("datum-node-id", "5"),
        ("datum-target-port", "6"),
        ("x-kept", "7"),
    ];
    for (host, kept) in [("ours.test", 1), ("plain.test", reserved.len())] {
        let mut client = Client::http1(addr, host).await?;
        let answer = client.send(Method::GET, "/echo", &reserved, empty());
        let answer = patiently(host, answer).await?.text().to_lowercase();
        let seen = reserved
            .iter()
            .filter(|(name, _)| answer.contains(&name.to_lowercase()))
            .count();
        assert_eq!(seen, kept, "{host}: {answer}");
    }
    Ok(())
}

/// After a filter before ours has changed the route, the new one decides.
async fn a_route_chosen_late_is_the_one_that_counts(version: &str) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let socket = dir.path().join("dialer.sock");
    let web = HttpService::start()?;
    let service = web.addr;
    let _dialer = FakeDialer::start(&socket, move |opened| opened.join(service))?;
    let module = binaries::module()?;
    let mut late = stage::with_metadata(
        envoy::prefix_route("late"),
        stage::metadata(&target("late")),
    );
    late["match"]["headers"] = json!([{"name": "late", "string_match": {"exact": "yes"}}]);
    let early = stage::with_metadata(envoy::prefix_route("late"), json!({"name": "no target"}));
    let host = envoy::virtual_host("a", &["a.test"], &[late, early]);
    let lua = json!({
        "name": "lua",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
            "default_source_code": {"inline_string":
                "function envoy_on_request(h) h:headers():replace('late', 'yes'); h:clearRouteCache() end"},
        },
    });
    let ours = stage::filter(&module, json!({}));
    let resources = json!({
        "listeners": [stage::listener_with(&[host], &[lua, ours])],
        "clusters": [stage::cluster(&module, "late", &socket, &target("late"), false)],
    });
    let envoy = Envoy::start(version, dir.path(), 1, &resources).await?;
    let addr = envoy.listener("main").await?;
    let mut client = Client::http1(addr, "a.test").await?;
    let answer = patiently("the late route", client.get("/echo")).await?;
    assert_eq!(answer.status, 200, "{}", answer.text());
    Ok(())
}

async fn requests_are_counted_and_named_in_the_access_log(version: &str) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let socket = dir.path().join("dialer.sock");
    let web = HttpService::start()?;
    let service = web.addr;
    let _dialer = FakeDialer::start(&socket, move |opened| async move {
        match opened.target.name.as_str() {
            "off" => opened.refuse(ErrorClass::Offline).await,
            _ => opened.join(service).await,
        }
    })?;
    let module = binaries::module()?;
    let hosts = [
        stage::host("on"),
        stage::host("off"),
        bare_host("plain", "plain", None),
        bare_host("wrong", "on", Some(json!({"name": "wrong"}))),
    ];
    let clusters = [
        stage::cluster(&module, "on", &socket, &target("on"), false),
        stage::cluster(&module, "off", &socket, &target("off"), false),
        envoy::tcp_cluster("plain", web.addr, false),
    ];
    let (mut envoy, addr) = start(version, dir.path(), &hosts, &clusters).await?;
    for (host, times) in [("on", 3), ("off", 2), ("plain", 4), ("wrong", 1)] {
        for _ in 0..times {
            let mut client = Client::http1(addr, &format!("{host}.test")).await?;
            patiently(host, client.get("/echo")).await?;
        }
    }
    for (outcome, expected) in [("answered", 3), ("offline", 2), ("misconfigured", 1)] {
        let name = format!("adit.requests_total.outcome.{outcome}");
        process::until(&name, async || {
            (envoy.stat(&name).await.ok()? == expected).then_some(())
        })
        .await?;
    }
    let prometheus = envoy.admin.get("/stats/prometheus").await?;
    assert!(
        prometheus.contains(r#"adit_requests_total{outcome="offline"} 2"#),
        "{prometheus}"
    );
    assert!(prometheus.contains("adit_response_wait_ms_bucket"));

    let admin = envoy.admin.clone();
    let log = dir.path().join("envoy.log");
    // The access log is written in intervals; a shutdown writes the rest.
    let (_, _) = admin.send(Method::POST, "/quitquitquit", "").await?;
    envoy.process.wait().await?;
    let log = std::fs::read_to_string(log).context("Envoy's log")?;
    let line = |host: &str| {
        log.lines()
            .find(|line| line.starts_with(&format!("ACCESS GET {host}.test ")))
            .unwrap_or_else(|| panic!("no line for {host}: {log}"))
            .to_owned()
    };
    let metadata = |host| {
        let line = line(host);
        let json = line.rsplit_once(' ').map(|(_, json)| json.to_owned());
        serde_json::from_str::<Value>(&json.unwrap_or_default()).expect("JSON")
    };
    assert_eq!(
        metadata("on"),
        json!({"name": "on", "target": "svc.test:7777"})
    );
    assert_eq!(
        metadata("off"),
        json!({"name": "off", "target": "svc.test:7777", "error": "offline"})
    );
    assert_eq!(
        metadata("wrong"),
        json!({"name": "wrong", "error": "misconfigured"})
    );
    assert!(line("off").contains(" 503 UF "), "{}", line("off"));
    assert!(line("wrong").contains(" 500 - adit_misconfigured "));
    assert!(line("plain").ends_with(" -"), "{}", line("plain"));
    Ok(())
}
