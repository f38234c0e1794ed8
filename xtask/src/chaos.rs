//! `cargo xtask chaos`: faults on purpose, and whether what is promised holds.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{
    debian::{Packages, Programs},
    envoy, root,
};

/// By which one process gets a clock of its own. A library: there is nothing to
/// look for on `PATH`.
const FAKETIME: Packages = Packages {
    folder: "faketime",
    names: &["libfaketime"],
};
/// Slow clients.
const SLOWHTTPTEST: Programs = Programs {
    names: &["slowhttptest"],
    packages: Packages {
        folder: "slowhttptest",
        names: &["slowhttptest"],
    },
};

/// What `cargo xtask chaos` takes.
#[derive(clap::Args)]
pub struct Options {
    /// Only what takes seconds, at a smaller scale
    #[arg(long)]
    quick: bool,
    /// Only scenarios whose name contains one of these
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Says what there is, and runs nothing
    #[arg(long)]
    list: bool,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// The Envoy to use, as in 1.39.3
    #[arg(long, value_name = "V")]
    envoy_version: Option<String>,
}

/// Builds and runs; true if every promise held. A run of everything writes
/// `docs/reliability.md`.
pub fn run(options: &Options) -> Result<bool> {
    let version = options.envoy_version.as_deref();
    if !options.list {
        envoy::find(Some(version.unwrap_or(envoy::DEFAULT)))?;
        tools()?;
    }
    eprintln!("Building (the first time takes some minutes) …");
    let status = crate::cargo()
        .args(crate::BUILD)
        .status()
        .context("run cargo build")?;
    ensure!(status.success(), "the build failed");
    let mut chaos = program();
    for (given, flag) in [
        (options.quick, "--quick"),
        (options.list, "--list"),
        (options.json, "--json"),
    ] {
        if given {
            chaos.arg(flag);
        }
    }
    if let Some(version) = version {
        chaos.args(["--envoy-version", version]);
    }
    chaos.args(&options.names);
    if !options.quick && !options.list && options.names.is_empty() {
        chaos.arg("--page").arg(root().join("docs/reliability.md"));
    }
    Ok(chaos.status().context("run the scenarios")?.success())
}

/// Finds or unpacks what scenarios start beside our own; one that misses
/// something is left out, and says so.
pub fn tools() -> Result<bool> {
    if let Err(error) = FAKETIME.fetch() {
        eprintln!("left out, what needs libfaketime: {error:#}");
    }
    // Not `SLOWHTTPTEST.fetch()`, which says so where `--json` writes.
    let there = SLOWHTTPTEST.missing().is_empty();
    if !there && let Err(error) = SLOWHTTPTEST.packages.fetch() {
        eprintln!("left out, what needs slowhttptest: {error:#}");
    }
    if let Err(error) = crate::kube::build::tool("h2spec") {
        eprintln!("left out, what needs h2spec: {error:#}");
    }
    Ok(true)
}

/// The whole table, or the quick part of it, for `cargo xtask test`.
pub fn table(all: bool) -> Command {
    let mut chaos = program();
    if !all {
        chaos.arg("--quick");
    }
    chaos
}

/// What [`crate::BUILD`] makes.
fn program() -> Command {
    Command::new(root().join("target/debug/chaos"))
}
