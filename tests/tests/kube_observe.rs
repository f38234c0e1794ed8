//! `observe/` where there is a Kubernetes API: the reconciler's and the control
//! plane's queries on what the processes export, and the example for Envoy
//! Gateway on a real one.

use std::{fs, time::Duration};

use adit_tests::{
    client::{
        http::{Answer, Client, empty, get},
        patiently,
    },
    collector::Collector,
    kube::{
        Class, Kind, Stack, envoy_gateway,
        objects::is_true,
        reconciler,
        site::{Site, rule},
    },
    observed::{self, Query},
    on_the_stack,
    process::until,
    prometheus::{self, Job, Prometheus},
    services::http::HttpService,
};
use anyhow::{Context, Result, ensure};
use http::Method;
use serde_json::{Value, json};
use tokio_util::task::AbortOnDropHandle;

/// The span of the client, as it says itself.
const PARENT: &str = "00f067aa0ba902b7";

on_the_stack!(
    a_clusters_queries_find_what_they_name_and_faults_are_told,
    envoy_gateway_logs_and_traces_as_the_example_says,
);

/// A site with one agent, one service, and an HTTPProxy that serves it.
async fn site(stack: &Stack, class: Class, name: &str, web: &HttpService) -> Result<Site> {
    let site = Site::start(stack, class, name).await?;
    let endpoint = format!("http://{}", web.addr);
    let rules = json!([rule("/", "edge", &endpoint)]);
    site.proxy("web", "web.test", rules).await?;
    Ok(site)
}

async fn a_clusters_queries_find_what_they_name_and_faults_are_told(stack: &Stack) -> Result<()> {
    if !prometheus::is_there() {
        return Ok(());
    }
    let web = HttpService::start()?;
    let site = site(stack, Class::Envoy140, "observe", &web).await?;
    let mut agent = site.agent("edge", &[web.addr.to_string()])?;
    agent.start().await?;
    site.until(Kind::CONNECTOR, "edge", "Ready", |c| is_true(c, "Ready"))
        .await?;
    site.until_true("web", "Programmed").await?;
    let lost = json!([rule("/", "nobody", "http://127.0.0.1:1")]);
    site.proxy("lost", "lost.test", lost).await?;

    // A reconciler that may read and not write.
    let objects = &site.objects;
    objects.make_namespace("narrow", &[]).await?;
    let rules = json!([
        {"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["*"]},
    ]);
    let kubeconfig = stack.plane.user_with("narrow", "", rules).await?;
    let proxy = json!({
        "apiVersion": "networking.datumapis.com/v1alpha", "kind": "HTTPProxy",
        "metadata": {"name": "web"},
        "spec": {"hostnames": ["narrow.test"], "rules": [rule("/", "edge", "http://127.0.0.1:1")]},
    });
    objects.apply("narrow", proxy).await?;
    let dir = tempfile::tempdir()?;
    let gateway = format!("{}/edge", site.namespace);
    let flags = [
        "--watch-namespace",
        "narrow",
        "--gateway",
        &gateway,
        "--dialer-socket",
        "/nowhere.sock",
    ];
    let (_narrow, narrow) = reconciler::start(dir.path(), &kubeconfig, "narrow", &flags).await?;

    let envoy = stack.proxy(&site.gateway.of).await?;
    let jobs = [
        Job::envoy(&envoy.admin),
        Job::of("adit-dialer", &site.dialer.admin),
        Job::of("adit-connector", &agent.admin),
        Job::of("adit-reconciler", &site.admin),
        Job::of("adit-reconciler-narrow", &narrow),
    ];
    let rules = observed::hasty_rules(dir.path())?;
    let mut prometheus = Prometheus::start(dir.path(), &jobs, &rules).await?;
    let addr = site.addr();
    let traffic = tokio::spawn(async move {
        loop {
            let _ = get(addr, "web.test", "/echo").await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    let _traffic = AbortOnDropHandle::new(traffic);
    prometheus.has_scraped(5).await?;

    let kubernetes = observed::panels()?.into_iter().chain(observed::alerts()?);
    let mut queries: Vec<Query> = kubernetes.filter(Query::needs_kubernetes).collect();
    ensure!(queries.len() > 25, "only {} queries", queries.len());
    // Envoy Gateway gives the module's metrics another name.
    let named = |q: &Query| {
        q.expression.contains("dynamicmodulescustom") && !q.expression.contains("outcome=")
    };
    let before = queries.len();
    queries.extend(observed::panels()?.into_iter().filter(named));
    ensure!(queries.len() >= before + 4, "no panel of Envoy's own");
    // No Connector is `Ready` `False` yet, so there is no such series.
    let (later, now): (Vec<_>, Vec<_>) = queries
        .into_iter()
        .partition(|q| q.place == r#"alert "AditConnectorsNotReady""#);
    observed::until_all(&prometheus, &now, async || Ok(())).await?;

    for name in ["AditNotProgrammed", "AditReconcilesFail"] {
        println!("{name}: {}", prometheus.until_firing(name).await?);
    }
    let firing = prometheus.firing().await?;
    ensure!(
        !firing.contains(&"AditConnectorsNotReady".to_owned()),
        "{firing:?}"
    );
    agent.kill()?;
    for name in ["AditConnectorsNotReady", "AditProcessDown"] {
        println!("{name}: {}", prometheus.until_firing(name).await?);
    }
    ensure!(later.len() == 1, "{later:?}");
    observed::until_all(&prometheus, &later, async || Ok(())).await?;
    site.objects.delete_namespace("narrow").await?;
    site.end().await
}

/// The example as an EnvoyProxy, and its telemetry on the stack's 1.39 class, with
/// the collector where the test has one.
async fn with_the_example(stack: &Stack, collector: &Collector) -> Result<()> {
    let objects = stack.admin().await?;
    let text = fs::read_to_string(observed::file("envoy-proxy.yaml"))?;
    // As it is: the API server knows every field, and its rules hold.
    let applied = objects.apply_yaml(envoy_gateway::NAMESPACE, &text).await?;
    let mut telemetry: Value = applied[0]["spec"]["telemetry"].clone();
    let asked: Value = serde_saphyr::from_str(&text)?;
    let settings = |proxy: &Value| proxy["accessLog"]["settings"][0]["format"].clone();
    ensure!(settings(&telemetry) == settings(&asked["spec"]["telemetry"]));
    objects
        .delete(Kind::ENVOY_PROXY, envoy_gateway::NAMESPACE, "adit")
        .await?;

    let backend = json!({
        "apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": "Backend",
        "metadata": {"name": "collector"},
        "spec": {"endpoints": [{"ip": {
            "address": collector.addr.ip(), "port": collector.addr.port(),
        }}]},
    });
    objects.apply(envoy_gateway::NAMESPACE, backend).await?;
    telemetry["tracing"]["provider"]["backendRefs"] = json!([{
        "group": "gateway.envoyproxy.io", "kind": "Backend", "name": "collector",
        "port": collector.addr.port(),
    }]);
    let proxy = json!({
        "apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": "EnvoyProxy",
        "metadata": {"name": Class::Envoy139.name()},
        "spec": {"telemetry": telemetry},
    });
    let manager = "adit-tests-telemetry";
    objects
        .apply_as(manager, envoy_gateway::NAMESPACE, proxy)
        .await
        .map(drop)
}

async fn envoy_gateway_logs_and_traces_as_the_example_says(stack: &Stack) -> Result<()> {
    let collector = Collector::start().await?;
    with_the_example(stack, &collector).await?;
    let web = HttpService::start()?;
    let site = site(stack, Class::Envoy139, "telemetry", &web).await?;
    let mut agent = site.agent("edge", &[web.addr.to_string()])?;
    agent.start().await?;
    site.until_true("web", "Programmed").await?;
    until("an answer through Envoy Gateway", async || {
        let answer = get(site.addr(), "web.test", "/").await.ok()?;
        (answer.status == 200).then_some(())
    })
    .await?;
    let ask = async |number: u8| -> Result<(String, Answer)> {
        let trace = format!("4bf92f3577b34da6a3ce929d0e0e47{number:02x}");
        let traceparent = format!("00-{trace}-{PARENT}-01");
        let headers = [("traceparent", &*traceparent)];
        let mut client = Client::http1(site.addr(), "web.test").await?;
        let answer = client.send(Method::GET, "/echo", &headers, empty());
        Ok((trace, patiently("an answer", answer).await?))
    };
    let (good, answer) = ask(1).await?;
    ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
    let received = web.record.requests();
    let seen = received.iter().rev().find_map(|r| r.header("traceparent"));
    ensure!(seen.is_some_and(|t| t.contains(&good)), "{seen:?}");
    agent.kill()?;
    // The first ones after it break off with the connection that was there.
    let mut number = 1;
    let bad = until("an answer `offline`", async || {
        number += 1;
        let (trace, answer) = ask(number).await.ok()?;
        let offline = answer.status == 503 && answer.text().contains("(offline)");
        offline.then_some(trace)
    })
    .await?;

    let log = stack.envoy_gateway_dir();
    for (trace, path, class) in [
        (&good, json!("direct"), Value::Null),
        (&bad, Value::Null, json!("offline")),
    ] {
        // Attempts are sent as they end, the request's own span after them.
        let spans = until("the span of the request", async || {
            let spans = collector.trace(trace);
            let own = spans.iter().any(|s| s.parent == PARENT);
            own.then_some(spans)
        })
        .await?;
        println!("{spans:#?}");
        ensure!(spans.iter().all(|s| s.service == "adit-gateway"));
        let tagged = spans.iter().find(|s| s.parent == PARENT);
        let tags = &tagged.context("the span of the request")?.attributes;
        assert_eq!(tags["adit.connector"], agent.key.id);
        let said = tags.get("adit.class").map(String::as_str);
        assert_eq!(said.filter(|c| *c != "-"), class.as_str());
        // Written every ten seconds.
        let line = until("a line of the access log", async || {
            access_log_line(&log, trace)
        })
        .await?;
        println!("{line}");
        assert_eq!(line["connector"], *agent.key.id);
        assert_eq!(line["tunnel_path"], path);
        assert_eq!(line["class"], class);
    }
    site.end().await
}

/// The line of a trace, in whatever file of the folder it stands.
fn access_log_line(dir: &std::path::Path, trace: &str) -> Option<Value> {
    let files = fs::read_dir(dir).ok()?.flatten();
    files
        .filter_map(|file| fs::read(file.path()).ok())
        .find_map(|bytes| {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let lines = text
                .lines()
                .filter_map(|line| line.find('{').map(|at| &line[at..]));
            let mut objects = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
            objects.find(|line| line["trace_id"] == trace)
        })
}
