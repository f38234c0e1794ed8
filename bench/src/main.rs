//! Adit beside other ways from Envoy to a service that nobody can connect to.
//!
//! All are up at once behind one Envoy, and the loads go over them in turn,
//! round by round: a noisy machine troubles all alike. One way is there twice,
//! so that one sees how far two equal things differ. Read the ratios and the
//! CPU times; single times mean little.
//!
//! * [`paths`]: the ways, one file each; [`gateway`]: the Envoy before them.
//! * [`loads`]: what is sent, one file each; [`client`]: the load generator.
//! * [`run`]: rounds; [`cpu`], [`stats`]: what is counted and what it comes to.
//! * [`targets`]: what was promised; [`report`]: JSON, page and charts.
//! * [`roles`]: this program as a child process of itself.
//!
//! `cargo xtask bench` builds everything in release mode and starts this.

mod client;
mod cpu;
mod gateway;
mod loads;
mod paths;
mod reasons;
mod report;
mod roles;
mod run;
mod stats;
mod targets;

use std::{fs, path::PathBuf, process::ExitCode};

use adit_tests::{binaries, process::raise_open_files};
use anyhow::{Context as _, Result, ensure};
use clap::{Args, Parser, Subcommand};

use crate::{
    loads::{Load, Scale},
    paths::ALL,
    report::{Report, markdown},
    run::Plan,
};

/// Measures Adit beside other ways from Envoy to a service
#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    measure: Measure,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Plays one of the parts; this program starts itself so
    #[command(hide = true)]
    Play {
        #[command(subcommand)]
        role: roles::Role,
    },
}

#[derive(Args)]
struct Measure {
    /// Shorter loads and fewer rounds: for a look, in minutes
    #[arg(long)]
    quick: bool,
    /// One JSON object on stdout instead of tables
    #[arg(long)]
    json: bool,
    /// Rounds; medians are shown
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: Option<u32>,
    /// Only this path, this load, or this load on this path, as in
    /// `adit/keep-alive-16`; may be given several times
    #[arg(long, value_name = "PATH/LOAD")]
    only: Vec<String>,
    /// Envoy's version
    #[arg(long, default_value = binaries::ENVOYS[1])]
    envoy_version: String,
    /// Envoy's worker threads
    #[arg(long, default_value_t = 1)]
    workers: u16,
    /// Writes benchmarks.md, its charts and its numbers into this folder
    #[arg(long, value_name = "DIR")]
    write: Option<PathBuf>,
    /// Measures nothing: takes the numbers of a run from its file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["quick", "rounds", "only"])]
    from: Option<PathBuf>,
    /// Shows the paths and loads, and ends
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    match run_cli(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Without the backtrace, which anyhow's own form would add.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_cli(cli: Cli) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    match cli.command {
        Some(Command::Play { role }) => runtime.block_on(role.play()),
        None if cli.measure.list => {
            list();
            Ok(())
        }
        None => runtime.block_on(measure(&cli.measure)),
    }
}

async fn measure(cli: &Measure) -> Result<()> {
    let report = match &cli.from {
        Some(file) => Report::read(file)?,
        None => {
            raise_open_files();
            let plan = plan(cli)?;
            run::run(&plan).await?
        }
    };
    if let Some(dir) = &cli.write {
        fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        report.write(dir)?;
    }
    if cli.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", markdown::tables(&report));
    }
    Ok(())
}

fn plan(cli: &Measure) -> Result<Plan> {
    for wanted in &cli.only {
        let known = |part: &str| {
            let path = ALL.iter().any(|kind| kind.name == part);
            path || Load::ALL.iter().any(|load| load.name() == part)
        };
        let all_known = wanted.split('/').all(known);
        ensure!(
            all_known,
            "--only {wanted}: no such path or load; see --list"
        );
    }
    let scale = if cli.quick { Scale::QUICK } else { Scale::FULL };
    Ok(Plan {
        quick: cli.quick,
        rounds: cli.rounds.unwrap_or(if cli.quick { 3 } else { 5 }),
        envoy: cli.envoy_version.clone(),
        workers: cli.workers,
        scale,
        only: cli.only.clone(),
    })
}

fn list() {
    println!("paths:");
    for kind in &ALL {
        println!("  {:<14} {}", kind.name, kind.title);
    }
    println!("loads:");
    for load in Load::ALL {
        println!("  {:<14} {}", load.name(), load.title());
    }
}
