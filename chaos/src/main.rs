//! Faults on purpose, on the real parts: Envoy with our module, dialer and
//! connector, iroh between them, services and clients; everything on loopback
//! and under temporary directories.
//!
//! A [`scenario`] is one fault and the promise that must hold while it lasts and
//! after it. `cargo xtask chaos` runs all and writes `docs/reliability.md`;
//! `--quick` runs those that take seconds, at a smaller scale.

mod impair;
mod load;
mod report;
mod scenario;
mod scenarios;

use std::{path::PathBuf, process::ExitCode, time::Instant};

use adit_tests::{binaries, process};
use anyhow::{Context as _, Result, bail};
use clap::Parser;

use crate::{
    report::Row,
    scenario::{Context, Scenario, Verdict},
};

/// Breaks things on purpose and looks whether what is promised holds.
#[derive(Parser)]
struct Cli {
    /// Only what takes seconds, at a smaller scale
    #[arg(long)]
    quick: bool,
    /// Only scenarios whose name contains one of these
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Says what there is, and runs nothing
    #[arg(long)]
    list: bool,
    /// Envoy's version
    #[arg(long, default_value = binaries::ENVOYS[1])]
    envoy_version: String,
    /// One JSON object for each scenario instead of the table
    #[arg(long)]
    json: bool,
    /// Writes the table as a page of the book
    #[arg(long, value_name = "FILE", conflicts_with_all = ["quick", "names", "list"])]
    page: Option<PathBuf>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(cli: &Cli) -> Result<bool> {
    let chosen = choose(cli)?;
    if cli.list {
        for one in &chosen {
            report::listed(one, cli.json);
        }
        return Ok(true);
    }
    process::raise_open_files();
    let context = Context {
        version: cli.envoy_version.clone(),
        quick: cli.quick,
    };
    let mut rows = Vec::new();
    for one in chosen {
        if !cli.json {
            report::begins(one);
        }
        let begun = Instant::now();
        // A runtime of its own: nothing of one scenario goes on into the next.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?;
        let verdict = runtime.block_on(one.verdict(&context));
        drop(runtime);
        let row = Row {
            scenario: one,
            verdict,
            took: begun.elapsed(),
        };
        report::row(&row, cli.json);
        rows.push(row);
    }
    if !cli.json {
        report::closing(&rows);
    }
    if let Some(file) = &cli.page {
        std::fs::write(file, report::page(&rows, &cli.envoy_version))
            .with_context(|| format!("write {}", file.display()))?;
        eprintln!("written: {}", file.display());
    }
    Ok(!rows
        .iter()
        .any(|row| matches!(row.verdict, Verdict::Broken(_))))
}

fn choose(cli: &Cli) -> Result<Vec<&'static Scenario>> {
    for name in &cli.names {
        if !scenarios::all().any(|one| one.name.contains(name.as_str())) {
            bail!("no scenario's name contains {name:?}; `chaos --list` names all");
        }
    }
    let named = |one: &&Scenario| {
        cli.names.is_empty()
            || cli
                .names
                .iter()
                .any(|name| one.name.contains(name.as_str()))
    };
    let chosen: Vec<_> = scenarios::all()
        .filter(named)
        .filter(|one| !cli.quick || one.quick || !cli.names.is_empty())
        .collect();
    Ok(chosen)
}
