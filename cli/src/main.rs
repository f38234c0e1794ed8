//! `adit`: the level way into a tunnel, inside Envoy.
//!
//! Each command is a module; each reads its options the same way (`options`).

mod causes;
mod check;
mod cleanup;
mod http;
mod key;
mod manual;
mod notify;
mod options;
mod reconciler;
mod role;
mod run;
mod status;

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

/// Reach services by the public key of an agent beside them, through Envoy
#[derive(Parser)]
#[command(name = "adit", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run Envoy and a dialer from a directory of manifests
    Run(Box<run::RunArgs>),
    /// Run the process beside Envoy: streams of its Unix socket leave through tunnels
    Dialer(Box<ConfigFile<role::DialerOptions>>),
    /// Run the agent beside a service: tunnels of allowed dialers reach it
    Connector(Box<ConfigFile<role::ConnectorOptions>>),
    /// Bring HTTPProxies and Connectors of a Kubernetes API to Envoy Gateway
    Reconciler(Box<ConfigFile<reconciler::ReconcilerOptions>>),
    /// Remove what the reconciler made in a Kubernetes API, before it is uninstalled
    Cleanup(Box<cleanup::CleanupArgs>),
    /// Say what is wrong in manifests or in a command's options, and which way a request would take
    Check(Box<check::CheckArgs>),
    /// Show a running dialer or connector: paths, streams, errors
    Status(status::StatusArgs),
    /// Make a key, or show the EndpointId of one
    Key(key::KeyArgs),
    /// Print the CustomResourceDefinitions as YAML
    Crds,
    /// Print what makes a shell complete adit's commands and options
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write the pages of all commands
    Man {
        /// Directory for adit.1, adit-run.1 and so on; made when it is missing
        #[arg(value_name = "DIR")]
        directory: Option<PathBuf>,
    },
    /// Run a program that ends when its parent does
    #[command(hide = true, name = run::LEASH)]
    Leash {
        /// The process that must be alive
        parent: u32,
        /// The program and its arguments
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
}

/// Options, and a file of more of them.
#[derive(Args)]
pub(crate) struct ConfigFile<O: Args> {
    /// YAML or JSON file of options: the flags' names without the dashes
    #[arg(short, long, env = "ADIT_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub options: O,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(args) => run::main(*args),
        Command::Dialer(args) => role::dialer(*args),
        Command::Connector(args) => role::connector(*args),
        Command::Reconciler(args) => reconciler::main(*args),
        Command::Cleanup(args) => cleanup::main(*args),
        Command::Check(args) => check::main(*args),
        Command::Status(args) => status::main(&args),
        Command::Key(args) => key::main(&args),
        Command::Crds => crds(),
        Command::Completions { shell } => manual::completions(shell),
        Command::Man { directory } => manual::pages(directory.as_deref()),
        Command::Leash { parent, command } => run::leash(parent, &command),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("adit: {}", causes::line(&error));
            ExitCode::FAILURE
        }
    }
}

fn crds() -> anyhow::Result<ExitCode> {
    for crd in adit_api::crds() {
        println!("---\n{}", serde_saphyr::to_string(&crd)?.trim_end());
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
