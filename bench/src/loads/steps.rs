//! Requests at a constant rate, whether or not the last one is answered: the
//! time of each counts from when it was due, so that a stall is seen in all
//! that it delayed. The knee is the highest rate that still had a p99 of at
//! most 10 ms.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;
use tokio::{sync::Mutex, task::JoinSet, time::sleep_until};

use super::Stage;
use crate::{
    client::Connection,
    gateway::Host,
    paths::Path,
    stats::{Sample, Times},
};

/// Requests a second, step by step.
const RATES: [u32; 14] = [
    250, 500, 1000, 1500, 2000, 3000, 4000, 5000, 6000, 8000, 10_000, 12_000, 15_000, 20_000,
];
/// More than this is past the knee.
const LIMIT_MS: f64 = 10.0;
/// Connections that share the requests.
const CONNECTIONS: u32 = 64;

/// The rate of [`steady`]: each path of the comparison can carry it, and leaves
/// Envoy idle for most of the time.
const STEADY: u32 = 2000;

/// Step by step until past the knee.
pub async fn run(stage: &Stage, path: &Path) -> Result<Sample> {
    let connections = connections(stage, path, CONNECTIONS).await?;
    let mut sample = Sample::of([("knee_per_second", 0.0)]);
    for rate in RATES {
        let mut times = at(rate, stage.scale.step, &connections).await?;
        let (p50, p99) = (times.quantile(0.5), times.quantile(0.99));
        sample.figures.insert(format!("p50_ms_at_{rate}"), p50);
        sample.figures.insert(format!("p99_ms_at_{rate}"), p99);
        if p99 > LIMIT_MS {
            break;
        }
        sample.figures.insert("knee_per_second".into(), rate.into());
    }
    Ok(sample)
}

/// The same rate on every path: only so are CPU times of a request comparable.
/// A process that is never idle finds many requests at each look, and pays for
/// a wake-up once for all of them.
pub async fn steady(stage: &Stage, path: &Path) -> Result<Sample> {
    let connections = connections(stage, path, 16).await?;
    let (meter, start) = (stage.meter(path)?, Instant::now());
    let times = at(STEADY, stage.scale.span, &connections).await?;
    let took = start.elapsed();
    let cpu = meter.stop(1e6 / times.count() as f64)?;
    let mut sample = times.sample(took);
    sample.cpu = cpu;
    Ok(sample)
}

type Shared = Arc<Mutex<Connection>>;

async fn connections(stage: &Stage, path: &Path, count: u32) -> Result<Vec<Shared>> {
    let door = stage.door(path, Host::Http1);
    let mut connections = Vec::new();
    for _ in 0..count {
        let mut connection = door.connect().await?;
        connection.get_ok("/kib").await?;
        connections.push(Arc::new(Mutex::new(connection)));
    }
    Ok(connections)
}

/// Requests at this rate for a while.
async fn at(rate: u32, span: Duration, connections: &[Shared]) -> Result<Times> {
    let start = Instant::now() + Duration::from_millis(20);
    let total = (f64::from(rate) * span.as_secs_f64()) as u32;
    let mut tasks = JoinSet::new();
    for (i, connection) in (0..).zip(connections) {
        let (connection, step) = (connection.clone(), connections.len());
        tasks.spawn(async move {
            let mut connection = connection.lock().await;
            let mut times = Times::default();
            for n in (i..total).step_by(step) {
                let due = start + Duration::from_secs(1) * n / rate;
                sleep_until(due.into()).await;
                connection.get_ok("/kib").await?;
                times.since(due);
            }
            anyhow::Ok(times)
        });
    }
    let mut times = Times::default();
    while let Some(done) = tasks.join_next().await {
        times.join(done??);
    }
    Ok(times)
}
