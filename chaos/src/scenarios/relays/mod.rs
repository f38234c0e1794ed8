//! A relay that is gone, or accepts and never answers.

mod gone;
mod wedged;

use std::time::{Duration, Instant};

use adit_tests::{
    client::http::get,
    connector::Connector,
    process::until,
    stage::{Plan, Stage},
};
use anyhow::{Result, ensure};
use serde_json::json;
use tokio::time::timeout;

use crate::{load, scenario::Scenario};

/// This part of the table.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "relay-gone-direct",
        fault: "the relay gone for 60 s (quick: 5 s) beside a direct path, 50 requests/s",
        promise: "no request fails, the relay is used again when it is back",
        quick: true,
        run: |context| Box::pin(gone::beside_a_direct_path(context)),
    },
    Scenario {
        name: "relay-gone-only",
        fault: "the relay gone for 60 s where it is the only way, 20 requests/s",
        promise: "a clear answer to every request meanwhile, served again within 60 s of its return",
        quick: false,
        run: |context| Box::pin(gone::the_only_way(context)),
    },
    Scenario {
        name: "relay-wedged-direct",
        fault: "a relay that accepts and never answers, beside a direct path, a dialer started meanwhile, 50 requests/s",
        promise: "the dialer starts and serves, no request fails, the relay is used once it answers",
        quick: false,
        run: |context| Box::pin(wedged::beside_a_direct_path(context)),
    },
    Scenario {
        name: "relay-wedged-only",
        fault: "a relay that is the only way stops to answer and keeps its connections, 20 requests/s",
        promise: "a clear answer to every request meanwhile, served again within 60 s of its return",
        quick: false,
        run: |context| Box::pin(wedged::the_only_way(context)),
    },
];

/// How long a relay may take to be found again: the watchdog (30 s) and one
/// rebuilt endpoint.
const FOUND_AGAIN: Duration = Duration::from_secs(60);

/// A stage with this relay; with `direct`, the manifest names the connector's
/// address too. Without, there is none: IPv6 there and IPv4 here.
fn plan(version: &str, url: &str, direct: bool) -> Plan {
    let mut plan = Plan::of(version)
        .env("ADIT_RELAY", url)
        .option("relay", json!([url]));
    plan.relay = Some(url.to_owned());
    if !direct {
        plan.hints = false;
        plan = plan.option("bind", json!(["[::1]:0"]));
    }
    plan
}

fn requests(stage: &Stage, rate: u32) -> load::Plan {
    let mut plan = load::Plan::get(stage.addr(), "web.test", "/echo");
    plan.rate = rate;
    plan
}

/// Waits for an answer from the service; how long that took.
async fn served(stage: &Stage) -> Result<Duration> {
    let begun = Instant::now();
    until("answer from the service", async || {
        let asked = get(stage.addr(), "web.test", "/echo");
        let answer = timeout(Duration::from_secs(20), asked).await.ok()?.ok()?;
        (answer.status == 200).then_some(())
    })
    .await?;
    Ok(begun.elapsed())
}

async fn path_is(stage: &Stage, wanted: &str) -> Result<()> {
    let path = stage.gateway.path(&stage.connector.key.id).await;
    ensure!(path.as_deref() == Some(wanted), "the path is {path:?}");
    Ok(())
}

/// Waits until the direct path is taken. The first answer may have come by the
/// relay: the handshake goes both ways, and the first that answers is used.
async fn direct(stage: &Stage) -> Result<()> {
    until("direct path", async || path_is(stage, "direct").await.ok()).await
}

/// Waits until both sides say that the relay is connected, or that it is not;
/// how long that took.
async fn relay_is(stage: &Stage, connected: bool) -> Result<Duration> {
    let begun = Instant::now();
    let what = match connected {
        true => "relay connected at both sides",
        false => "relay lost at both sides",
    };
    until(what, async || {
        let here = stage.gateway.status().await.ok()?;
        let there = Connector::status(&stage.connector).await.ok()?;
        let is = |status: &serde_json::Value| status["relay"]["connected"] == connected;
        (is(&here) && is(&there)).then_some(())
    })
    .await?;
    Ok(begun.elapsed())
}

/// Nothing was answered wrongly, nobody hung: every failure is one of ours, by
/// its status.
fn clear(tally: &load::Tally) -> Result<()> {
    tally.none_lost()?;
    let unclear = tally
        .failures
        .iter()
        .find(|(_, what)| !what.starts_with("503") && !what.starts_with("504"));
    ensure!(unclear.is_none(), "{unclear:?} among {}", tally.failed());
    Ok(())
}

/// Judges a load whose only way was away, and was back for so long when a request
/// was served again: some failed, each clearly. What was seen, in words.
fn outage(tally: &load::Tally, back: Duration) -> Result<String> {
    clear(tally)?;
    ensure!(
        !tally.failures.is_empty(),
        "nothing failed without the only way"
    );
    ensure!(back < FOUND_AGAIN, "served again only after {back:?}");
    Ok(format!(
        "{} of {} answered 200, the others {}; served again {back:.1?}",
        tally.ok,
        tally.sent(),
        tally.failed()
    ))
}
