//! `adit check`: what is wrong, before anything starts.
//!
//! `adit check DIR` looks at manifests; `adit check connector …` and the like
//! take the options of that command, look at all they name, and start nothing.

mod findings;
mod manifests;
mod places;
mod roles;

use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::{
    ConfigFile,
    reconciler::ReconcilerOptions,
    role::{ConnectorOptions, DialerOptions},
    run::RunArgs,
};

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(override_usage = "adit check [OPTIONS] <DIR>\n       adit check <COMMAND>")]
pub(crate) struct CheckArgs {
    #[command(subcommand)]
    role: Option<Role>,
    #[command(flatten)]
    manifests: Option<manifests::ManifestArgs>,
}

/// The command whose options are looked at.
#[derive(Subcommand)]
enum Role {
    /// Whether `adit run` could start with these options: its manifests, Envoy and the module too
    Run(Box<RunArgs>),
    /// Whether `adit dialer` could start with these options
    Dialer(Box<ConfigFile<DialerOptions>>),
    /// Whether `adit connector` could start with these options
    Connector(Box<ConfigFile<ConnectorOptions>>),
    /// Whether `adit reconciler` could start with these options
    Reconciler(Box<ConfigFile<ReconcilerOptions>>),
}

pub(crate) fn main(args: CheckArgs) -> anyhow::Result<ExitCode> {
    let findings = match (args.role, args.manifests) {
        (Some(Role::Run(args)), _) => roles::run(*args)?,
        (Some(Role::Dialer(args)), _) => roles::dialer(*args)?,
        (Some(Role::Connector(args)), _) => roles::connector(*args)?,
        (Some(Role::Reconciler(args)), _) => roles::reconciler(*args)?,
        (None, Some(args)) => return manifests::main(&args),
        (None, None) => anyhow::bail!("give a directory of manifests, or a command to check"),
    };
    print!("{findings}");
    Ok(match findings.errors() {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}
