//! A relay or a service as a child process, to be killed as such.

use std::{net::SocketAddr, path::Path, process::Command};

use anyhow::Result;

use crate::{binaries, process::Process};

/// A running fixture.
pub struct Fixture {
    /// The process.
    pub process: Process,
    /// Where it listens.
    pub addr: SocketAddr,
}

impl Fixture {
    /// Starts a `relay`, `web` or `echo`, at an address or on a free port.
    pub async fn start(dir: &Path, kind: &str, addr: Option<SocketAddr>) -> Result<Self> {
        let mut command = Command::new(binaries::built("fixture")?);
        command.arg(kind).args(addr.map(|a| a.to_string()));
        // A log of its own for each start: the line with the address is there.
        let name = format!("{kind}-{:08x}", rand::random::<u32>());
        let mut process = Process::start(&name, dir, &mut command)?;
        let log = process.log_file();
        let addr = process
            .until("listening fixture", async || {
                let log = std::fs::read_to_string(&log).ok()?;
                log.strip_prefix("listening on ")?.trim().parse().ok()
            })
            .await?;
        Ok(Self { process, addr })
    }
}
