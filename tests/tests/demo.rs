//! The demo itself, on each Envoy: every line it prints must be ok.

use std::process::Command;

use adit_tests::{binaries, on_each_envoy};
use anyhow::{Result, ensure};
use serde_json::Value;

on_each_envoy!(every_case_of_the_demo_is_as_expected);

async fn every_case_of_the_demo_is_as_expected(version: &str) -> Result<()> {
    let mut demo = Command::new(env!("CARGO_BIN_EXE_demo"));
    demo.arg("--json")
        .env("ENVOY_PATH", binaries::envoy(version)?);
    let output = tokio::task::spawn_blocking(move || demo.output()).await??;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines: Vec<Value> = said
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    println!("{said}");
    ensure!(lines.len() > 10, "only {} lines", lines.len());
    for line in &lines {
        ensure!(
            line["ok"] == true && line["name"].is_string() && line["ms"].is_number(),
            "{line}"
        );
    }
    ensure!(
        output.status.success(),
        "the demo ended with {}",
        output.status
    );
    Ok(())
}
