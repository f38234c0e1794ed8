//! `func-e run -c envoy/standalone.yaml`, as it is, with a local Envoy
//! (`ENVOY_PATH`): a request reaches the service, and nothing is downloaded, for
//! the namespace has loopback only.

#[path = "standalone/stage.rs"]
mod stage;

use std::{
    io::{self, Write as _},
    process::{Command, exit},
};

use adit_tests::{binaries, kube::programs, on_each_envoy};
use anyhow::Result;

on_each_envoy!(func_e_takes_the_file_as_it_is);

async fn func_e_takes_the_file_as_it_is(version: &str) -> Result<()> {
    let func_e = match programs::program("func-e") {
        Ok(found) => found,
        Err(_) => {
            // On stderr, past the capturing of what a test prints: no test has
            // failed, and no `test result:` line counts one as passed.
            let _ = writeln!(
                io::stderr(),
                "\nLEFT OUT: all tests of this binary: func-e is missing: run `cargo xtask func-e` \
                 (needs Go), or put it on PATH"
            );
            exit(0);
        }
    };
    stage::enter()?;
    let dir = tempfile::tempdir()?;
    let mut command = Command::new(func_e);
    command
        .env_clear()
        .env("ENVOY_PATH", binaries::envoy(version)?)
        .env("FUNC_E_HOME", dir.path().join("func-e"))
        .args(["run", "-c"])
        .arg(stage::file());
    stage::serves(command, dir.path()).await
}
