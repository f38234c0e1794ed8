//! Loss, delay and reordering: slower, but whole.

use std::time::{Duration, Instant};

use adit_tests::{
    client::{
        http::{Client, get},
        patiently,
    },
    pattern::Pattern,
    stage::{Plan, Stage},
};
use anyhow::{Context as _, Result, ensure};

use crate::{
    impair::{Forwarder, Weather, behind},
    scenario::Context,
};

/// 16 MiB: a hundred times what is under way at once.
const WHOLE: u64 = 16 << 20;
/// Slow start, and then some.
const LITTLE: u64 = 1 << 20;
/// Uploads are shorter: at 20 % loss 16 MiB take minutes.
const UPLOAD: u64 = 4;

pub(super) async fn loss(context: &Context, part: f64) -> Result<String> {
    let weather = Weather::default()
        .losing(part)
        .round_trip(Duration::from_millis(20));
    let (stage, path) = behind(Plan::of(&context.version), weather).await?;
    let seen = traffic(context, &stage).await?;
    let counts = path.counts();
    let lost = counts.lost as f64 / (counts.lost + counts.passed) as f64;
    ensure!(
        counts.lost > 0 && (lost - part).abs() < part / 2.0,
        "the forwarder lost {lost}, not {part}: {counts:?}"
    );
    Ok(seen.to_string() + &queue(&path))
}

pub(super) async fn delay(context: &Context, milliseconds: u64) -> Result<String> {
    let round_trip = Duration::from_millis(milliseconds);
    let weather = Weather::default().round_trip(round_trip);
    let (stage, path) = behind(Plan::of(&context.version), weather).await?;
    let seen = traffic(context, &stage).await?;
    ensure!(
        seen.median >= round_trip,
        "a request took {:?}: not by the slow path",
        seen.median
    );
    // A second one would be a handshake, or an answer that waits for an
    // acknowledgement.
    ensure!(
        seen.median < round_trip * 2,
        "a request takes {:?} where a round trip is {round_trip:?}",
        seen.median
    );
    Ok(seen.to_string() + &queue(&path))
}

pub(super) async fn reordering(context: &Context) -> Result<String> {
    let weather = Weather::default()
        .round_trip(Duration::from_millis(20))
        .jitter(Duration::from_millis(20));
    let (stage, path) = behind(Plan::of(&context.version), weather).await?;
    let seen = traffic(context, &stage).await?;
    let counts = path.counts();
    ensure!(
        counts.overtaken * 10 > counts.passed,
        "too few overtook each other: {counts:?}"
    );
    Ok(format!(
        "{seen}; {} of {} datagrams overtaken{}",
        counts.overtaken,
        counts.passed,
        queue(&path)
    ))
}

pub(super) async fn bad_link(context: &Context) -> Result<String> {
    let weather = Weather::default()
        .losing(0.05)
        .round_trip(Duration::from_millis(150))
        .jitter(Duration::from_millis(30));
    let (stage, path) = behind(Plan::of(&context.version), weather).await?;
    // Another dialer process has no connection yet: its handshake meets the weather.
    let before = stage.gateway.dialer_pid()?;
    stage.gateway.kill_dialer()?;
    adit_tests::process::until("another dialer", async || {
        let pid = stage.gateway.dialer_pid().ok()?;
        let ready = stage.gateway.dialer.get("/readyz").await.is_ok();
        (pid != before && ready).then_some(())
    })
    .await?;
    let begun = Instant::now();
    let first = patiently("a first request", get(stage.addr(), "web.test", "/echo")).await?;
    ensure!(
        first.status == 200,
        "the first: {} {}",
        first.status,
        first.text()
    );
    let first = begun.elapsed();
    let mut client = Client::http1(stage.addr(), "web.test").await?;
    let size = context.scale(LITTLE / 4, LITTLE);
    let download = download(&mut client, size).await?;
    let stage_seen = requests(&stage, context.scale(10, 50)).await?;
    Ok(format!(
        "dialled and answered after {first:.1?}; {} requests, p50 {:.0?}; {} in {download:.1?}{}",
        stage_seen.len(),
        median(&stage_seen),
        mebibytes(size),
        queue(&path)
    ))
}

/// What [`traffic`] saw.
struct Seen {
    requests: usize,
    median: Duration,
    slowest: Duration,
    bytes: u64,
    download: Duration,
    upload: Duration,
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} requests, p50 {:.0?}, slowest {:.0?}; {} down in {:.1?}, {} up in {:.1?}",
            self.requests,
            self.median,
            self.slowest,
            mebibytes(self.bytes),
            self.download,
            mebibytes(self.bytes / UPLOAD),
            self.upload
        )
    }
}

/// Requests one after another, then a download and an upload, each compared with
/// what was sent.
async fn traffic(context: &Context, stage: &Stage) -> Result<Seen> {
    let times = requests(stage, context.scale(10, 50)).await?;
    let bytes = context.scale(LITTLE, WHOLE);
    let mut client = Client::http1(stage.addr(), "web.test").await?;
    let download = download(&mut client, bytes).await?;
    let begun = Instant::now();
    let upload = client.upload(3, bytes / UPLOAD).await;
    upload.context("the upload")?;
    Ok(Seen {
        requests: times.len(),
        median: median(&times),
        slowest: times.last().copied().unwrap_or_default(),
        bytes,
        download,
        upload: begun.elapsed(),
    })
}

/// How long each took, sorted.
async fn requests(stage: &Stage, count: usize) -> Result<Vec<Duration>> {
    let mut client = Client::http1(stage.addr(), "web.test").await?;
    // The connection through the tunnel is made by the first one.
    patiently("a request", client.get("/echo")).await?;
    let mut times = Vec::new();
    for n in 0..count {
        let begun = Instant::now();
        let answer = patiently("a request", client.get(&format!("/echo?n={n}"))).await?;
        ensure!(
            answer.status == 200 && answer.json()?["path"] == format!("/echo?n={n}"),
            "request {n}: {} {}",
            answer.status,
            answer.text()
        );
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    Ok(times)
}

async fn download(client: &mut Client, bytes: u64) -> Result<Duration> {
    let begun = Instant::now();
    let path = format!("/download?bytes={bytes}&seed=2");
    let got = client.download(&path).await.context("the download")?;
    ensure!(
        got.status == 200 && got.len == bytes && got.sha256 == Pattern::sha256(2, bytes),
        "{bytes} bytes were sent, and this came: {got:?}"
    );
    Ok(begun.elapsed())
}

fn median(sorted: &[Duration]) -> Duration {
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes as f64 / f64::from(1 << 20))
}

/// A full queue is a loss that nobody ordered: it is said.
fn queue(path: &Forwarder) -> String {
    match path.counts().overflowed {
        0 => String::new(),
        n => format!("; {n} lost in the forwarder's full queue"),
    }
}
