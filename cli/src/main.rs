//! `adit`: Envoy to a service behind NAT, by the public key of a small agent
//! beside it. One binary for every process but Envoy itself.

mod admin_client;
mod config;
mod crds;
mod ends;
mod key;
mod status;
mod table;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Reach services behind NAT from Envoy, by public key.
#[derive(Parser)]
#[command(name = "adit", version, propagate_version = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the dialer: the process beside Envoy
    Dialer(config::Arguments<adit_dialer::Options>),
    /// Run the connector: the agent beside a service
    Connector(config::Arguments<adit_connector::Options>),
    /// Show what a running dialer or connector sees: path, round-trip time, streams, bytes, errors
    Status(status::Arguments),
    /// Show the EndpointId of a key file, or make one
    Key(key::Arguments),
    /// Print the CustomResourceDefinitions as YAML
    Crds,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Dialer(arguments) => ends::dialer(arguments),
        Command::Connector(arguments) => ends::connector(arguments),
        Command::Status(arguments) => status::run(&arguments),
        Command::Key(arguments) => key::run(&arguments),
        Command::Crds => crds::run(),
    };
    done.unwrap_or_else(|error| {
        eprintln!("adit: {error:#}");
        ExitCode::FAILURE
    })
}
