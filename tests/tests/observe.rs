//! `observe/` against what the processes really export: a real Prometheus
//! scrapes a real Envoy, dialer and connector, with good traffic and bad.
//!
//! | what | must |
//! |---|---|
//! | every query | run, and name only metrics, labels and values that exist |
//! | every panel | show something |
//! | every alert | be silent while all is well; ten fire for a fault that is made |
//!
//! The reconciler's and the control plane's queries are in kube_observe.rs.

use std::{collections::BTreeSet, fs, net::SocketAddr, path::Path, process::Output};

use adit_tests::{
    binaries,
    client::{http::get, patiently},
    connector::Connector,
    envoy::{self, Envoy},
    expect_ok, filter_stage,
    keys::Key,
    observed::{self, Query},
    process::until,
    prometheus::{self, Job, Prometheus, promtool},
    relay::Relay,
    services::nobody,
    stage::{EDGE, Plan, Stage},
};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio_util::task::AbortOnDropHandle;

#[path = "observe/firing.rs"]
mod firing;

const ENVOY: &str = binaries::ENVOYS[1];

#[test]
fn promtool_accepts_the_rules() -> Result<()> {
    if !prometheus::is_there() {
        return Ok(());
    }
    let rules = observed::file("alerts.yaml");
    let said = promtool(&["check", "rules", &rules.display().to_string()])?;
    ensure!(said.status.success(), "{}", words(&said));
    Ok(())
}

#[test]
fn promtool_accepts_the_example_of_a_scrape_configuration() -> Result<()> {
    if !prometheus::is_there() {
        return Ok(());
    }
    let config = observed::file("prometheus.yml");
    let said = promtool(&["check", "config", &config.display().to_string()])?;
    ensure!(said.status.success(), "{}", words(&said));
    Ok(())
}

fn words(said: &Output) -> String {
    let text = [&said.stdout[..], &said.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

#[test]
fn every_alert_says_what_is_wrong_what_to_do_and_where_to_read() -> Result<()> {
    let rules = observed::rules()?;
    ensure!(rules.len() > 20, "only {} alerts", rules.len());
    let mut names = BTreeSet::new();
    for rule in &rules {
        let name = rule["alert"].as_str().context("a name")?;
        ensure!(names.insert(name), "{name} stands there twice");
        let severity = rule["labels"]["severity"].as_str().unwrap_or_default();
        ensure!(
            ["critical", "warning", "info"].contains(&severity),
            "{name}: severity {severity:?}"
        );
        ensure!(rule["for"].is_string(), "{name} fires at the first sight");
        let text = |key: &str| rule["annotations"][key].as_str().unwrap_or_default();
        ensure!(text("summary").len() > 20, "{name} has no summary");
        ensure!(
            text("description").len() > 40,
            "{name} does not say what to do"
        );
        let page = binaries::root().join(text("runbook"));
        ensure!(page.is_file(), "{name}: no page {}", page.display());
    }
    Ok(())
}

/// Grafana itself cannot be had here; what can be wrong without it is checked.
#[test]
fn the_dashboard_is_whole_and_no_panel_covers_another() -> Result<()> {
    let dashboard = observed::dashboard()?;
    ensure!(dashboard["id"].is_null() && dashboard["uid"] == "adit");
    let variables = dashboard["templating"]["list"].as_array().context("list")?;
    let names: Vec<_> = variables
        .iter()
        .filter_map(|v| v["name"].as_str())
        .collect();
    assert_eq!(names, ["datasource", "instance"]);
    let (mut ids, mut cells, mut rows) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
    for panel in dashboard["panels"].as_array().context("panels")? {
        let title = panel["title"].as_str().context("a title")?;
        ensure!(
            !title.is_empty() && ids.insert(panel["id"].as_u64()),
            "{title}: id"
        );
        let at = |key: &str| panel["gridPos"][key].as_u64().context("gridPos");
        let (x, y, w, h) = (at("x")?, at("y")?, at("w")?, at("h")?);
        ensure!(w > 0 && h > 0 && x + w <= 24, "{title} is out of the grid");
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            ensure!(cells.insert(cell), "{title} covers another panel");
        }
        if panel["type"] == "row" {
            rows.push(title.to_owned());
            continue;
        }
        let sources = panel["targets"].as_array().context("targets")?.iter();
        for source in sources
            .map(|t| &t["datasource"])
            .chain([&panel["datasource"]])
        {
            assert_eq!(source["uid"], "${datasource}", "{title}");
        }
        ensure!(
            panel["fieldConfig"]["defaults"]["unit"].is_string(),
            "{title}"
        );
    }
    let wanted = [
        "Requests",
        "Tunnels",
        "Connectors",
        "Saturation",
        "Reconciler and control plane",
    ];
    assert_eq!(rows, wanted);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_query_finds_what_it_names_and_faults_are_told() {
    if prometheus::is_there() {
        expect_ok(whole_story().await);
    }
}

/// Envoy beside the stage's with two mistakes: a route without a valid target, and
/// a cluster whose dialer does not run.
async fn broken_envoy(dir: &Path) -> Result<(Envoy, SocketAddr)> {
    let module = binaries::module()?;
    let wrong = json!({"name": "wrong"});
    let route = filter_stage::with_metadata(envoy::prefix_route("nodialer"), wrong);
    let hosts = [
        filter_stage::host("nodialer"),
        envoy::virtual_host("wrong", &["wrong.test"], &[route]),
    ];
    let target = filter_stage::target("nodialer");
    let socket = dir.join("nobody.sock");
    let clusters = [filter_stage::cluster(
        &module, "nodialer", &socket, &target, false,
    )];
    filter_stage::start(ENVOY, dir, &hosts, &clusters).await
}

async fn whole_story() -> Result<()> {
    let relay = Relay::start().await?;
    let gone = nobody()?;
    let mut stage = Plan::of(ENVOY)
        .service("gone", format!("http://{gone}"))
        .option("relay", json!([relay.url]))
        .start()
        .await?;
    let away = Key::new(stage.dir.path(), "away")?;
    stage.add_fake("away", &away.id, nobody()?)?;

    let dir = tempfile::tempdir()?;
    let rules = observed::hasty_rules(dir.path())?;
    let (broken, broken_addr) = broken_envoy(dir.path()).await?;
    let jobs = [
        Job::envoy(&stage.gateway.envoy),
        Job {
            name: "adit-envoy-broken",
            ..Job::envoy(&broken.admin)
        },
        Job::of("adit-dialer", &stage.gateway.dialer),
        Job::of("adit-connector", &stage.connector.admin),
    ];
    let mut prometheus = Prometheus::start(dir.path(), &jobs, &rules).await?;
    let addr = stage.addr();
    let traffic = tokio::spawn(async move {
        loop {
            // Good and, after a while, bad; what each comes to is counted.
            let _ = get(addr, "web.test", "/echo").await;
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    });
    let _traffic = AbortOnDropHandle::new(traffic);

    prometheus.has_scraped(5).await?;
    let firing = prometheus.firing().await?;
    ensure!(firing.is_empty(), "all is well, and yet {firing:?}");
    the_book_lists_what_is_scraped(&prometheus).await?;

    let traffic = tokio::spawn(async move {
        loop {
            for host in ["wrong.test", "nodialer.test"] {
                let _ = get(broken_addr, host, "/").await;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    });
    let _bad_traffic = AbortOnDropHandle::new(traffic);
    // Services and connectors that are not there; twice, as a counter of
    // Envoy's does not exist before its first event.
    ask(&stage, "gone.test", "refused").await?;
    ask(&stage, "away.test", "offline").await?;
    for query in [
        r#"envoy_adit_requests_total{outcome="refused"}"#,
        r#"envoy_adit_requests_total{outcome="offline"}"#,
    ] {
        prometheus.until(query).await?;
    }
    stranger(&mut stage).await?;
    prometheus
        .until(r#"envoy_adit_requests_total{outcome="denied"}"#)
        .await?;
    misconfigured(&mut stage).await?;
    let every = observed::panels()?.into_iter().chain(observed::alerts()?);
    let every: Vec<Query> = every.filter(|q| !q.needs_kubernetes()).collect();
    ensure!(every.len() > 60, "only {} queries", every.len());
    let bad = async || ask(&stage, "gone.test", "refused").await;
    observed::until_all(&prometheus, &every, bad).await?;

    for name in [
        "AditMisconfigured",
        "AditDialerUnreachable",
        "AditServiceUnreachable",
        "AditConnectorOffline",
        "AditDenied",
        "AditKeyNotAllowed",
        "AditReloadFailed",
    ] {
        println!(
            "{name}: {}",
            prometheus.until_firing(name).await?["summary"]
        );
    }
    relay.stop().await?;
    println!("{}", prometheus.until_firing("AditRelayGone").await?);
    stage.connector.kill()?;
    println!("{}", prometheus.until_firing("AditProcessDown").await?);
    println!("{}", prometheus.until_firing("AditRequestsFail").await?);
    Ok(())
}

/// Asks a host whose target is out of reach.
async fn ask(stage: &Stage, host: &str, class: &str) -> Result<()> {
    let answer = patiently(host, get(stage.addr(), host, "/")).await?;
    ensure!(answer.text().contains(class), "{host}: {}", answer.text());
    Ok(())
}

/// The connector's list names another dialer for a while.
async fn stranger(stage: &mut Stage) -> Result<()> {
    let other = Key::new(stage.dir.path(), "other")?;
    let edge: &mut Connector = &mut stage.connector;
    edge.set("allow", json!([other.id])).reconfigure()?;
    until("a refused dialer", async || {
        ask(stage, "web.test", "denied").await.ok()
    })
    .await?;
    let edge: &mut Connector = &mut stage.connector;
    edge.set("allow", json!([stage.dialer.id])).reconfigure()?;
    until("the dialer let in again", async || {
        let answer = get(stage.addr(), "web.test", "/echo").await.ok()?;
        (answer.status == 200).then_some(())
    })
    .await
}

/// Writes a file that the connector cannot read, and the right one again.
async fn misconfigured(stage: &mut Stage) -> Result<()> {
    let errors = |stage: &Stage| {
        let admin = stage.connector.admin.clone();
        async move {
            let text = admin.get("/metrics").await.ok()?;
            let line = r#"adit_connector_reloads_total{result="error"} 0"#;
            (!text.contains(line)).then_some(())
        }
    };
    stage
        .connector
        .set("allow", json!(["nobody"]))
        .reconfigure()?;
    until("a reading that failed", async || errors(stage).await).await?;
    let own = json!([stage.dialer.id]);
    stage.connector.set("allow", own).reconfigure()
}

/// docs/observe.md names exactly the dialer's and the connector's metrics.
async fn the_book_lists_what_is_scraped(prometheus: &Prometheus) -> Result<()> {
    let page = fs::read_to_string(binaries::root().join("docs/observe.md"))?;
    let names = prometheus.names().await?;
    for prefix in ["adit_dialer_", "adit_connector_"] {
        let real: BTreeSet<&str> = names
            .iter()
            .filter(|name| name.starts_with(prefix))
            .map(|name| {
                ["_bucket", "_count", "_sum"]
                    .iter()
                    .fold(&**name, |n, end| n.trim_end_matches(end))
            })
            .collect();
        let written: BTreeSet<&str> = page
            .split('`')
            .filter(|word| word.starts_with(prefix))
            .collect();
        assert_eq!(written, real, "{EDGE}: docs/observe.md against a scrape");
    }
    Ok(())
}

/// A scenario that exports everything says nothing of a metric that is only in
/// a query: the check must notice one.
#[tokio::test(flavor = "multi_thread")]
async fn a_query_over_what_nobody_exports_is_noticed() {
    if !prometheus::is_there() {
        return;
    }
    let check = async {
        let dir = tempfile::tempdir()?;
        let rules = observed::hasty_rules(dir.path())?;
        let prometheus = Prometheus::start(dir.path(), &[], &rules).await?;
        let query = |expression: &str| Query {
            place: "here".into(),
            expression: expression.into(),
        };
        for expression in ["sum(rate(adit_dialer_verdict_total[5m]))", "sum(("] {
            let result: Result<usize> = observed::run(&prometheus, &query(expression)).await;
            ensure!(result.is_err(), "{expression} passed: {:?}", Value::Null);
        }
        Ok(())
    };
    expect_ok(check.await);
}
