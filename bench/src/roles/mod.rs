//! What this program is when it is a child process of itself: so that /proc
//! counts its CPU time apart from the load generator's.

mod iroh_splice;
mod service;
mod splice;

use std::{net::SocketAddr, path::PathBuf, process::Command};

use anyhow::{Context as _, Result};
use clap::Subcommand;

/// A part to play.
#[derive(Subcommand)]
pub enum Role {
    /// The service that everything leads to
    Service {
        /// Where to listen
        #[arg(long)]
        listen: SocketAddr,
    },
    /// A Unix socket whose connections go to a TCP port, and nothing else
    Splice {
        /// The socket to make
        #[arg(long)]
        socket: PathBuf,
        /// The service
        #[arg(long)]
        to: SocketAddr,
    },
    /// A Unix socket whose connections go to an iroh peer
    IrohDial {
        /// The socket to make
        #[arg(long)]
        socket: PathBuf,
        /// The peer's EndpointId
        #[arg(long)]
        peer: iroh::EndpointId,
        /// Its UDP address
        #[arg(long)]
        at: SocketAddr,
    },
    /// An iroh peer whose streams go to a TCP port
    IrohAccept {
        /// Its key, 64 hex digits
        #[arg(long)]
        key_file: PathBuf,
        /// Its UDP address
        #[arg(long)]
        bind: SocketAddr,
        /// The service
        #[arg(long)]
        to: SocketAddr,
    },
}

impl Role {
    /// Plays it until the process is killed.
    pub async fn play(self) -> Result<()> {
        match self {
            Self::Service { listen } => service::run(listen).await,
            Self::Splice { socket, to } => splice::run(&socket, to).await,
            Self::IrohDial { socket, peer, at } => iroh_splice::dial(&socket, peer, at).await,
            Self::IrohAccept { key_file, bind, to } => {
                iroh_splice::accept(&key_file, bind, to).await
            }
        }
    }
}

/// This program, to play a role.
pub fn command(role: &str) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("this program's own path")?);
    command.args(["play", role]);
    Ok(command)
}
