//! Two connectors of one target are restarted in turn, as an upgrade does.

use std::time::Duration;

use adit_tests::{
    client::http::get,
    connector::Connector,
    gateway::{Gateway, Settings},
    keys::Key,
    manifests::{self, Backend, Via},
    process::until,
    services::http::HttpService,
};
use anyhow::{Context as _, Result, ensure};
use http::Method;
use serde_json::json;

use crate::{
    load,
    scenario::{Context, Scenario},
};

/// This part of the table.
pub const SCENARIOS: &[Scenario] = &[Scenario {
    name: "rolling-connectors",
    fault: "two connectors of one target restarted in turn under 500 requests/s",
    promise: "no idempotent request fails",
    quick: true,
    run: |context| Box::pin(rolling_connectors(context)),
}];

/// A service behind two connectors, either of which may serve it.
struct Pair {
    gateway: Gateway,
    connectors: [Connector; 2],
    _web: HttpService,
    _dir: tempfile::TempDir,
}

impl Pair {
    /// Starts it; the connectors give open streams `grace` to end.
    async fn start(context: &Context, grace: &str) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("adit-").tempdir()?;
        let web = HttpService::start()?;
        let dialer = Key::new(dir.path(), "dialer")?;
        let targets = [web.addr.to_string()];
        let manifests = Gateway::manifests(dir.path())?;
        let mut connectors = Vec::new();
        for name in ["first", "second"] {
            let mut connector = Connector::new(dir.path(), name, &[&dialer.id], &targets)?;
            connector.set("grace-period", json!(grace));
            connector.start().await?;
            let bound = connector.bound().await?;
            // The next start takes the same port: the manifest stays as it is.
            connector.set("bind", json!(bound));
            let text = manifests::connector(name, "shop", &connector.key.id, None, &bound);
            let port = web.addr.port();
            let ads = manifests::advertisement(name, name, &[("127.0.0.1", port)]);
            manifests.write(name, &format!("{text}---\n{ads}"))?;
            connectors.push(connector);
        }
        let backend = Backend {
            endpoint: format!("http://{}", web.addr),
            via: Some(Via::Site("shop")),
            tls_hostname: None,
        };
        manifests.proxy("web", "web.test", &backend)?;
        let gateway = Gateway::start(dir.path(), &dialer, &Settings::of(&context.version)).await?;
        let Ok(connectors) = connectors.try_into() else {
            unreachable!("two were made above");
        };
        Ok(Self {
            gateway,
            connectors,
            _web: web,
            _dir: dir,
        })
    }

    /// SIGTERM, its end, a new start.
    async fn restart(&mut self, which: usize) -> Result<Duration> {
        let begun = std::time::Instant::now();
        let connector = &mut self.connectors[which];
        let mut process = connector.process.take().context("a running connector")?;
        let status = process.terminate().await?;
        ensure!(status.success(), "{}: {status}", connector.name);
        let took = begun.elapsed();
        connector.start().await?;
        Ok(took)
    }
}

async fn rolling_connectors(context: &Context) -> Result<String> {
    // The default of 10 s in a full run.
    let grace = context.scale("1s", "10s");
    let mut pair = Pair::start(context, grace).await?;
    let addr = pair.gateway.addr;
    until("a first answer", async || {
        let answer = get(addr, "web.test", "/echo").await.ok()?;
        (answer.status == 200).then_some(())
    })
    .await?;
    let rounds = context.scale(2, 4);
    // Both are idempotent.
    let reads = load::Plan::get(addr, "web.test", "/echo");
    let writes = load::Plan {
        method: Method::PUT,
        rate: 50,
        ..reads.clone()
    };
    let loads = [reads.begin(), writes.begin()];
    let mut ended = Vec::new();
    let settle = Duration::from_millis(context.scale(500, 2000));
    for _ in 0..rounds {
        for which in [0, 1] {
            tokio::time::sleep(settle).await;
            ended.push(pair.restart(which).await?);
        }
    }
    tokio::time::sleep(settle).await;
    let longest = ended.iter().max().copied().unwrap_or_default();
    let (mut answered, mut slowest) = (Vec::new(), Duration::ZERO);
    for load in loads {
        let tally = load.end().await?;
        tally.none_lost()?;
        tally.none_failed().with_context(|| {
            let restarts = ended.len();
            format!("{restarts} restarts, grace {grace}: {:?}", tally.failures)
        })?;
        answered.push(tally.ok);
        slowest = slowest.max(tally.slowest);
    }
    Ok(format!(
        "{} GET and {} PUT answered over {} restarts, none failed; a connector ended within {longest:.1?}, \
         the slowest answer took {slowest:.1?}",
        answered[0],
        answered[1],
        ended.len()
    ))
}
