//! `adit reconciler` as a child process.

use std::{path::Path, process::Command};

use anyhow::Result;

use crate::{admin::Admin, binaries, process::Process};

/// Starts one with its own objects in `namespace`, and waits until it has seen
/// everything. Its log and its admin socket are in `dir`.
pub async fn start(
    dir: &Path,
    kubeconfig: &Path,
    namespace: &str,
    flags: &[&str],
) -> Result<(Process, Admin)> {
    let socket = dir.join("admin.sock");
    let mut command = Command::new(binaries::adit()?);
    command
        .args(["reconciler", "--namespace", namespace])
        .arg("--kubeconfig")
        .arg(kubeconfig)
        .arg("--admin")
        .arg(format!("unix:{}", socket.display()))
        .args(flags)
        .env_clear();
    let mut process = Process::start("reconciler", dir, &mut command)?;
    let admin = Admin::Unix(socket);
    process
        .until("ready reconciler", async || admin.get("/readyz").await.ok())
        .await?;
    Ok((process, admin))
}
