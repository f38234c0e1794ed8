//! WebSocket: a message, its echo, the next message.

use adit_tests::client::ws;
use anyhow::{Context as _, Result, ensure};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio_tungstenite::tungstenite::Message;

use super::{Stage, side_by_side};
use crate::{gateway::Host, paths::Path, stats::Sample};

const SOCKETS: usize = 16;
/// 64 bytes.
const PING: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// On each socket one at a time.
pub async fn run(stage: &Stage, path: &Path) -> Result<Sample> {
    let door = stage.door(path, Host::Http1);
    let mut workers = Vec::new();
    for _ in 0..SOCKETS {
        workers.push(ws::open(door.tcp()?, &door.host).await?);
    }
    side_by_side(stage, path, workers, |mut socket| async {
        socket.send(Message::text(PING)).await?;
        let echo = socket.next().await.context("closed before the echo")??;
        ensure!(echo == Message::text(PING), "another message came back");
        Ok(socket)
    })
    .await
}
