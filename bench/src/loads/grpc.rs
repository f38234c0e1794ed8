//! gRPC: unary calls, one after the other on each connection.

use adit_tests::{client::grpc::Client, services::grpc::Note};
use anyhow::{Context as _, Result};

use super::{Stage, side_by_side};
use crate::{gateway::Host, paths::Path, stats::Sample};

const CONNECTIONS: usize = 16;

/// A short message and its echo.
pub async fn run(stage: &Stage, path: &Path) -> Result<Sample> {
    let door = stage.door(path, Host::Http2);
    let mut workers = Vec::new();
    for _ in 0..CONNECTIONS {
        workers.push(Client::connect(door.tcp()?, &door.host).await?);
    }
    side_by_side(stage, path, workers, |mut client| async {
        let note = Note {
            text: "ping".into(),
            number: 1,
        };
        client.unary(note).await.context("a unary call")?;
        Ok(client)
    })
    .await
}
