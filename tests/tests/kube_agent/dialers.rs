//! Whom an agent lets in.

use std::time::Duration;

use adit_tests::{
    bare::{self, Dialer},
    client::patiently,
    keys::Key,
    kube::Kind,
    process::until,
};
use anyhow::{Context, Result, ensure};
use serde_json::json;
use tokio::io::AsyncReadExt;

use super::stage::*;

pub async fn dialers_are_let_in_and_out_by_the_connectors_status() -> Result<()> {
    let mut stage = Stage::new("dialers").await?;
    stage.agent.start().await?;
    stage.connector("connection details", has_details).await?;
    let addr = stage.agent.bound().await?[0];
    let key = Key::new(stage.dir.path(), "dialer")?;
    let hints = [(stage.agent.key.id.as_str(), addr)];
    let dialer = Dialer::start(stage.dir.path(), &key, &hints, &[]).await?;
    let service = stage.echo.addr.to_string();
    let target = bare::target(&[&stage.agent.key.id], &service, Duration::from_secs(5))?;
    let tunnel = || dialer.tunnel(&target);
    ensure!(tunnel().await.is_err(), "nobody was let in yet");

    stage.allow(&[&"l".repeat(52), &key.id]).await?;
    let mut stream = until("a tunnel", async || tunnel().await.ok()).await?;
    echoes(&mut stream)
        .await
        .with_context(|| at("while the status names the dialer", &stage))?;

    // The configured list and the status add up, both live.
    stage.agent.set("allow", json!([key.id]));
    // The first reading is of the file as it was at the start.
    let read = async || reloads(&stage).await.filter(|n| *n > 0);
    let before = until("the first reading", read).await?;
    stage.agent.reconfigure()?;
    until("the configured list", async || {
        reloads(&stage).await.filter(|n| *n > before)
    })
    .await?;
    // Another dialer instead, as an unchanged union would not be announced.
    let other = Key::new(stage.dir.path(), "other")?;
    stage.allow(&[&other.id]).await?;
    until("the other dialer", async || {
        let log = stage.agent.process().map(|p| p.log()).unwrap_or_default();
        let told = log.matches("status.allowedDialers is in effect").count();
        (told == 2).then_some(())
    })
    .await?;
    echoes(&mut stream)
        .await
        .with_context(|| at("while the configuration names it", &stage))?;

    // Taken away by both: the tunnel is cut.
    stage.agent.options.remove("allow");
    stage.agent.reconfigure()?;
    let mut rest = Vec::new();
    let cut = patiently("the cut", async { Ok(stream.read_to_end(&mut rest).await) }).await?;
    ensure!(cut.is_err() || rest.is_empty(), "{rest:?}");
    ensure!(tunnel().await.is_err(), "it was let out");
    stage.allow(&[&key.id]).await?;
    let mut stream = until("a tunnel again", async || tunnel().await.ok()).await?;
    echoes(&mut stream)
        .await
        .with_context(|| at("after it was named again", &stage))?;

    // A Connector that is deleted takes no right away: it is made anew, and
    // says nothing about dialers until its controller has spoken.
    stage
        .objects
        .delete(Kind::CONNECTOR, "dialers", EDGE)
        .await?;
    stage
        .connector("connection details again", has_details)
        .await?;
    echoes(&mut stream)
        .await
        .with_context(|| at("with a Connector that was made anew", &stage))?;
    Ok(())
}

/// How often the agent has read its file and used it.
async fn reloads(stage: &Stage) -> Option<u32> {
    let metrics = stage.agent.admin.get("/metrics").await.ok()?;
    let name = "adit_connector_reloads_total{result=\"ok\"} ";
    metrics
        .lines()
        .find_map(|line| line.strip_prefix(name)?.parse().ok())
}
