//! Small GETs, one after the other on each kept connection.

use anyhow::Result;

use super::{Stage, side_by_side};
use crate::{gateway::Host, paths::Path, stats::Sample};

/// On so many connections.
pub async fn run(stage: &Stage, path: &Path, connections: u16) -> Result<Sample> {
    let door = stage.door(path, Host::Http1);
    let mut workers = Vec::new();
    for _ in 0..connections {
        let mut connection = door.connect().await?;
        connection.get_ok("/kib").await?;
        workers.push(connection);
    }
    side_by_side(stage, path, workers, |mut connection| async {
        connection.get_ok("/kib").await?;
        Ok(connection)
    })
    .await
}
