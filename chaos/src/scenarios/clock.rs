//! A clock that jumps by a day, as when a device without a battery asks the time.
//! Not Envoy's: with libfaketime it hangs before it reads its arguments.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use adit_tests::{
    bare_stage::{BareStage, Setup},
    client::{
        connect::{self, Http2, Http2Tunnel},
        http::get,
        patiently,
    },
    debian,
    process::until,
};
use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::json;

use crate::{
    load,
    scenario::{Context, LeftOut, Scenario},
};

/// This part of the table.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "clock-connector",
        fault: "the connector's clock jumps a day forward, two days back and a day forward, under 500 requests/s",
        promise: "no request fails, a tunnel stays open, and with its clock wrong a restarted connector is reached",
        quick: true,
        run: |context| Box::pin(jump(context, Side::Connector)),
    },
    Scenario {
        name: "clock-dialer",
        fault: "the same with the clock of the dialer",
        promise: "no request fails, a tunnel stays open, and with its clock wrong a restarted connector is reached",
        quick: false,
        run: |context| Box::pin(jump(context, Side::Dialer)),
    },
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Connector,
    Dialer,
}

/// A clock that this scenario sets, by libfaketime. Only the time of day: the
/// monotonic clock of a real machine does not jump.
struct Clock {
    library: PathBuf,
    file: PathBuf,
}

impl Clock {
    fn new(dir: &Path) -> Result<Self> {
        let library = library().ok_or_else(|| {
            LeftOut("libfaketime is missing: `cargo xtask chaos` unpacks Debian's package".into())
        })?;
        let clock = Self {
            library,
            file: dir.join("clock"),
        };
        clock.set("+0d")?;
        Ok(clock)
    }

    /// For the processes whose clock it is.
    fn env(&self) -> Vec<(String, String)> {
        let pairs = [
            ("LD_PRELOAD", self.library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.file.display().to_string()),
            ("FAKETIME_CACHE_DURATION", "1".into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
        ];
        let owned = pairs.map(|(name, value)| (name.to_owned(), value));
        owned.into()
    }

    fn set(&self, offset: &str) -> Result<()> {
        let temp = self.file.with_extension("tmp");
        fs::write(&temp, format!("{offset}\n"))?;
        Ok(fs::rename(&temp, &self.file)?)
    }
}

/// Installed, or unpacked.
fn library() -> Option<PathBuf> {
    let mut roots = vec![PathBuf::from("/")];
    roots.extend(debian::unpacked("faketime"));
    let folders = roots.iter().map(|root| root.join("usr/lib"));
    let architectures = folders.filter_map(|lib| fs::read_dir(lib).ok()).flatten();
    architectures
        .filter_map(|entry| Some(entry.ok()?.path().join("faketime/libfaketimeMT.so.1")))
        .find(|file| file.is_file())
}

/// The day it is there, as a log line begins.
fn day(offset: &str) -> Result<String> {
    let output = Command::new("date")
        .args(["--utc", "--date", offset, "+%FT"])
        .output()
        .context("run date")?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

async fn jump(context: &Context, side: Side) -> Result<String> {
    let dir = tempfile::Builder::new().prefix("adit-").tempdir()?;
    let clock = Clock::new(dir.path())?;
    let mut setup = Setup::default();
    match side {
        Side::Connector => setup.connector = clock.env(),
        Side::Dialer => setup.dialer = clock.env(),
    }
    let mut bench = BareStage::start(&context.version, setup).await?;
    let client = Http2::connect(bench.addr).await?;
    let mut tunnel = client.tunnel(&bench.echo_authority()).await?;
    works(&mut tunnel).await?;
    let load = load::Plan::get(bench.addr, "web.test", "/echo").begin();
    for (offset, date) in [("+1d", "+1 day"), ("-1d", "-1 day"), ("+0d", "now")] {
        clock.set(offset)?;
        let day = day(date)?;
        // Its log is where its clock shows, so it is given something to say.
        until(&format!("a log line of {day}"), async || {
            say_something(&bench, side).await.ok()?;
            let log = log(&bench, side).ok()?;
            let last = log.lines().next_back()?;
            last.starts_with(&day).then_some(())
        })
        .await?;
        tokio::time::sleep(Duration::from_secs(context.scale(1, 5))).await;
        let at = || format!("at {offset}");
        works(&mut tunnel).await.with_context(at)?;
        let mut another = client.tunnel(&bench.echo_authority()).await?;
        works(&mut another).await.with_context(at)?;
    }
    let tally = load.end().await?;
    tally.none_lost()?;
    tally.none_failed()?;
    // A handshake between clocks a day apart.
    clock.set("-1d")?;
    let bound = bench.edge.bound().await?;
    bench.edge.set("bind", json!(bound));
    let mut process = bench.edge.process.take().context("a connector")?;
    process.terminate().await?;
    bench.edge.start().await?;
    until("an answer from the restarted connector", async || {
        let answer = get(bench.addr, "web.test", "/echo").await.ok()?;
        (answer.status == 200).then_some(())
    })
    .await?;
    Ok(format!(
        "{} requests answered while the clock jumped three times, the slowest after {:.1?}",
        tally.ok, tally.slowest
    ))
}

async fn works(tunnel: &mut Http2Tunnel) -> Result<()> {
    ensure!(tunnel.status == 200, "CONNECT: {}", tunnel.status);
    tunnel.send("hello").await?;
    let got = patiently("the echo", tunnel.read_at_least(5)).await?;
    ensure!(got == b"hello", "the tunnel said {got:?}");
    Ok(())
}

/// What is logged, and harms nobody.
async fn say_something(bench: &BareStage, side: Side) -> Result<()> {
    match side {
        // It reads its configuration again.
        Side::Connector => bench.edge.process()?.signal(Signal::HUP),
        // A refusal; only some in so much time are logged.
        Side::Dialer => {
            connect::http1(bench.addr, "denied.test:9", b"").await?;
            Ok(())
        }
    }
}

fn log(bench: &BareStage, side: Side) -> Result<String> {
    Ok(match side {
        Side::Connector => bench.edge.process()?.log(),
        Side::Dialer => bench.dialer.process.log(),
    })
}
