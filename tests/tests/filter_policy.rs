//! Which requests the HTTP filter lets through, as what, and what it writes
//! down, in real Envoy with a dialer that does as it is told.
//!
//! | what | checked |
//! |---|---|
//! | target | each way to name none or two; by the route, by the cluster, by a route chosen late |
//! | CONNECT, UDP | refused but where it is offered, and to the target's port |
//! | headers, trailers | reserved ones go, on routes of ours only |
//! | metrics, access log | outcome, name, target; also of a client that leaves |

use std::sync::{Arc, Mutex};

use adit_tests::{
    binaries,
    client::{
        connect::{self, Http2},
        grpc,
        http::{Body, Client, empty},
        patiently,
    },
    envoy::{self, Envoy},
    filter_stage::{self as stage, FakeDialer, names_nothing, shown, start, target},
    on_each_envoy, process,
    services::{grpc::Note, http::HttpService},
};
use adit_wire::ErrorClass;
use anyhow::{Context, Result};
use futures_util::stream;
use http::{HeaderMap, Method};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::{
    io::{self, AsyncReadExt as _},
    sync::Notify,
};

on_each_envoy!(
    a_route_without_a_valid_target_is_misconfigured,
    a_route_chosen_late_is_the_one_that_counts,
    connect_is_refused_where_it_is_not_offered,
    reserved_headers_of_clients_are_removed_on_our_routes_only,
    reserved_trailers_of_clients_are_removed,
    requests_are_counted_and_named_in_the_access_log,
);

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

async fn reserved_trailers_of_clients_are_removed(version: &str) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let socket = dir.path().join("dialer.sock");
    let seen = Arc::new(Mutex::new(HeaderMap::new()));
    let shared = seen.clone();
    let _dialer = FakeDialer::start(&socket, move |mut opened| {
        let seen = shared.clone();
        async move {
            opened.accept().await?;
            let mut h2 = h2::server::handshake(opened.stream).await?;
            while let Some(request) = h2.accept().await {
                let (request, mut respond) = request?;
                let seen = seen.clone();
                tokio::spawn(async move {
                    let mut body = request.into_body();
                    while body.data().await.is_some() {}
                    if let Ok(Some(trailers)) = body.trailers().await {
                        *seen.lock().expect("not poisoned") = trailers;
                    }
                    respond.send_response(http::Response::new(()), true)
                });
            }
            Ok(())
        }
    })?;
    let module = binaries::module()?;
    let clusters = [stage::cluster(&module, "a", &socket, &target("a"), true)];
    let (_envoy, addr) = start(version, dir.path(), &[stage::host("a")], &clusters).await?;
    let mut trailers = HeaderMap::new();
    trailers.insert("x-adit-late", "1".parse()?);
    trailers.insert("x-kept-late", "2".parse()?);
    let frames = [Frame::data("a body".into()), Frame::trailers(trailers)];
    let body: Body = BodyExt::boxed(StreamBody::new(stream::iter(frames.map(Ok))));
    let mut client = Client::http2(addr, "a.test").await?;
    let answer = client.send(Method::POST, "/", &[], body);
    assert_eq!(patiently("a POST", answer).await?.status, 200);
    let seen = seen.lock().expect("not poisoned");
    let names: Vec<_> = seen.keys().map(|name| name.as_str()).collect();
    assert_eq!(names, ["x-kept-late"]);
    Ok(())
}

async fn requests_are_counted_and_named_in_the_access_log(version: &str) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let socket = dir.path().join("dialer.sock");
    let web = HttpService::start()?;
    let service = web.addr;
    let asked = Arc::new(Notify::new());
    let told = asked.clone();
    let _dialer = FakeDialer::start(&socket, move |mut opened| {
        let told = told.clone();
        async move {
            match opened.target.name.as_str() {
                "off" => opened.refuse(ErrorClass::Offline).await,
                "left" => {
                    opened.accept().await?;
                    let mut request = [0; 1];
                    opened.stream.read_exact(&mut request).await?;
                    told.notify_one();
                    // No answer, until Envoy has enough.
                    io::copy(&mut opened.stream, &mut io::sink()).await?;
                    Ok(())
                }
                _ => opened.join(service).await,
            }
        }
    })?;
    let module = binaries::module()?;
    let hosts = [
        stage::host("on"),
        stage::host("off"),
        stage::host("left"),
        bare_host("plain", "plain", None),
        bare_host("wrong", "on", Some(json!({"name": "wrong"}))),
    ];
    let clusters = [
        stage::cluster(&module, "on", &socket, &target("on"), false),
        stage::cluster(&module, "off", &socket, &target("off"), false),
        stage::cluster(&module, "left", &socket, &target("left"), false),
        envoy::tcp_cluster("plain", web.addr, false),
    ];
    let (mut envoy, addr) = start(version, dir.path(), &hosts, &clusters).await?;
    for (host, times) in [("on", 3), ("off", 2), ("plain", 4), ("wrong", 1)] {
        for _ in 0..times {
            let mut client = Client::http1(addr, &format!("{host}.test")).await?;
            patiently(host, client.get("/echo")).await?;
        }
    }
    let mut client = Client::http1(addr, "left.test").await?;
    let until_asked = async {
        tokio::select! {
            answer = client.get("/echo") => anyhow::bail!("nobody answered: {answer:?}"),
            () = asked.notified() => Ok(()),
        }
    };
    patiently("a request for the client that leaves", until_asked).await?;
    drop(client);
    for (outcome, expected) in [
        ("answered", 3),
        ("offline", 2),
        ("misconfigured", 1),
        ("no_answer", 1),
    ] {
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
    let id = target("on").connectors[0].to_string();
    assert_eq!(
        metadata("on"),
        json!({"name": "on", "target": "svc.test:7777", "connector": id, "path": "direct"})
    );
    assert_eq!(
        metadata("off"),
        json!({"name": "off", "target": "svc.test:7777", "connector": id, "error": "offline"})
    );
    assert_eq!(
        metadata("left"),
        json!({"name": "left", "target": "svc.test:7777", "connector": id})
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
