//! `adit key`: who am I?

use std::{path::PathBuf, process::ExitCode};

use adit_tunnel::key;
use adit_wire::EndpointId;
use clap::{Args, Subcommand};

#[derive(Args)]
pub(crate) struct KeyArgs {
    #[command(subcommand)]
    command: KeyCommand,
}

#[derive(Subcommand)]
enum KeyCommand {
    /// Make a key, unless the file holds one, and print its EndpointId
    Generate {
        /// The key file, made with mode 0600
        file: PathBuf,
    },
    /// Print the EndpointId of a key
    Show {
        /// The key file
        file: PathBuf,
        /// Print it as z-base-32, as DNS records have it
        #[arg(long)]
        z32: bool,
    },
}

pub(crate) fn main(args: &KeyArgs) -> anyhow::Result<ExitCode> {
    match &args.command {
        KeyCommand::Generate { file } => {
            let id = EndpointId::from_bytes(*key::load_or_create(file)?.public().as_bytes());
            println!("{id}");
        }
        KeyCommand::Show { file, z32 } => {
            let id = EndpointId::from_bytes(*key::load(file)?.public().as_bytes());
            match z32 {
                true => println!("{}", id.to_z32()),
                false => println!("{id}"),
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
