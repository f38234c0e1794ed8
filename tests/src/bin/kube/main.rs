//! The control plane of the tests, for a person: `cargo xtask kube up` starts
//! this and leaves it running.

use std::{env, fs, path::PathBuf};

use adit_tests::kube::{self, Stack, envoy_gateway::Extensions};
use anyhow::{Context, Result};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

/// Starts everything, says so in the file that is the only argument, and stays
/// until SIGTERM.
#[tokio::main]
async fn main() -> Result<()> {
    let ready = env::args_os().nth(1).map(PathBuf::from);
    let ready = ready.context("usage: kube FILE (cargo xtask kube up starts this)")?;
    // Before the namespaces: the first process of one ignores what it does not handle.
    kube::enter()?;
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    let stack = tokio::select! {
        started = Stack::start(Extensions::default()) => started?,
        _ = term.recv() => return Ok(()),
        _ = int.recv() => return Ok(()),
    };
    let says = json!({
        "kubeconfig": stack.plane.kubeconfig(),
        "logs": stack.plane.dir(),
    });
    let part = ready.with_extension("part");
    fs::write(&part, says.to_string())?;
    fs::rename(&part, &ready).with_context(|| format!("write {}", ready.display()))?;
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    stack.stop_envoy_gateway().await
}
