//! `envoy -c envoy/standalone.yaml`, as it is: a request reaches the service.

#[path = "standalone/stage.rs"]
mod stage;

use std::process::Command;

use adit_tests::{binaries, on_each_envoy};
use anyhow::Result;

on_each_envoy!(envoy_takes_the_file_as_it_is);

async fn envoy_takes_the_file_as_it_is(version: &str) -> Result<()> {
    stage::enter()?;
    let dir = tempfile::tempdir()?;
    let mut command = Command::new(binaries::envoy(version)?);
    command.env_clear().arg("-c").arg(stage::file());
    stage::serves(command, dir.path()).await
}
