//! The workloads.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use adit_tests::client::http::Client;
use anyhow::{Result, ensure};

use crate::cpu::Cpu;

/// Small requests over kept-alive connections.
#[derive(Debug, Clone)]
pub struct Requests {
    /// How many a second.
    pub per_second: f64,
    /// Half were faster.
    pub p50_ms: f64,
    /// One in a hundred was slower.
    pub p99_ms: f64,
    /// CPU time of a request in microseconds.
    pub cpu_us: Cpu,
}

/// One large body.
#[derive(Debug, Clone)]
pub struct Bulk {
    /// Its speed.
    pub mb_per_second: f64,
    /// CPU seconds for 10^9 bytes.
    pub cpu_per_gb: Cpu,
}

/// GETs a few bytes again and again for `span`.
pub async fn requests(
    at: SocketAddr,
    host: &str,
    connections: u16,
    span: Duration,
    pids: &[u32; 3],
) -> Result<Requests> {
    let mut clients = Vec::new();
    for _ in 0..connections {
        let mut client = Client::http1(at, host).await?;
        client.get("/status").await?;
        clients.push(client);
    }
    let before = Cpu::now(pids)?;
    let start = Instant::now();
    let tasks: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            tokio::spawn(async move {
                let mut times = Vec::new();
                while start.elapsed() < span {
                    let one = Instant::now();
                    let answer = client.get("/status").await?;
                    ensure!(answer.status == 200, "{}", answer.status);
                    times.push(one.elapsed().as_secs_f64() * 1000.0);
                }
                Ok(times)
            })
        })
        .collect();
    let mut times: Vec<f64> = Vec::new();
    for task in tasks {
        times.extend(task.await??);
    }
    let seconds = start.elapsed().as_secs_f64();
    let count = times.len() as f64;
    times.sort_by(f64::total_cmp);
    let at = |part: f64| times[((count - 1.0) * part) as usize];
    Ok(Requests {
        per_second: count / seconds,
        p50_ms: at(0.5),
        p99_ms: at(0.99),
        cpu_us: before.since(pids, 1e6 / count)?,
    })
}

/// Downloads one body.
pub async fn download(at: SocketAddr, host: &str, mib: u64, pids: &[u32; 3]) -> Result<Bulk> {
    let bytes = mib << 20;
    let mut client = Client::http1(at, host).await?;
    let (before, start) = (Cpu::now(pids)?, Instant::now());
    let got = client.download(&format!("/download?bytes={bytes}")).await?;
    ensure!(got.status == 200 && got.len == bytes, "{got:?}");
    bulk(bytes, before, start, pids)
}

/// Uploads one body.
pub async fn upload(at: SocketAddr, host: &str, mib: u64, pids: &[u32; 3]) -> Result<Bulk> {
    let bytes = mib << 20;
    let mut client = Client::http1(at, host).await?;
    let (before, start) = (Cpu::now(pids)?, Instant::now());
    client.upload(1, bytes).await?;
    bulk(bytes, before, start, pids)
}

fn bulk(bytes: u64, before: Cpu, start: Instant, pids: &[u32; 3]) -> Result<Bulk> {
    let gb = bytes as f64 / 1e9;
    Ok(Bulk {
        mb_per_second: gb * 1000.0 / start.elapsed().as_secs_f64(),
        cpu_per_gb: before.since(pids, 1.0 / gb)?,
    })
}
