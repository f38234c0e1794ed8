//! SIGKILL of each process of a path. It is started again at once, as its
//! supervisor would; the time is from the kill to the next 200.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio::time::{sleep, timeout};

use super::Stage;
use crate::{client::Door, gateway::Host, paths::Path, stats::Sample};

/// From one try to the next.
const GAP: Duration = Duration::from_millis(5);
/// How long one try may take: a client would have given up.
const PATIENCE: Duration = Duration::from_secs(1);
/// Longer than this is no recovery.
const LIMIT: Duration = Duration::from_secs(60);
/// In a row, before the next process is killed.
const WELL: usize = 20;

/// One process after the other.
pub async fn run(stage: &Stage, path: &mut Path) -> Result<Sample> {
    let door = stage.door(path, Host::Http1);
    let mut sample = Sample::default();
    for i in 0..path.parts.len() {
        well(&door).await?;
        let role = path.parts[i].role;
        let killed = Instant::now();
        path.parts[i].restart()?;
        let mut failed = 0;
        while !answers(&door).await {
            failed += 1;
            let late = killed.elapsed() < LIMIT;
            ensure!(late, "no 200 for {LIMIT:?} after {role} was killed");
            sleep(GAP).await;
        }
        let took = killed.elapsed().as_secs_f64() * 1000.0;
        sample.figures.insert(format!("{role}_ms"), took);
        sample
            .figures
            .insert(format!("{role}_failed"), f64::from(failed));
    }
    well(&door).await?;
    Ok(sample)
}

async fn answers(door: &Door) -> bool {
    let one = async { door.connect().await?.get_ok("/kib").await };
    matches!(timeout(PATIENCE, one).await, Ok(Ok(())))
}

/// Waits until the path answers time after time.
async fn well(door: &Door) -> Result<()> {
    let start = Instant::now();
    let mut row = 0;
    while row < WELL {
        row = if answers(door).await { row + 1 } else { 0 };
        ensure!(start.elapsed() < LIMIT, "not well for {LIMIT:?}");
        sleep(GAP).await;
    }
    Ok(())
}
