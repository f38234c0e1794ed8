//! `cargo xtask`: the project's own commands.
//!
//! | command | what it does |
//! |---|---|
//! | `cargo xtask demo` | the whole product on loopback, each answer compared |
//! | `cargo xtask test` | everything CI checks |
//! | `cargo xtask envoy` | finds or downloads Envoy, prints its path |
//! | `cargo xtask abi` | compares `libadit.so` with every supported Envoy |
//! | `cargo xtask kube` | a real Kubernetes API, Envoy Gateway and Envoy |
//!
//! This crate stays small: it is compiled before anything can be shown.

mod abi;
mod demo;
mod envoy;
mod kube;
mod name_servers;
mod step;
mod test;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(bin_name = "cargo xtask", about = "Adit's own commands")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Sends real traffic through Envoy, dialer and connector, and compares
    Demo(demo::Options),
    /// Format, lints, tests on every supported Envoy, docs, ABI
    Test(test::Options),
    /// Finds or downloads Envoy and prints its path
    Envoy {
        /// The version to find; without it ENVOY_PATH or PATH may name any supported one
        #[arg(long, value_name = "V")]
        version: Option<String>,
    },
    /// Checks that libadit.so loads into every supported Envoy
    Abi,
    /// A real Kubernetes API, Envoy Gateway and Envoy on this machine
    #[command(subcommand)]
    Kube(kube::Command),
}

/// How everything is built, for the demo as for the tests. The whole workspace
/// and one test target: then cargo unites the features that `cargo test
/// --workspace` does, and the tree is compiled once for both.
const BUILD: [&str; 7] = [
    "build",
    "--workspace",
    "--locked",
    "--lib",
    "--bins",
    "--test",
    "plain_envoy",
];

/// The root of the checkout.
fn root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.parent().map_or(here.clone(), PathBuf::from)
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Demo(options) => demo::run(&options),
        Command::Test(options) => test::run(&options),
        Command::Envoy { version } => envoy::find(version.as_deref()).map(|path| {
            println!("{}", path.display());
            true
        }),
        Command::Abi => abi::run(),
        Command::Kube(command) => kube::run(&command),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
