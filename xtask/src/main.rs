//! `cargo xtask`: the project's own commands.
//!
//! | command | what it does |
//! |---|---|
//! | `cargo xtask demo` | the whole product on loopback, each answer compared |
//! | `cargo xtask test` | everything CI checks |
//! | `cargo xtask chaos` | faults on purpose; writes `docs/reliability.md` |
//! | `cargo xtask envoy` | finds or downloads Envoy, prints its path |
//! | `cargo xtask func-e` | finds or builds func-e, prints its path |
//! | `cargo xtask bench` | Adit beside other ways through Envoy, measured |
//! | `cargo xtask abi` | compares `libadit.so` with every supported Envoy |
//! | `cargo xtask fuzz` | the fuzz targets, guided by coverage |
//! | `cargo xtask sanitize` | the module's unsafe part under AddressSanitizer and valgrind |
//! | `cargo xtask audit` | licences, origins, known faults, where `unsafe` stands |
//! | `cargo xtask images` | both container images, built and tried |
//! | `cargo xtask helm` | every check of the Helm chart |
//! | `cargo xtask prometheus` | finds or unpacks Prometheus, on which alerts are tested |
//! | `cargo xtask docs` | the book: made, checked, its commands run |
//! | `cargo xtask kube` | a real Kubernetes API, Envoy Gateway and Envoy |
//!
//! This crate stays small: it is compiled before anything can be shown.

mod abi;
mod audit;
mod bench;
mod chaos;
mod debian;
mod demo;
mod docs;
mod envoy;
mod fuzz;
mod helm;
mod images;
mod kube;
mod name_servers;
mod places;
mod prometheus;
mod sanitize;
mod step;
mod test;

use std::{
    path::PathBuf,
    process::{Command, ExitCode},
};

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(bin_name = "cargo xtask", about = "Adit's own commands")]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Sends real traffic through Envoy, dialer and connector, and compares
    Demo(demo::Options),
    /// Format, lints, tests on every supported Envoy, docs, ABI
    Test(test::Options),
    /// Breaks things on purpose and looks whether what is promised holds
    Chaos(chaos::Options),
    /// Finds or downloads Envoy and prints its path
    Envoy {
        /// The version to find; without it ENVOY_PATH or PATH may name any supported one
        #[arg(long, value_name = "V")]
        version: Option<String>,
    },
    /// Finds func-e, or compiles it (needs Go), and prints its path
    FuncE,
    /// Checks that libadit.so loads into every supported Envoy
    Abi,
    /// Measures Adit beside other ways from Envoy to a service; writes docs/benchmarks.md
    Bench(bench::Options),
    /// Runs the fuzz targets, guided by coverage (needs a C++ compiler)
    Fuzz(fuzz::Options),
    /// Runs the module's unsafe part with AddressSanitizer, valgrind and Envoy under valgrind
    Sanitize(sanitize::Options),
    /// Checks what is compiled in: licences, origins, known faults, unsafe code
    Audit(audit::Options),
    /// Builds both container images as OCI layouts, without a daemon, and tries them
    Images(images::Options),
    /// Checks the Helm chart: as text, and on a real Kubernetes API (needs Go once)
    Helm(helm::Options),
    /// Finds Prometheus, or unpacks Debian's package
    Prometheus,
    /// Makes the book, or checks it and runs every command in it
    Docs(docs::Options),
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

/// Cargo, as if it had been started by hand. What `cargo run` sets for this
/// program would be in the environment of build scripts: some (ring's) run again
/// when it changes, and most of the tree is then compiled anew each time a
/// developer changes between `cargo xtask …` and `cargo …`.
fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo.current_dir(root());
    let ours = |name: &str| {
        name.starts_with("CARGO_PKG_")
            || name.starts_with("CARGO_MANIFEST_")
            || [
                "CARGO_BIN_NAME",
                "CARGO_CRATE_NAME",
                "CARGO_PRIMARY_PACKAGE",
            ]
            .contains(&name)
    };
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(ours) {
            cargo.env_remove(name);
        }
    }
    cargo
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Task::Demo(options) => demo::run(&options),
        Task::Test(options) => test::run(&options),
        Task::Chaos(options) => chaos::run(&options),
        Task::Envoy { version } => envoy::find(version.as_deref()).map(|path| {
            println!("{}", path.display());
            true
        }),
        Task::FuncE => kube::build::tool("func-e").map(|path| {
            println!("{}", path.display());
            true
        }),
        Task::Abi => abi::run(),
        Task::Bench(options) => bench::run(&options),
        Task::Fuzz(options) => fuzz::run(&options),
        Task::Sanitize(options) => sanitize::run(&options),
        Task::Audit(options) => audit::run(&options),
        Task::Images(options) => images::run(&options),
        Task::Helm(options) => helm::run(&options),
        Task::Prometheus => prometheus::PROGRAMS.fetch(),
        Task::Docs(options) => docs::run(&options),
        Task::Kube(command) => kube::run(&command),
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
