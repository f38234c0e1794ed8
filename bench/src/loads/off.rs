//! A device that is switched off, and known to be: how soon a client is told.
//! The requests are spread over seconds, so that those are among them that come
//! when what is known has grown old and is looked up again.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::Stage;
use crate::{
    gateway::Host,
    paths::Path,
    stats::{Sample, Times},
};

/// From one request to the next.
const GAP: Duration = Duration::from_millis(10);

/// One request after the other on one connection.
pub async fn run(stage: &Stage, path: &Path) -> Result<Sample> {
    let door = stage.door(path, Host::Off);
    let begun = Instant::now();
    // Nobody knows yet: this one waits for the first dial to fail.
    let learnt = door.connect().await?.get("/kib").await?;
    ensure!(learnt >= 500, "{learnt} from a device that is off");
    let learning = begun.elapsed();
    let mut connection = door.connect().await?;
    let (start, mut times) = (Instant::now(), Times::default());
    while times.count() < stage.scale.off && start.elapsed() < stage.scale.off_limit {
        let begun = Instant::now();
        let status = connection.get("/kib").await?;
        times.since(begun);
        ensure!(status == learnt, "{status} after {learnt}");
        tokio::time::sleep(GAP).await;
    }
    Ok(Sample::of([
        ("status", f64::from(learnt)),
        ("first_ms", learning.as_secs_f64() * 1000.0),
        ("p50_ms", times.quantile(0.5)),
        ("p99_ms", times.quantile(0.99)),
        ("max_ms", times.quantile(1.0)),
        ("count", times.count() as f64),
    ]))
}
