//! 100 streams of one HTTP/2 connection; HTTP/2 also onwards from Envoy.

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use h2::client::SendRequest;
use http::Request;
use tokio::net::TcpStream;

use super::{Stage, side_by_side};
use crate::{gateway::Host, paths::Path, stats::Sample};

/// As browsers' connections and Envoy's default allow at least.
const STREAMS: usize = 100;

/// GETs, one after the other on each stream's place.
pub async fn run(stage: &Stage, path: &Path) -> Result<Sample> {
    let door = stage.door(path, Host::Http2);
    let tcp = TcpStream::connect(door.tcp()?).await?;
    tcp.set_nodelay(true)?;
    let (sender, connection) = h2::client::handshake(tcp).await?;
    let task = tokio::spawn(connection);
    let uri = format!("http://{}/kib", door.host);
    let sample = side_by_side(stage, path, vec![(sender, uri); STREAMS], one).await;
    task.abort();
    sample
}

async fn one(worker: (SendRequest<Bytes>, String)) -> Result<(SendRequest<Bytes>, String)> {
    let (sender, uri) = worker;
    let mut sender = sender.ready().await?;
    let request = Request::get(&uri).body(())?;
    let (answer, _) = sender.send_request(request, true)?;
    let answer = answer.await?;
    ensure!(answer.status() == 200, "{}", answer.status());
    let mut body = answer.into_body();
    let mut len = 0;
    while let Some(piece) = body.data().await {
        let piece = piece.context("the answer's body")?;
        body.flow_control().release_capacity(piece.len())?;
        len += piece.len();
    }
    ensure!(len == 1024, "{len} bytes instead of 1 KiB");
    Ok((sender, uri))
}
