//! Everything a user of a cluster does, and what must hold meanwhile; through
//! Envoy Gateway's Envoy, on both supported versions where Envoy takes part.
//!
//! | what happens | what must hold |
//! |---|---|
//! | requests of every kind | each reaches the agent's service |
//! | a SecurityPolicy chosen by label | refuses all of them, CONNECT too |
//! | the agent is killed | fast 503 with the page, `ConnectorsReady=False`, no write to Envoy Gateway's objects |
//! | the agent starts elsewhere with the same key | traffic again, no such write either |
//! | the endpoint changes under load | traffic moves, no request fails |
//! | a rule is inserted on top under load | no request fails, none reaches the wrong service |
//! | two more Envoys with dialers of their own | the agent lets them in |
//! | the HTTPProxy is deleted | nothing is left behind |

use std::time::{Duration, Instant};

use adit_tests::{
    bare,
    client::{
        connect, grpc,
        http::{Client, get},
        load::Load,
        patiently, ws,
    },
    connector::Connector,
    kube::{
        Class, Kind, Stack, Write,
        audit::Mark,
        objects::is_true,
        site::{Site, rule, tunnel},
    },
    on_the_stack,
    pattern::Pattern,
    process::until,
    services::{
        grpc::Note,
        http::HttpService,
        tcp::{Manner, TcpService},
    },
};
use anyhow::{Context, Result, ensure};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

on_the_stack!(
    every_client_reaches_the_agents_service_on_1_39,
    every_client_reaches_the_agents_service_on_1_40,
    a_policy_by_label_refuses_everything_connect_too,
    an_agent_that_goes_and_comes_elsewhere_writes_nothing,
    a_changed_endpoint_moves_traffic_and_loses_none,
    a_rule_on_top_misleads_no_request,
    more_envoys_with_dialers_of_their_own_are_let_in,
    a_deleted_proxy_leaves_nothing_behind,
);

/// An agent with a web and an echo service, and an HTTPProxy for each kind of
/// traffic.
struct Scene {
    site: Site,
    agent: Connector,
    web: HttpService,
    echo: TcpService,
}

impl Scene {
    async fn start(stack: &Stack, class: Class, namespace: &str) -> Result<Self> {
        let site = Site::start(stack, class, namespace).await?;
        let web = HttpService::start()?;
        let echo = TcpService::start(Manner::Echo)?;
        let targets = [web.addr.to_string(), echo.addr.to_string()];
        let mut agent = site.agent("edge", &targets)?;
        agent.start().await?;
        let (plain, h2c) = (
            format!("http://{}", web.addr),
            format!("h2c://{}", web.addr),
        );
        site.proxy("web", "web.test", json!([rule("/", "edge", &plain)]))
            .await?;
        site.proxy("h2", "h2.test", json!([rule("/", "edge", &h2c)]))
            .await?;
        let tcp = format!("tcp://{}", echo.addr);
        site.proxy("echo", "echo.test", json!([tunnel("edge", &tcp)]))
            .await?;
        for name in ["web", "h2", "echo"] {
            site.until_true(name, "Programmed").await?;
        }
        let scene = Self {
            site,
            agent,
            web,
            echo,
        };
        scene.answers("web.test", 200).await?;
        Ok(scene)
    }

    fn authority(&self) -> String {
        format!("echo.test:{}", self.echo.addr.port())
    }

    /// Waits until a GET is answered with this status, and returns the answer.
    async fn answers(&self, host: &str, status: u16) -> Result<adit_tests::client::http::Answer> {
        until(&format!("{status} of {host}"), async || {
            let answer = get(self.site.addr(), host, "/echo").await.ok()?;
            (answer.status == status).then_some(answer)
        })
        .await
        .with_context(|| self.site.last_words())
    }
}

async fn every_client_reaches_the_agents_service_on_1_39(stack: &Stack) -> Result<()> {
    every_client(stack, Class::Envoy139, "clients-139").await
}

async fn every_client_reaches_the_agents_service_on_1_40(stack: &Stack) -> Result<()> {
    every_client(stack, Class::Envoy140, "clients-140").await
}

async fn every_client(stack: &Stack, class: Class, namespace: &str) -> Result<()> {
    let scene = Scene::start(stack, class, namespace).await?;
    let addr = scene.site.addr();
    let all = async {
        let mut h1 = Client::http1(addr, "web.test").await?;
        let answer = h1.get("/echo?x=1").await?;
        ensure!(answer.status == 200 && answer.json()?["path"] == "/echo?x=1");
        h1.upload(7, 3 << 20).await?;
        let got = h1.download("/download?bytes=3000000&seed=9").await?;
        ensure!(got.len == 3_000_000 && got.sha256 == Pattern::sha256(9, 3_000_000));

        let mut h2 = Client::http2(addr, "h2.test").await?;
        let version = h2.get("/echo").await?.json()?["version"].clone();
        ensure!(version == "HTTP/2.0", "{version}");
        h2.upload(8, 3 << 20).await?;

        let mut socket = ws::open(addr, "web.test").await?;
        socket.send("hello".into()).await?;
        let back = socket.next().await.context("an answer")??;
        ensure!(back.into_text()?.as_str() == "hello");

        let note = Note {
            text: "x".into(),
            number: 5,
        };
        let mut stub = grpc::Client::connect(addr, "h2.test").await?;
        ensure!(stub.unary(note.clone()).await?.into_inner() == note);

        let mut tunnel = connect::http1(addr, &scene.authority(), b"early").await?;
        ensure!(tunnel.status == 200, "{}", tunnel.head);
        ensure!(tunnel.read_exact(5).await? == b"early");
        tunnel.tcp.write_all(b"more").await?;
        ensure!(tunnel.read_exact(4).await? == b"more");

        let h2c = connect::Http2::connect(addr).await?;
        let mut tunnel = h2c.tunnel(&scene.authority()).await?;
        ensure!(tunnel.status == 200, "{}", tunnel.status);
        tunnel.send("whole").await?;
        ensure!(tunnel.read_at_least(5).await? == b"whole");

        // Neither another port nor a host without a tunnel is opened by CONNECT.
        ensure!(connect::http1(addr, "echo.test:1", b"").await?.status != 200);
        ensure!(connect::http1(addr, "web.test:80", b"").await?.status != 200);
        Ok(())
    };
    patiently("every client", all)
        .await
        .with_context(|| scene.site.last_words())?;

    // What is ours to set never comes from a client.
    let mut forged = Client::http1(addr, "web.test").await?;
    let headers = [
        ("x-adit-anything", "1"),
        ("x-datum-target-host", "evil"),
        ("datum-node-id", "evil"),
    ];
    let seen = forged
        .send(
            http::Method::GET,
            "/echo",
            &headers,
            adit_tests::client::http::empty(),
        )
        .await?;
    for (name, _) in headers {
        ensure!(
            !seen.text().contains(name),
            "{name} reached the service: {}",
            seen.text()
        );
    }
    scene.site.end().await
}

async fn a_policy_by_label_refuses_everything_connect_too(stack: &Stack) -> Result<()> {
    let scene = Scene::start(stack, Class::Envoy140, "policy").await?;
    let addr = scene.site.addr();
    let selector = |proxy: &str| {
        json!({"group": "gateway.networking.k8s.io", "kind": "HTTPRoute",
               "matchLabels": {"networking.datumapis.com/httpproxy": proxy}})
    };
    scene
        .site
        .objects
        .apply(
            "policy",
            json!({
                "apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": "SecurityPolicy",
                "metadata": {"name": "nobody"},
                "spec": {
                    "targetSelectors": [selector("web"), selector("h2"), selector("echo")],
                    "authorization": {"defaultAction": "Deny"},
                },
            }),
        )
        .await?;
    scene.answers("web.test", 403).await?;
    scene.answers("h2.test", 403).await?;
    let refused = until("refused CONNECT", async || {
        let answer = connect::http1(addr, &scene.authority(), b"").await.ok()?;
        (answer.status == 403).then_some(())
    });
    refused.await.with_context(|| scene.site.last_words())?;
    let seen = scene.echo.record.connections();
    let h2c = connect::Http2::connect(addr).await?;
    ensure!(
        h2c.tunnel(&scene.authority()).await?.status == 403,
        "CONNECT by HTTP/2"
    );
    let socket = ws::open(addr, "web.test").await;
    ensure!(socket.is_err(), "a WebSocket was let in");
    let mut stub = grpc::Client::connect(addr, "h2.test").await?;
    let note = Note {
        text: "x".into(),
        number: 1,
    };
    ensure!(stub.unary(note).await.is_err(), "a gRPC call was let in");
    ensure!(
        scene.echo.record.connections() == seen,
        "a refused CONNECT reached the service"
    );
    scene.site.end().await
}

/// The writes to what Envoy Gateway programs Envoy from, in a namespace. What
/// Envoy Gateway itself writes is their status.
fn reprogrammed(stack: &Stack, mark: Mark, namespace: &str) -> Result<Vec<Write>> {
    let kinds = [
        "envoypatchpolicies",
        "envoyextensionpolicies",
        "backendtrafficpolicies",
        "backends",
        "httproutes",
        "gateways",
    ];
    let writes = stack.plane.writes_since(mark)?;
    let ours = writes.into_iter().filter(|w| {
        w.namespace == namespace && kinds.contains(&w.resource.as_str()) && w.subresource.is_empty()
    });
    Ok(ours.collect())
}

async fn an_agent_that_goes_and_comes_elsewhere_writes_nothing(stack: &Stack) -> Result<()> {
    let mut scene = Scene::start(stack, Class::Envoy140, "away").await?;
    let mark = stack.plane.mark();
    scene.agent.kill()?;

    // The dialer finds out by itself; the control plane has no part in it. What
    // was on its way through the dead tunnels is answered by Envoy alone.
    let answer = until("503 that says when to come again", async || {
        let answer = get(scene.site.addr(), "web.test", "/echo").await.ok()?;
        (answer.status == 503 && answer.header("retry-after").is_some()).then_some(answer)
    })
    .await
    .with_context(|| scene.site.last_words())?;
    println!("{}", answer.text());
    let mut browser = Client::http1(scene.site.addr(), "web.test").await?;
    let begun = Instant::now();
    let accepts = [("accept", "text/html")];
    let page = browser
        .send(
            http::Method::GET,
            "/",
            &accepts,
            adit_tests::client::http::empty(),
        )
        .await?;
    let took = begun.elapsed();
    ensure!(
        page.status == 503 && page.text().contains("<html"),
        "{}",
        page.text()
    );
    println!("503 of an agent that is known to be away after {took:?}");
    scene
        .site
        .until_false(Kind::CONNECTOR, "edge", "Ready", "ConnectorNotReady")
        .await?;
    for proxy in ["web", "h2", "echo"] {
        scene
            .site
            .until(Kind::HTTP_PROXY, proxy, "ConnectorsReady=False", |p| {
                !is_true(p, "ConnectorsReady") && is_true(p, "Programmed")
            })
            .await?;
    }

    // The same key on another address.
    let begun = Instant::now();
    scene.agent.start().await?;
    scene.answers("web.test", 200).await?;
    println!(
        "traffic again {:?} after the agent's start elsewhere",
        begun.elapsed()
    );
    scene.site.until_true("web", "ConnectorsReady").await?;
    let writes = reprogrammed(stack, mark, "away")?;
    ensure!(writes.is_empty(), "{writes:?}");
    scene.site.end().await
}

async fn a_changed_endpoint_moves_traffic_and_loses_none(stack: &Stack) -> Result<()> {
    let mut scene = Scene::start(stack, Class::Envoy140, "moves").await?;
    let other = HttpService::start()?;
    let targets = json!([
        scene.web.addr.to_string(),
        scene.echo.addr.to_string(),
        other.addr.to_string()
    ]);
    scene.agent.set("targets", targets).reconfigure()?;
    scene
        .site
        .until(Kind::CONNECTOR_ADVERTISEMENT, "edge", "new target", |a| {
            a["spec"]
                .to_string()
                .contains(&format!("{}", other.addr.port()))
        })
        .await?;
    let load = Load::begin(scene.site.addr(), "web.test", "/echo", 6);
    load.answers(50).await?;
    let services = [
        (&other, &scene.web),
        (&scene.web, &other),
        (&other, &scene.web),
    ];
    for (new, old) in services {
        let endpoint = format!("http://{}", new.addr);
        let before = new.record.requests().len();
        scene
            .site
            .proxy("web", "web.test", json!([rule("/", "edge", &endpoint)]))
            .await?;
        until("traffic at the new endpoint", async || {
            (new.record.requests().len() > before + 20).then_some(())
        })
        .await
        .with_context(|| scene.site.last_words())?;
        scene.site.until_true("web", "Programmed").await?;
        // The old route is gone, and with it the last request for the old service.
        let labels = "networking.datumapis.com/httpproxy=web";
        scene
            .site
            .objects
            .until_list(Kind::HTTP_ROUTE, "moves", labels, "single route", |r| {
                r.len() == 1
            })
            .await?;
        load.answers(50).await?;
        let settled = old.record.requests().len();
        load.answers(50).await?;
        ensure!(
            old.record.requests().len() == settled,
            "the old service still gets requests"
        );
    }
    let answered = load.end().await.with_context(|| scene.site.last_words())?;
    println!("{answered} requests, none failed, while the endpoint changed three times");
    scene.site.end().await
}

async fn a_rule_on_top_misleads_no_request(stack: &Stack) -> Result<()> {
    let mut scene = Scene::start(stack, Class::Envoy140, "on-top").await?;
    let services = [
        HttpService::start()?,
        HttpService::start()?,
        HttpService::start()?,
    ];
    let mut targets: Vec<_> = services.iter().map(|s| s.addr.to_string()).collect();
    targets.extend([scene.web.addr.to_string(), scene.echo.addr.to_string()]);
    scene.agent.set("targets", json!(targets)).reconfigure()?;
    scene
        .site
        .until(Kind::CONNECTOR_ADVERTISEMENT, "edge", "new targets", |a| {
            services
                .iter()
                .all(|s| a["spec"].to_string().contains(&s.addr.port().to_string()))
        })
        .await?;
    let prefixes = ["/a", "/b", "/c"];
    let one = |n: usize| rule(prefixes[n], "edge", &format!("http://{}", services[n].addr));
    scene
        .site
        .proxy("many", "many.test", json!([one(1), one(2)]))
        .await?;
    scene.site.until_true("many", "Programmed").await?;
    let served = until("both rules", async || {
        let b = get(scene.site.addr(), "many.test", "/b/1").await.ok()?;
        let c = get(scene.site.addr(), "many.test", "/c/1").await.ok()?;
        (b.status == 200 && c.status == 200).then_some(())
    });
    served.await.with_context(|| scene.site.last_words())?;
    let loads = ["/b/x", "/c/x"].map(|path| Load::begin(scene.site.addr(), "many.test", path, 3));
    loads[0].answers(20).await?;
    // On top, away again, and on top of a rule that goes at the same time.
    let orders: [Vec<Value>; 4] = [
        vec![one(0), one(1), one(2)],
        vec![one(1), one(2)],
        vec![one(2), one(1)],
        vec![one(0), one(2), one(1)],
    ];
    for rules in orders {
        let with_a = rules.len() == 3;
        scene
            .site
            .proxy("many", "many.test", Value::Array(rules))
            .await?;
        let status = if with_a { 200 } else { 404 };
        until("the new order", async || {
            let answer = get(scene.site.addr(), "many.test", "/a/1").await.ok()?;
            (answer.status == status).then_some(())
        })
        .await
        .with_context(|| scene.site.last_words())?;
        scene.site.until_true("many", "Programmed").await?;
        for load in &loads {
            load.answers(20).await?;
        }
    }
    for load in loads {
        let answered = load.end().await.with_context(|| scene.site.last_words())?;
        println!("{answered} requests, none failed, while rules were inserted and moved");
    }
    for (service, prefix) in services.iter().zip(prefixes) {
        for request in service.record.requests() {
            ensure!(
                request.path.starts_with(prefix),
                "{} came to {prefix}",
                request.path
            );
        }
    }
    scene.site.end().await
}

async fn more_envoys_with_dialers_of_their_own_are_let_in(stack: &Stack) -> Result<()> {
    let scene = Scene::start(stack, Class::Envoy140, "fleet").await?;
    let target = bare::target(
        &[&scene.agent.key.id],
        &scene.web.addr.to_string(),
        Duration::from_secs(5),
    )?;
    let mut fleet = Vec::new();
    for (name, version) in [("second", "1.39.3"), ("third", "1.40.0")] {
        let dialer = scene.site.another_dialer(name).await?;
        let dir = scene.site.dir().join(name);
        std::fs::create_dir(&dir)?;
        let route = bare::Route {
            name: "web",
            target: target.clone(),
            h2: false,
            connect: false,
        };
        let envoy = bare::envoy(version, &dir, &dialer.socket, &[route]).await?;
        fleet.push((dialer, envoy));
    }
    let ids = fleet.iter().map(|(dialer, _)| dialer.id.clone());
    let mut expect: Vec<_> = ids.chain([scene.site.dialer.id.clone()]).collect();
    expect.sort();
    scene
        .site
        .until(Kind::CONNECTOR, "edge", "three dialers", |c| {
            c["status"]["allowedDialers"] == json!(expect)
        })
        .await?;
    for (dialer, envoy) in &fleet {
        let addr = envoy.listener("main").await?;
        until("an answer through another Envoy", async || {
            let answer = get(addr, "web.test", "/echo").await.ok()?;
            (answer.status == 200).then_some(())
        })
        .await
        .with_context(|| dialer.process.last_words())?;
    }
    scene.answers("web.test", 200).await?;

    // One that goes in an orderly way is let in no more.
    let (mut dialer, _envoy) = fleet.remove(0);
    dialer.process.terminate().await?;
    scene
        .site
        .until(Kind::CONNECTOR, "edge", "two dialers", |c| {
            c["status"]["allowedDialers"]
                .as_array()
                .is_some_and(|all| all.len() == 2 && !all.contains(&json!(dialer.id)))
        })
        .await?;
    scene.site.end().await
}

async fn a_deleted_proxy_leaves_nothing_behind(stack: &Stack) -> Result<()> {
    let scene = Scene::start(stack, Class::Envoy140, "gone").await?;
    let (_client, mut held) = {
        let client = connect::Http2::connect(scene.site.addr()).await?;
        let mut tunnel = client.tunnel(&scene.authority()).await?;
        tunnel.send("hello").await?;
        ensure!(tunnel.read_at_least(5).await? == b"hello");
        (client, tunnel)
    };
    for name in ["web", "h2", "echo"] {
        scene
            .site
            .objects
            .delete(Kind::HTTP_PROXY, "gone", name)
            .await?;
    }
    let kinds = [
        Kind::HTTP_ROUTE,
        Kind::BACKEND,
        Kind::BACKEND_TRAFFIC_POLICY,
        Kind::ENVOY_PATCH_POLICY,
        Kind::ENVOY_EXTENSION_POLICY,
        Kind::REFERENCE_GRANT,
    ];
    for kind in kinds {
        scene
            .site
            .objects
            .until_list(kind, "gone", "", "empty list", <[Value]>::is_empty)
            .await
            .with_context(|| scene.site.last_words())?;
    }
    scene.answers("web.test", 404).await?;
    // What was open for a target that is no more ends, too.
    let ended = async { Ok(held.read_to_end().await) };
    patiently("the end of the tunnel", ended).await?;
    scene.site.end().await
}
