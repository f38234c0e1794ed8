//! One large body, down or up, over one connection.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::Stage;
use crate::{cpu::Meter, gateway::Host, paths::Path, stats::Sample};

/// One read or write of the load generator.
const PIECE: usize = 256 * 1024;

/// Downloads.
pub async fn download(stage: &Stage, path: &Path) -> Result<Sample> {
    let len = stage.scale.bytes;
    let mut connection = stage.door(path, Host::Http1).connect().await?;
    connection.get_ok("/kib").await?;
    let (meter, start) = (stage.meter(path)?, Instant::now());
    let head = connection
        .ask("GET", &format!("/download?{len}"), None)
        .await?;
    ensure!(head.status == 200 && head.len == Some(len), "{head:?}");
    let mut buf = vec![0; PIECE];
    let mut got = 0;
    while got < len && start.elapsed() < stage.scale.bulk_limit {
        let n = connection.read(&mut buf).await?;
        ensure!(n > 0, "the body ended after {got} of {len} bytes");
        got += n as u64;
    }
    sample(got, start.elapsed(), meter)
}

/// Uploads; the service says how much has come.
pub async fn upload(stage: &Stage, path: &Path) -> Result<Sample> {
    let len = stage.scale.bytes;
    let mut connection = stage.door(path, Host::Http1).connect().await?;
    connection.get_ok("/kib").await?;
    let (meter, start) = (stage.meter(path)?, Instant::now());
    connection.begin("POST", "/upload", Some(len)).await?;
    let piece = vec![b'u'; PIECE];
    let mut sent = 0;
    while sent < len && start.elapsed() < stage.scale.bulk_limit {
        let n = piece.len().min(usize::try_from(len - sent)?);
        connection.write(&piece[..n]).await?;
        sent += n as u64;
    }
    if sent == len {
        let head = connection.head().await?;
        ensure!(head.status == 200, "{head:?}");
        let mut text = [0; 20];
        let n = connection.read(&mut text).await?;
        let text = String::from_utf8_lossy(&text[..n]);
        ensure!(text == len.to_string(), "{text} of {len} bytes came");
    }
    sample(sent, start.elapsed(), meter)
}

fn sample(bytes: u64, took: Duration, meter: Meter<'_>) -> Result<Sample> {
    let gb = bytes as f64 / 1e9;
    let mut sample = Sample::of([
        ("mb_per_second", gb * 1000.0 / took.as_secs_f64()),
        ("mb", gb * 1000.0),
    ]);
    sample.cpu = meter.stop(1.0 / gb)?;
    Ok(sample)
}
