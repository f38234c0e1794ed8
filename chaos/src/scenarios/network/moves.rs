//! A path that goes and comes back, and an address that changes.

use std::time::{Duration, Instant};

use adit_tests::{
    client::connect::{self, Http1Tunnel},
    process::until,
    relay::Relay,
    stage::{Plan, Stage},
};
use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tokio::{io::AsyncWriteExt, time::timeout};

use crate::{
    impair::{Forwarder, Weather, behind, by_direct_path},
    load,
    scenario::Context,
};

/// Longer than the idle timeout (3 s) after which a path counts as dead.
const BEYOND_IDLE: Duration = Duration::from_secs(6);
/// A reset that comes later than this is a hang.
const CLEAR: Duration = Duration::from_secs(15);

/// iroh opens paths to the addresses of a dial, and later only to those that the
/// device itself announces; the forwarder's it does not know. So the direct path
/// is taken again by a later connection, and until then the relay serves.
pub(super) async fn blocked(context: &Context) -> Result<String> {
    let relay = Relay::start().await?;
    let mut plan = Plan::of(&context.version)
        .env("ADIT_RELAY", &relay.url)
        .env("ADIT_IDLE_CLOSE", "1s")
        .option("relay", json!([relay.url]));
    plan.relay = Some(relay.url.clone());
    let (stage, path) = behind(plan, Weather::default()).await?;
    let mut tunnel = tunnel(&stage).await?;
    say(&mut tunnel, b"before").await?;

    let load = requests(&stage).begin();
    path.set(Weather::blocked());
    let begun = Instant::now();
    let id = &stage.connector.key.id;
    until("relay path", async || {
        (stage.gateway.path(id).await.as_deref() == Some("relay")).then_some(())
    })
    .await?;
    let to_relay = begun.elapsed();
    tokio::time::sleep(context.scale(Duration::from_secs(1), BEYOND_IDLE)).await;
    let meanwhile = fate(&mut tunnel).await?;
    path.set(Weather::default());
    tokio::time::sleep(context.scale(Duration::from_secs(1), BEYOND_IDLE)).await;
    let afterwards = fate(&mut tunnel).await?;
    let tally = load.end().await?;
    tally.none_lost()?;
    ensure!(
        tally.outage() < Duration::from_secs(10),
        "an outage of {:?} although a relay is there: {}",
        tally.outage(),
        tally.failed()
    );

    drop(tunnel);
    until("end of the unused connection", async || {
        let peer = stage.gateway.peer(id).await.ok()??;
        (peer["state"] == "idle").then_some(())
    })
    .await?;
    served(&stage)
        .await
        .context("no answer after the path is back")?;
    let connections = by_direct_path(&stage).await?;
    Ok(format!(
        "by the relay after {to_relay:.1?}; {:.1?} with failures: {}; the tunnel {meanwhile}, and with the path back \
         {afterwards}; direct again after {connections} more connection(s)",
        tally.outage(),
        failed(&tally),
    ))
}

pub(super) async fn cut_off(context: &Context) -> Result<String> {
    let plan = Plan::of(&context.version);
    let (stage, path) = behind(plan, Weather::default()).await?;
    let mut tunnel = tunnel(&stage).await?;
    let load = requests(&stage).begin();
    path.set(Weather::blocked());
    let fate = fate(&mut tunnel).await?;
    tokio::time::sleep(BEYOND_IDLE * 2).await;
    let offline = stage.gateway.peer(&stage.connector.key.id).await?;
    let state = offline.context("the connector's row")?["state"].clone();
    ensure!(state != "connected", "{state} by no path at all");
    path.set(Weather::default());
    let freed = Instant::now();
    until("answer again", async || served(&stage).await).await?;
    let again = freed.elapsed();
    let tally = load.end().await?;
    tally.none_lost()?;
    ensure!(
        again < Duration::from_secs(10),
        "served again only {again:?} after the path"
    );
    Ok(format!(
        "the tunnel {fate}; meanwhile {}; served again {again:.1?} after the path came back",
        failed(&tally)
    ))
}

pub(super) async fn rebound(context: &Context) -> Result<String> {
    let weather = Weather::default().round_trip(Duration::from_millis(20));
    let (stage, path) = behind(Plan::of(&context.version), weather).await?;
    let mut tunnel = tunnel(&stage).await?;
    say(&mut tunnel, b"before").await?;
    let before = path.outward();
    let bytes: u64 = context.scale(16, 64) << 20;
    let mut client = adit_tests::client::http::Client::http1(stage.addr(), "web.test").await?;
    let sent = path.counts().passed;
    let download = tokio::spawn(async move {
        let begun = Instant::now();
        let got = client
            .download(&format!("/download?bytes={bytes}&seed=2"))
            .await;
        (got, begun.elapsed())
    });
    until("download under way", async || {
        (path.counts().passed > sent + 2000).then_some(())
    })
    .await?;
    ensure!(!download.is_finished(), "the download is over already");
    let load = requests(&stage).begin();
    path.rebind();
    let (got, took) = timeout(CLEAR * 2, download)
        .await
        .context("the download hangs")??;
    let download = match got {
        Ok(got) => {
            let whole = adit_tests::pattern::Pattern::sha256(2, bytes);
            ensure!(got.len == bytes && got.sha256 == whole, "{got:?}");
            format!("went on and was whole after {took:.1?}")
        }
        Err(error) => format!("was cut ({})", error.root_cause()),
    };
    let fate = fate(&mut tunnel).await?;
    let tally = load.end().await?;
    tally.none_lost()?;
    ensure!(
        tally.outage() < Duration::from_secs(5),
        "an outage of {:?}: {}",
        tally.outage(),
        tally.failed()
    );
    let after = path.outward();
    ensure!(
        !after.is_empty() && after != before,
        "nothing was rebound: {before:?}, {after:?}"
    );
    Ok(format!(
        "the download of {} MiB {download}; the tunnel {fate}; requests: {}",
        bytes >> 20,
        failed(&tally)
    ))
}

pub(super) async fn moved(context: &Context) -> Result<String> {
    let plan = Plan::of(&context.version);
    let (mut stage, path) = behind(plan, Weather::default()).await?;
    let mut tunnel = tunnel(&stage).await?;
    say(&mut tunnel, b"before").await?;
    let load = requests(&stage).begin();
    // Its old address says nothing any more: not even that it has gone.
    path.set(Weather::blocked());
    stage.connector.kill()?;
    stage.connector.start().await?;
    let bound = stage.connector.bound().await?;
    let to = *bound.first().context("the connector's address")?;
    let elsewhere = Forwarder::start(to, 2, Weather::default()).await?;
    stage.hint(&[elsewhere.addr])?;
    let hinted = Instant::now();
    until("answer from the new address", async || served(&stage).await).await?;
    let again = hinted.elapsed();
    let fate = fate(&mut tunnel).await?;
    let tally = load.end().await?;
    tally.none_lost()?;
    ensure!(
        fate.starts_with("was"),
        "the tunnel {fate}, to a process that is gone"
    );
    ensure!(
        again < Duration::from_secs(10),
        "served again only {again:?} after the new hint"
    );
    ensure!(elsewhere.counts().passed > 0, "not by the new address");
    Ok(format!(
        "the tunnel {fate}; served {again:.1?} after the new hint; requests: {}",
        failed(&tally)
    ))
}

fn requests(stage: &Stage) -> load::Plan {
    let mut plan = load::Plan::get(stage.addr(), "web.test", "/echo");
    plan.rate = 50;
    plan
}

async fn served(stage: &Stage) -> Option<()> {
    let asked = adit_tests::client::http::get(stage.addr(), "web.test", "/echo");
    let answer = timeout(CLEAR, asked).await.ok()?.ok()?;
    (answer.status == 200).then_some(())
}

async fn tunnel(stage: &Stage) -> Result<Http1Tunnel> {
    let tunnel = connect::http1(stage.addr(), &stage.echo_authority(), b"").await?;
    ensure!(tunnel.status == 200, "{}", tunnel.head);
    Ok(tunnel)
}

/// Sends a word and reads it back.
async fn say(tunnel: &mut Http1Tunnel, word: &[u8]) -> Result<()> {
    tunnel.tcp.write_all(word).await?;
    let back = tunnel.read_exact(word.len()).await?;
    ensure!(back == word, "{back:?}");
    Ok(())
}

/// Whether a tunnel goes on or was cut; that it hangs is an error.
async fn fate(tunnel: &mut Http1Tunnel) -> Result<String> {
    let begun = Instant::now();
    let said = timeout(CLEAR, say(tunnel, b"still there?"));
    let said = said.await.context("the tunnel hangs")?;
    Ok(match said {
        Ok(()) => format!("went on ({:.1?} for a word)", begun.elapsed()),
        Err(error) => format!(
            "was ended after {:.1?} ({})",
            begun.elapsed(),
            error.root_cause()
        ),
    })
}

fn failed(tally: &load::Tally) -> String {
    match tally.failures.len() {
        0 => format!("all {} answered", tally.sent()),
        _ => format!("of {} failed {}", tally.sent(), tally.failed()),
    }
}
