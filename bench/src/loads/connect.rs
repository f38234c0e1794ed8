//! CONNECT: from the request until 200, which means that the service has
//! accepted. Then the tunnel is closed.

use anyhow::{Result, ensure};

use super::{Stage, side_by_side};
use crate::{
    client::{Connection, Door},
    gateway::Host,
    paths::Path,
    stats::Sample,
};

/// How many at once.
const AT_ONCE: usize = 16;

/// One after the other, so many at once.
pub async fn run(stage: &Stage, path: &Path) -> Result<Sample> {
    let (door, authority) = at(stage, path);
    let workers = vec![(door, authority); AT_ONCE];
    side_by_side(stage, path, workers, |(door, authority)| async {
        open(&door, &authority).await?;
        Ok((door, authority))
    })
    .await
}

/// The door for CONNECT, and the authority to ask for.
pub fn at(stage: &Stage, path: &Path) -> (Door, String) {
    let door = stage.door(path, Host::Connect);
    // Adit's filter wants the target's port.
    let authority = format!("{}:{}", door.host, stage.port);
    (door, authority)
}

/// A tunnel.
pub async fn open(door: &Door, authority: &str) -> Result<Connection> {
    let mut tunnel = door.connect().await?;
    let head = tunnel.ask("CONNECT", authority, None).await?;
    ensure!(head.status == 200, "CONNECT {authority}: {}", head.status);
    Ok(tunnel)
}
