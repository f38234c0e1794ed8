//! `cargo xtask demo`: builds what the demo needs, then hands over to it.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{envoy, root};

/// What `cargo xtask demo` takes.
#[derive(clap::Args)]
pub struct Options {
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// The Envoy to use, as in 1.39.3
    #[arg(long, value_name = "V")]
    envoy_version: Option<String>,
    /// Envoy's worker threads
    #[arg(long, value_name = "N", default_value_t = 2)]
    concurrency: u16,
    /// Leave everything running and print what to try
    #[arg(long)]
    stay: bool,
}

/// Builds and runs; true if every case is as expected.
pub fn run(options: &Options) -> Result<bool> {
    let envoy = envoy::find(options.envoy_version.as_deref())?;
    eprintln!("Building (the first time takes some minutes) …");
    let status = crate::cargo()
        .args(crate::BUILD)
        .status()
        .context("run cargo build")?;
    ensure!(status.success(), "the build failed");
    let mut demo = Command::new(root().join("target/debug/demo"));
    demo.env("ENVOY_PATH", envoy)
        .arg("--concurrency")
        .arg(options.concurrency.to_string());
    if options.json {
        demo.arg("--json");
    }
    if options.stay {
        demo.arg("--stay");
    }
    Ok(demo.status().context("run the demo")?.success())
}
