//! `adit key`: who a key file is.

use std::{path::PathBuf, process::ExitCode};

use adit_tunnel::{ids, key};
use anyhow::Result;

/// The arguments of `adit key`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// File of the secret key
    #[arg(long, env = "ADIT_KEY_FILE", value_name = "FILE")]
    key_file: PathBuf,
    /// Make the key when there is no file yet
    #[arg(long)]
    create: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Prints the public half of the key.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let secret = if arguments.create {
        key::load_or_create(&arguments.key_file)?
    } else {
        key::load(&arguments.key_file)?
    };
    let id = ids::to_wire(secret.public());
    if arguments.json {
        println!(
            "{}",
            serde_json::json!({ "endpointId": id.to_string(), "z32": id.to_z32() })
        );
    } else {
        println!("{id}");
    }
    Ok(ExitCode::SUCCESS)
}
