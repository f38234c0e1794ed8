//! <https://github.com/summerwind/h2spec> against two listeners of one Envoy: one
//! with the module's filter and transport socket, one without any of ours.

use std::{collections::BTreeSet, net::SocketAddr, path::Path, process::Stdio, time::Duration};

use adit_tests::{
    bare::{self, Dialer},
    binaries,
    connector::Connector,
    envoy::{self, Envoy},
    keys::Key,
    kube::programs::program,
    services::http::HttpService,
};
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::scenario::{Context, LeftOut};

/// A case without an answer for so many seconds has failed.
const PATIENCE: &str = "2";

/// What one run found: the failed cases among all.
struct Found {
    all: usize,
    failed: BTreeSet<String>,
}

pub(super) async fn run(context: &Context) -> Result<String> {
    let Ok(h2spec) = program("h2spec") else {
        let what = "h2spec is not there: `cargo xtask chaos` builds it (needs Go)";
        return Err(LeftOut(what.into()).into());
    };
    let dir = tempfile::tempdir()?;
    let web = HttpService::start()?;
    let key = Key::new(dir.path(), "dialer")?;
    let service = web.addr.to_string();
    let mut edge = Connector::new(
        dir.path(),
        "edge",
        &[&key.id],
        std::slice::from_ref(&service),
    )?;
    edge.start().await?;
    let bound = edge.bound().await?;
    let at = *bound.first().context("the connector's address")?;
    let dialer = Dialer::start(dir.path(), &key, &[(edge.key.id.as_str(), at)], &[]).await?;
    let target = bare::target(&[&edge.key.id], &service, Duration::from_secs(5))?;

    let mut with = envoy::prefix_route("with");
    with["metadata"] = bare::metadata(&target, false);
    let host = |route: Value| Value::Array(vec![envoy::virtual_host("any", &["*"], &[route])]);
    let resources = json!({
        "listeners": [
            envoy::http_listener("with", &host(with), &[bare::filter()?]),
            envoy::http_listener("without", &host(envoy::prefix_route("without")), &[]),
        ],
        "clusters": [
            bare::cluster("with", &dialer.socket, &target, false)?,
            envoy::tcp_cluster("without", web.addr, false),
        ],
    });
    let concurrency = binaries::concurrency();
    let envoy = Envoy::start(&context.version, dir.path(), concurrency, &resources).await?;
    let (with, without) = (
        envoy.listener("with").await?,
        envoy.listener("without").await?,
    );
    let mut extra = BTreeSet::new();
    // A case may depend on time: what fails with the module alone must do so twice.
    for round in 0..2 {
        let (ours, plain) = tokio::try_join!(
            spec(&h2spec, dir.path(), "with", with),
            spec(&h2spec, dir.path(), "without", without),
        )?;
        ensure!(
            ours.all == plain.all && ours.all > 100,
            "{} cases with the module, {} without",
            ours.all,
            plain.all
        );
        let now: BTreeSet<_> = ours.failed.difference(&plain.failed).cloned().collect();
        if now.is_empty() {
            ensure!(
                !web.record.requests().is_empty(),
                "nothing reached the service"
            );
            return Ok(format!(
                "of {} cases {} fail with the module and {} without: {}",
                ours.all,
                ours.failed.len(),
                plain.failed.len(),
                Vec::from_iter(ours.failed).join("; ")
            ));
        }
        extra = match round {
            0 => now,
            _ => extra.intersection(&now).cloned().collect(),
        };
    }
    ensure!(extra.is_empty(), "fail with the module alone: {extra:?}");
    Ok("nothing fails twice that passes without the module".into())
}

async fn spec(h2spec: &Path, dir: &Path, name: &str, addr: SocketAddr) -> Result<Found> {
    let report = dir.join(format!("{name}.xml"));
    // Its status says that a case failed, which is looked at below.
    Command::new(h2spec)
        .args(["-h", &addr.ip().to_string()])
        .args(["-p", &addr.port().to_string()])
        .args(["-P", "/echo", "-o", PATIENCE, "-j"])
        .arg(&report)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .status()
        .await
        .context("run h2spec")?;
    let report = std::fs::read_to_string(&report).context("h2spec's report")?;
    let mut found = Found {
        all: 0,
        failed: BTreeSet::new(),
    };
    for case in report.split("<testcase ").skip(1) {
        found.all += 1;
        let (head, body) = case.split_once('>').unwrap_or((case, ""));
        let body = body.split("</testcase>").next().unwrap_or_default();
        if body.contains("<failure") || body.contains("<error") {
            let part = |name: &str| {
                let from = head.split_once(&format!("{name}=\""))?.1;
                from.split('"').next()
            };
            let section = part("package").unwrap_or_default();
            let name = part("classname").unwrap_or_default();
            found.failed.insert(format!("{section} {name}"));
        }
    }
    Ok(found)
}
