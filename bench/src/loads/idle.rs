//! Many tunnels that do nothing: memory of each, CPU time of all. Before it
//! rests, each has carried one request, so that what moved its bytes has been
//! there and must be gone again. The first tunnel is not counted: with it comes
//! the one connection to the peer.

use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::task::JoinSet;

use super::{Stage, connect};
use crate::{cpu::resident, paths::Path, stats::Sample};

/// How many are opened at once: more would measure the burst.
const AT_ONCE: usize = 16;
/// Until what a tunnel leaves behind when it comes to rest has been dropped.
const SETTLE: Duration = Duration::from_secs(2);

/// Opens, watches, closes.
pub async fn run(stage: &Stage, path: &Path) -> Result<Sample> {
    let (door, authority) = connect::at(stage, path);
    let one = move || {
        let (door, authority) = (door.clone(), authority.clone());
        async move {
            let mut tunnel = connect::open(&door, &authority).await?;
            tunnel.get_ok("/kib").await?;
            anyhow::Ok(tunnel)
        }
    };
    let _first = one().await?;
    let processes = || path.parts.iter().map(|part| &part.process);
    let envoy = || [&stage.gateway.process];
    let (before, envoy_before) = (resident(processes())?, resident(envoy())?);
    let count = stage.scale.idle;
    let start = Instant::now();
    let mut tunnels = Vec::new();
    let mut opening = JoinSet::new();
    while tunnels.len() < count {
        while opening.len() < AT_ONCE && tunnels.len() + opening.len() < count {
            opening.spawn(one());
        }
        if let Some(opened) = opening.join_next().await {
            tunnels.push(opened??);
        }
    }
    let took = start.elapsed();
    tokio::time::sleep(SETTLE).await;
    let kb = |after: u64, before: u64| after.saturating_sub(before) as f64 / 1000.0 / count as f64;
    let mut sample = Sample::of([
        ("kb_per_tunnel", kb(resident(processes())?, before)),
        ("envoy_kb_per_tunnel", kb(resident(envoy())?, envoy_before)),
        ("tunnels", count as f64),
        ("opened_per_second", count as f64 / took.as_secs_f64()),
    ]);
    let meter = stage.meter(path)?;
    tokio::time::sleep(stage.scale.idle_watch).await;
    sample.cpu = meter.stop(1000.0 / stage.scale.idle_watch.as_secs_f64())?;
    drop(tunnels);
    Ok(sample)
}
