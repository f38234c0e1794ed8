//! The control plane's binaries, found as `cargo xtask kube build` leaves them.

use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};

use crate::binaries::root;

#[path = "../../../xtask/src/kube/cache.rs"]
pub(crate) mod cache;

/// The path of `etcd`, `kube-apiserver`, `kube-controller-manager`,
/// `envoy-gateway`, or of a tool that another `cargo xtask` command builds.
pub fn program(name: &str) -> Result<PathBuf> {
    let program = cache::PROGRAMS
        .iter()
        .chain(&cache::TOOLS)
        .find(|p| p.name == name)
        .with_context(|| format!("{name} is no program of the control plane"))?;
    cache::find(&root(), program).with_context(|| format!("{name} is missing: {TO_DO}"))
}

/// The YAML files of Gateway API's and Envoy Gateway's CRDs.
pub fn crd_files() -> Result<Vec<PathBuf>> {
    let dir = cache::crds(&root()).with_context(|| format!("the CRDs are missing: {TO_DO}"))?;
    let mut files = Vec::new();
    for entry in std::fs::read_dir(&dir).with_context(|| format!("read {}", dir.display()))? {
        files.push(entry?.path());
    }
    files.sort();
    Ok(files)
}

/// Fails with what to do when anything is missing.
pub fn ensure_all() -> Result<()> {
    let missing = cache::missing(&root());
    if missing.is_empty() {
        return Ok(());
    }
    Err(anyhow!("missing: {}: {TO_DO}", missing.join(", ")))
}

const TO_DO: &str = "run `cargo xtask kube build` (needs Go), or put the programs on PATH";
