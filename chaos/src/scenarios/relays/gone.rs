//! The relay's process ends and comes back at its address.

use std::time::{Duration, Instant};

use adit_tests::relay::Relay;
use anyhow::{Result, ensure};

use super::{FOUND_AGAIN, direct, outage, path_is, plan, relay_is, requests, served};
use crate::scenario::Context;

const ABSENCE: Duration = Duration::from_secs(60);

pub(super) async fn beside_a_direct_path(context: &Context) -> Result<String> {
    let relay = Relay::start().await?;
    let addr = relay.addr;
    let stage = plan(&context.version, &relay.url, true).start().await?;
    relay_is(&stage, true).await?;
    served(&stage).await?;
    direct(&stage).await?;
    let load = requests(&stage, 50).begin();
    let gone = Instant::now();
    relay.stop().await?;
    let noticed = relay_is(&stage, false).await?;
    let absence = context.scale(Duration::from_secs(5), ABSENCE);
    tokio::time::sleep(absence.saturating_sub(gone.elapsed())).await;
    path_is(&stage, "direct").await?;
    let relay = Relay::start_at(addr).await?;
    let back = relay_is(&stage, true).await?;
    let tally = load.end().await?;
    tally.none_failed()?;
    ensure!(back < FOUND_AGAIN, "found again only after {back:?}");
    relay.stop().await?;
    Ok(format!(
        "all {} answered, p99 {:.0?}; its end noticed after {noticed:.1?}, its return after {back:.1?}",
        tally.sent(),
        tally.percentile(99.0)
    ))
}

pub(super) async fn the_only_way(context: &Context) -> Result<String> {
    let relay = Relay::start().await?;
    let addr = relay.addr;
    let stage = plan(&context.version, &relay.url, false).start().await?;
    served(&stage).await?;
    path_is(&stage, "relay").await?;
    let load = requests(&stage, 20).begin();
    relay.stop().await?;
    tokio::time::sleep(context.scale(Duration::from_secs(5), ABSENCE)).await;
    let relay = Relay::start_at(addr).await?;
    let back = served(&stage).await?;
    let seen = outage(&load.end().await?, back)?;
    path_is(&stage, "relay").await?;
    relay.stop().await?;
    Ok(format!("{seen} after its return"))
}
