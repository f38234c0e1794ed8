//! The examples of `observe/` for Envoy, on real Envoy, dialer and connector:
//! what its access log and its traces say of a tunnel.
//!
//! | request | class | connector | path |
//! |---|---|---|---|
//! | reaches the service | - | the one that answered | direct |
//! | nothing listens at the target | refused | those of the target | - |
//! | the connector is away | offline | those of the target | - |

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use adit_tests::{
    bare::{self, Dialer},
    binaries,
    client::{
        connect,
        http::{Client, empty},
        patiently,
    },
    collector::{Collector, Span},
    connector::Connector,
    envoy::{self, Envoy},
    filter_stage::{self, FakeDialer, Opened},
    keys::Key,
    observed, on_each_envoy,
    process::until,
    services::{http::HttpService, nobody},
};
use adit_wire::{Connected, EndpointId, Target, Verdict};
use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use http::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;

on_each_envoy!(
    the_access_log_names_connector_class_and_path,
    the_connector_that_answered_is_logged_among_many_at_once,
    one_trace_goes_from_the_client_to_the_service,
);

/// Longer than a dial to nobody takes (the idle timeout, 3 s, and a bit): one that
/// is still going on at the deadline is `timeout`, not `offline`.
const DEADLINE: Duration = Duration::from_secs(10);
const HOSTS: [&str; 3] = ["web", "gone", "away"];

/// Envoy with the examples, and everything behind it.
struct Stage {
    envoy: Envoy,
    addr: std::net::SocketAddr,
    web: HttpService,
    connector: Connector,
    away: Key,
    _dialer: Dialer,
    dir: TempDir,
}

fn example(name: &str) -> Result<Value> {
    let text = fs::read_to_string(observed::file(name))?;
    serde_saphyr::from_str(&text).with_context(|| name.to_owned())
}

/// The parts of both examples that belong into HttpConnectionManager.
fn with_examples(listener: &mut Value) -> Result<()> {
    let manager = &mut listener["filter_chains"][0]["filters"][0]["typed_config"];
    manager["access_log"] = example("access-log.yaml")?["access_log"].take();
    manager["tracing"] = example("tracing.yaml")?["http_connection_manager"]["tracing"].take();
    ensure!(manager["access_log"].is_array() && manager["tracing"].is_object());
    Ok(())
}

/// The cluster of the example, with another address.
fn collector_cluster(collector: &Collector) -> Result<Value> {
    let mut cluster = example("tracing.yaml")?["clusters"][0].take();
    let endpoint = &mut cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"];
    ensure!(endpoint["address"]["socket_address"]["port_value"] == 4317);
    endpoint["address"]["socket_address"] =
        json!({"address": collector.addr.ip(), "port_value": collector.addr.port()});
    Ok(cluster)
}

async fn start(version: &str, collector: &Collector) -> Result<Stage> {
    let dir = tempfile::tempdir()?;
    let web = HttpService::start()?;
    let gone = nobody()?;
    let key = Key::new(dir.path(), "dialer")?;
    let away = Key::new(dir.path(), "away")?;
    let targets = [web.addr.to_string(), gone.to_string()];
    let mut connector = Connector::new(dir.path(), "edge", &[&key.id], &targets)?;
    connector.start().await?;
    let bound = connector.bound().await?[0];
    let hints = [(&*connector.key.id, bound), (&*away.id, nobody()?)];
    let dialer = Dialer::start(dir.path(), &key, &hints, &[]).await?;

    let edge = connector.key.id.clone();
    let ends = [
        (&edge, &targets[0]),
        (&edge, &targets[1]),
        (&away.id, &targets[0]),
    ];
    let (mut hosts, mut clusters) = (Vec::new(), vec![collector_cluster(collector)?]);
    for (name, (id, service)) in HOSTS.into_iter().zip(ends) {
        let target = bare::target(&[id], service, DEADLINE)?;
        let mut route = envoy::prefix_route(name);
        route["metadata"] = bare::metadata(&target, false);
        hosts.push(envoy::virtual_host(
            name,
            &[&format!("{name}.test")],
            &[route],
        ));
        clusters.push(bare::cluster(name, &dialer.socket, &target, false)?);
    }
    let mut listener = envoy::http_listener("main", &hosts.into(), &[bare::filter()?]);
    with_examples(&mut listener)?;
    let resources = json!({"listeners": [listener], "clusters": clusters});
    let envoy = Envoy::start(version, dir.path(), binaries::concurrency(), &resources).await?;
    let addr = envoy.listener("main").await?;
    Ok(Stage {
        envoy,
        addr,
        web,
        connector,
        away,
        _dialer: dialer,
        dir,
    })
}

/// Ends Envoy and reads its access log: it is written in intervals, and the rest
/// at the end. The lines by their host.
async fn access_log(envoy: &mut Envoy, dir: &Path) -> Result<BTreeMap<String, Vec<Value>>> {
    envoy.admin.send(Method::POST, "/quitquitquit", "").await?;
    envoy.process.wait().await?;
    let log = fs::read_to_string(dir.join("envoy.log"))?;
    let mut lines: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for line in log.lines().filter(|line| line.starts_with('{')) {
        let line: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        let host = line["host"].as_str().context("a host")?.to_owned();
        lines.entry(host).or_default().push(line);
    }
    Ok(lines)
}

async fn the_access_log_names_connector_class_and_path(version: &str) -> Result<()> {
    let collector = Collector::start().await?;
    let mut stage = start(version, &collector).await?;
    for host in HOSTS {
        let mut client = Client::http1(stage.addr, &format!("{host}.test")).await?;
        patiently(host, client.get("/echo?a=b")).await?;
    }
    let lines = access_log(&mut stage.envoy, stage.dir.path()).await?;
    let (edge, away) = (&stage.connector.key.id, &stage.away.id);
    for (host, status, connector, path, class) in [
        ("web", 200, edge, json!("direct"), Value::Null),
        ("gone", 502, edge, Value::Null, json!("refused")),
        ("away", 503, away, Value::Null, json!("offline")),
    ] {
        let found = &lines[&format!("{host}.test")];
        assert_eq!(found.len(), 1, "{found:?}");
        let line = &found[0];
        println!("{line}");
        let got = ["status", "connector", "tunnel_path", "class"].map(|key| line[key].clone());
        assert_eq!(
            got,
            [json!(status), json!(connector), path, class],
            "{line}"
        );
        assert_eq!(line["cluster"], host);
        assert_eq!(line["name"], "test");
        assert_eq!(line["path"], "/echo?a=b");
        ensure!(line["service"].is_string() && line["request_id"].is_string());
        ensure!(
            line["trace_id"].as_str().is_some_and(|id| id.len() == 32),
            "{line}"
        );
    }
    Ok(())
}

const ONE: EndpointId = EndpointId::from_bytes([1; 32]);
const TWO: EndpointId = EndpointId::from_bytes([2; 32]);

/// Answers for `one` and `two` directly, as the connector of that name; for all
/// else as the second one of the target, through a relay.
async fn as_asked(mut opened: Opened, service: std::net::SocketAddr) -> Result<()> {
    let (connector, path) = match opened.target.name.as_str() {
        "one" => (ONE, adit_wire::Path::Direct),
        "two" => (TWO, adit_wire::Path::Direct),
        _ => (TWO, adit_wire::Path::Relay),
    };
    let verdict = Verdict::Connected(Connected {
        connector,
        path,
        rtt: Duration::from_millis(1),
    });
    opened.stream.write_all(&verdict.encode()).await?;
    let mut tcp = tokio::net::TcpStream::connect(service).await?;
    tokio::io::copy_bidirectional(&mut opened.stream, &mut tcp).await?;
    Ok(())
}

async fn the_connector_that_answered_is_logged_among_many_at_once(version: &str) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let web = HttpService::start()?;
    let service = web.addr;
    let socket = dir.path().join("dialer.sock");
    let _dialer = FakeDialer::start(&socket, move |opened| as_asked(opened, service))?;
    let target = |name: &str| Target {
        connectors: match name {
            "one" => vec![ONE],
            "two" => vec![TWO],
            _ => vec![ONE, TWO],
        },
        ..filter_stage::target(name)
    };
    let module = binaries::module()?;
    // The last one is HTTP/2 to the service: one connection, many requests.
    let names = ["one", "two", "either", "h2-either"];
    let hosts = names.map(|name| {
        let own = filter_stage::metadata(&target(name));
        let routes = [envoy::connect_route(name), envoy::prefix_route(name)];
        let routes = routes.map(|route| filter_stage::with_metadata(route, own.clone()));
        envoy::virtual_host(name, &[&format!("{name}.test")], &routes)
    });
    let clusters = names.map(|name| {
        let h2 = name.starts_with("h2");
        filter_stage::cluster(&module, name, &socket, &target(name), h2)
    });
    let filters = [filter_stage::filter(&module, json!({}))];
    let mut listener = envoy::http_listener("main", &hosts.to_vec().into(), &filters);
    listener["filter_chains"][0]["filters"][0]["typed_config"]["access_log"] =
        example("access-log.yaml")?["access_log"].take();
    let resources = json!({"listeners": [listener], "clusters": clusters.to_vec()});
    let mut envoy = Envoy::start(version, dir.path(), 1, &resources).await?;
    let addr = envoy.listener("main").await?;

    // Answers of different connections come in turns, on one worker.
    let clients = (0..24).map(|i| async move {
        let mut client = Client::http1(addr, &format!("{}.test", names[i % 4])).await?;
        for round in 0..4 {
            let path = format!("/slow?ms={}", (i * 7 + round * 11) % 30);
            ensure!(client.get(&path).await?.status == 200);
        }
        Ok(())
    });
    patiently("many requests", try_join_all(clients)).await?;
    let tunnel = patiently("a tunnel", connect::http1(addr, "either.test:7777", b"")).await?;
    ensure!(tunnel.status == 200);
    drop(tunnel);

    let lines = access_log(&mut envoy, dir.path()).await?;
    let (mut count, mut tunnels) = (0, 0);
    for line in lines.values().flatten() {
        let host = line["host"].as_str().unwrap_or_default();
        let (connector, path) = match host {
            "one.test" => (ONE, "direct"),
            "two.test" => (TWO, "direct"),
            _ => (TWO, "relay"),
        };
        assert_eq!(line["connector"], connector.to_string(), "{line}");
        assert_eq!(line["tunnel_path"], path, "{line}");
        assert_eq!(line["class"], Value::Null, "{line}");
        count += 1;
        tunnels += usize::from(line["method"] == "CONNECT");
    }
    assert_eq!((count, tunnels), (24 * 4 + 1, 1));
    Ok(())
}

async fn one_trace_goes_from_the_client_to_the_service(version: &str) -> Result<()> {
    let collector = Collector::start().await?;
    let stage = start(version, &collector).await?;
    let parent = "00f067aa0ba902b7";
    for (number, host) in HOSTS.into_iter().enumerate() {
        let trace = format!("4bf92f3577b34da6a3ce929d0e0e473{number}");
        let traceparent = format!("00-{trace}-{parent}-01");
        let mut client = Client::http1(stage.addr, &format!("{host}.test")).await?;
        let headers = [("traceparent", &*traceparent)];
        let answer = client.send(Method::GET, "/echo", &headers, empty());
        patiently(host, answer).await?;
        let spans = until(&format!("two spans of {host}"), async || {
            let spans = collector.trace(&trace);
            (spans.len() >= 2).then_some(spans)
        })
        .await?;
        println!("{host}: {spans:#?}");
        let of = |parent: &str| -> Result<&Span> {
            let found = spans.iter().find(|s| s.parent == parent);
            found.with_context(|| format!("no span below {parent}: {spans:#?}"))
        };
        let server = of(parent)?;
        let upstream = of(&server.id)?;
        assert_eq!(server.service, "adit-gateway");
        assert_eq!(upstream.attributes["upstream_cluster"], host);
        let said = |key: &str| server.attributes.get(key).map(String::as_str);
        let (connector, class) = match host {
            "web" => (&stage.connector.key.id, None),
            "gone" => (&stage.connector.key.id, Some("refused")),
            _ => (&stage.away.id, Some("offline")),
        };
        assert_eq!(said("adit.connector"), Some(&**connector), "{host}");
        assert_eq!(said("adit.class").filter(|c| *c != "-"), class, "{host}");
        assert_eq!(said("adit.name"), Some("test"));
        if host != "web" {
            continue;
        }
        assert_eq!(said("adit.path"), Some("direct"));
        // What the service behind the tunnel got: this trace, below Envoy's span
        // of the upstream.
        let received = stage.web.record.requests();
        let got = received.iter().find_map(|r| r.header("traceparent"));
        assert_eq!(got, Some(&*format!("00-{trace}-{}-01", upstream.id)));
    }
    Ok(())
}
