//! `cargo xtask demo`: the whole product on loopback. A relay, services, three
//! connectors, and `adit run` with Envoy and a dialer, all real processes and
//! everything under a temporary directory; then traffic of every kind through
//! Envoy, each compared with what the service got or sent.

mod cases;
mod report;
mod site;

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use adit_tests::binaries;
use anyhow::{Context, Result};
use clap::Parser;

use crate::{
    report::{Line, Report},
    site::Site,
};

/// No case takes this long unless something hangs.
const LIMIT: Duration = Duration::from_secs(90);

#[derive(Parser)]
#[command(about = "The demo; run it with `cargo xtask demo`")]
struct Cli {
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// Envoy's worker threads
    #[arg(long, default_value_t = 2)]
    concurrency: u16,
    /// Leave everything running and print what to try
    #[arg(long)]
    stay: bool,
    /// The Envoy binary
    #[arg(long, env = "ENVOY_PATH")]
    envoy: PathBuf,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(&Cli::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: &Cli) -> Result<bool> {
    let version = binaries::version_of(&cli.envoy)
        .with_context(|| format!("{} is no Envoy", cli.envoy.display()))?;
    let dir = tempfile::Builder::new().prefix("adit-demo-").tempdir()?;
    eprintln!(
        "Starting Envoy {version}, a dialer, a relay, connectors and services under {} …",
        dir.path().display()
    );
    let started = Instant::now();
    let site = match Site::start(dir.path(), &version, cli.concurrency).await {
        Ok(site) => site,
        Err(error) => {
            let kept = dir.keep();
            return Err(error.context(format!("start; the logs are in {}", kept.display())));
        }
    };
    eprintln!("Ready after {:.1} s.", started.elapsed().as_secs_f64());

    let mut report = Report::new(cli.json);
    for (name, case) in cases::all(&site) {
        let begun = Instant::now();
        let outcome = match tokio::time::timeout(LIMIT, case).await {
            Ok(outcome) => outcome,
            Err(_) => Err(anyhow::anyhow!("nothing within {} s", LIMIT.as_secs())),
        };
        report.add(&Line::new(name, begun.elapsed(), outcome));
    }
    let ok = report.close(&version, started.elapsed());
    if cli.stay {
        site.explain();
        tokio::signal::ctrl_c().await?;
    }
    drop(site);
    if !ok {
        eprintln!("The logs are in {}", dir.keep().display());
    }
    Ok(ok)
}
