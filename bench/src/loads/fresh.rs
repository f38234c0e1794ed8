//! A connection to Envoy, and one from Envoy onwards, for every GET: what it
//! costs to open a tunnel.

use anyhow::Result;

use super::{Stage, side_by_side};
use crate::{gateway::Host, paths::Path, stats::Sample};

/// How many at once.
const AT_ONCE: usize = 16;

/// One after the other, so many at once.
pub async fn run(stage: &Stage, path: &Path) -> Result<Sample> {
    let door = stage.door(path, Host::Fresh);
    side_by_side(stage, path, vec![door; AT_ONCE], |door| async {
        door.connect().await?.get_ok("/kib").await?;
        Ok(door)
    })
    .await
}
