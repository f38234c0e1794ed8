//! An API server that dies while an agent serves.

use std::time::Duration;

use adit_tests::{
    bare::{self, Dialer},
    keys::Key,
    kube::{ControlPlane, Outage, enter},
    process::until,
};
use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::stage::*;

pub async fn tunnels_go_on_while_the_api_server_is_away_and_the_agent_comes_back() -> Result<()> {
    enter()?;
    // One of its own: it is killed.
    let plane = ControlPlane::start().await?;
    let mut stage = Stage::on(&plane, "away").await?;
    stage.agent.start().await?;
    stage.connector("connection details", has_details).await?;
    stage.make_lease(6).await?;
    stage.lease("renewal", renewed).await?;
    let key = Key::new(stage.dir.path(), "dialer")?;
    stage.allow(&[&key.id]).await?;
    let hints = [(stage.agent.key.id.as_str(), stage.agent.bound().await?[0])];
    let dialer = Dialer::start(stage.dir.path(), &key, &hints, &[]).await?;
    let service = stage.echo.addr.to_string();
    let target = bare::target(&[&stage.agent.key.id], &service, Duration::from_secs(5))?;
    let mut stream = until("a tunnel", async || dialer.tunnel(&target).await.ok()).await?;

    let outage = Outage::begin(&plane)?;
    let lost = until("the loss in /status", async || {
        let status = stage.agent.status().await.ok()?;
        let control = &status["controlPlane"];
        (control["connected"] == false).then(|| control["lastError"].to_string())
    });
    lost.await?;
    echoes(&mut stream).await?;
    let mut another = dialer.tunnel(&target).await?;
    echoes(&mut another).await?;
    // A restart meanwhile: it serves, with the list in its file only.
    stage.agent.kill()?;
    stage.agent.set("allow", json!([key.id]));
    stage.agent.start().await?;
    ensure!(stage.agent.status().await?["controlPlane"]["connected"] == false);
    let port = stage.agent.bound().await?[0].port();

    let _server = outage.end()?;
    let back =
        |c: &Value| c["status"]["connectionDetails"]["publicKey"]["addresses"][0]["port"] == port;
    stage.connector("the new address", back).await?;
    until("the connection in /status", async || {
        let status = stage.agent.status().await.ok()?;
        (status["controlPlane"]["connected"] == true
            && status["controlPlane"]["lastError"].is_null())
        .then_some(())
    })
    .await
}
