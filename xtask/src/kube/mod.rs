//! `cargo xtask kube`: a real control plane on this machine. What runs long is
//! in the tests crate (its `kube` binary); this only builds and starts it.

pub mod build;
pub mod cache;

use anyhow::Result;

/// What `cargo xtask kube` takes.
#[derive(clap::Subcommand)]
pub enum Command {
    /// Compiles what is missing of the control plane into a cache (needs Go)
    Build,
}

/// Does it; true if all is well.
pub fn run(command: &Command) -> Result<bool> {
    match command {
        Command::Build => build::run(),
    }
}
