//! `cargo xtask kube`: a real control plane on this machine. What runs long is
//! in the tests crate (its binaries `kube` and `kube_scale`, and its test
//! targets `kube_*`); this only builds and starts it.

pub mod build;
pub mod cache;
mod scale;
mod stack;

use std::{ffi::OsString, fs};

use anyhow::{Context, Result, ensure};

use crate::{BUILD, envoy, root};

/// What `cargo xtask kube` takes.
#[derive(clap::Subcommand)]
pub enum Command {
    /// Compiles what is missing of the control plane into a cache (needs Go)
    Build,
    /// Starts a Kubernetes API with Envoy Gateway and leaves it running
    Up,
    /// Stops what `up` started, and only that
    Down,
    /// Says what runs
    Status,
    /// Runs a command where `up`'s addresses mean something: KUBECONFIG is set
    Exec {
        /// The command and its arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
    /// Runs the end-to-end tests on a real control plane (tests/tests/kube_*.rs)
    E2e {
        /// Only tests whose name contains this
        filter: Option<String>,
    },
    /// Measures the reconciler and Envoy Gateway on a large cluster
    Scale(scale::Options),
}

/// Does it; true if all is well.
pub fn run(command: &Command) -> Result<bool> {
    match command {
        Command::Build => build::run(),
        Command::Up => {
            prepare()?;
            stack::up()
        }
        Command::Down => stack::down(),
        Command::Status => stack::status(),
        Command::Exec { command } => stack::exec(command),
        Command::E2e { filter } => {
            prepare()?;
            e2e(filter.as_deref())
        }
        Command::Scale(options) => {
            prepare()?;
            scale::run(options)
        }
    }
}

/// The test targets that need a control plane.
pub fn test_targets() -> Result<Vec<String>> {
    let dir = root().join("tests/tests");
    let mut targets = Vec::new();
    for entry in fs::read_dir(&dir).with_context(|| format!("read {}", dir.display()))? {
        let path = entry?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        if let (Some(stem), true) = (stem, path.is_file())
            && (stem.starts_with("kube_") || stem == "helm_cluster")
        {
            targets.push(stem.to_owned());
        }
    }
    targets.sort();
    Ok(targets)
}

/// All that is needed to start: binaries, every tested Envoy, the product.
fn prepare() -> Result<()> {
    build::complete()?;
    for version in envoy::ABI {
        envoy::find(Some(version))?;
    }
    eprintln!("Building (the first time takes some minutes) …");
    let status = crate::cargo()
        .args(BUILD)
        .status()
        .context("run cargo build")?;
    ensure!(status.success(), "the build failed");
    Ok(())
}

fn e2e(filter: Option<&str>) -> Result<bool> {
    let mut test = crate::cargo();
    test.args(["test", "--workspace", "--locked", "--no-fail-fast"]);
    test.env("ADIT_TEST_ALL", "1");
    for target in test_targets()? {
        test.args(["--test", &target]);
    }
    test.args(["--", "--show-output"]).args(filter);
    Ok(test.status().context("run cargo test")?.success())
}
