//! No API server, or none any more.

use std::fs;

use adit_tests::{
    bare::Dialer,
    fake_connector::{Asked, FakeConnector},
    keys::Key,
    kube::{ControlPlane, Kind, Outage, enter},
    process::until,
};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::stage::*;

pub async fn without_an_api_server_a_dialer_serves_with_what_it_has() -> Result<()> {
    enter()?;
    let dir = tempfile::tempdir()?;
    let key = Key::new(dir.path(), "dialer")?;
    let fake = FakeConnector::start(Asked::serve).await?;
    // Nobody listens there.
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "a",
        "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
        "clusters": [{"name": "a", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "a", "user": {"token": "t"}}],
    });
    let kubeconfig = dir.path().join("kubeconfig");
    fs::write(&kubeconfig, config.to_string())?;
    let mut command = Dialer::command(dir.path(), &key, &[(&fake.id, fake.addr)])?;
    command.arg("--kubeconfig").arg(&kubeconfig).args([
        "--gateway-namespace",
        "gateways",
        "--drain-timeout",
        "100ms",
    ]);
    let mut dialer = Dialer::run(dir.path(), command).await?;
    let mut stream = dialer.tunnel(&target(&fake, 80)?).await?;
    answers(&mut stream).await?;
    let said = until("what it cannot do", async || {
        let status = dialer.admin.json("/status").await.ok()?;
        let control = &status["controlPlane"];
        (control["connected"] == false).then(|| control["lastError"].as_str().map(str::to_owned))?
    });
    ensure!(!said.await?.is_empty());
    // Longer than the drain time: nobody manages the targets.
    answers(&mut stream).await?;
    let ended = dialer.process.terminate().await?;
    ensure!(ended.success(), "{ended}");
    Ok(())
}

pub async fn when_the_api_server_goes_a_dialer_goes_on_with_what_it_knows() -> Result<()> {
    enter()?;
    // One of its own: it is killed.
    let plane = ControlPlane::start().await?;
    let stage = Stage::on(&plane, "lost").await?;
    let fake = FakeConnector::start(Asked::serve).await?;
    let details = details(&fake);
    stage.connector(&stage.connectors, "edge", details).await?;
    let known = target(&fake, 80)?;
    stage.policy("known", &[&known]).await?;
    let dialer = stage
        .start(&[
            "--gateway-namespace",
            &stage.gateways,
            "--drain-timeout",
            "100ms",
        ])
        .await?;
    let mut stream = until("a tunnel", async || dialer.tunnel(&known).await.ok()).await?;
    answers(&mut stream).await?;
    let name = format!("adit-dialer-{}", &stage.key.id[..10]);
    let renewed = |l: &Value| l["spec"]["renewTime"].is_string();
    let before = stage
        .objects
        .until(Kind::LEASE, &stage.dialers, &name, "its key", renewed)
        .await?;

    let outage = Outage::begin(&plane)?;
    until("the loss in /status", async || {
        let status = dialer.admin.json("/status").await.ok()?;
        let control = &status["controlPlane"];
        (control["connected"] == false && control["lastError"].is_string()).then_some(())
    })
    .await?;
    // Longer than the drain time: a list that cannot be read is no empty list.
    answers(&mut stream).await?;
    let mut another = dialer.tunnel(&known).await?;
    answers(&mut another).await?;
    // It has not given up what would be ready for a load balancer either.
    dialer.admin.get("/readyz").await?;

    let _server = outage.end()?;
    // It says its key again, and sees what is new.
    let time = before["spec"]["renewTime"].clone();
    stage
        .objects
        .until(Kind::LEASE, &stage.dialers, &name, "a renewal", |l| {
            renewed(l) && l["spec"]["renewTime"] != time
        })
        .await
        .with_context(|| dialer.process.last_words())?;
    let second = FakeConnector::start(Asked::serve).await?;
    let details = self::details(&second);
    stage.connector(&stage.connectors, "new", details).await?;
    let new = target(&second, 80)?;
    stage.policy("new", &[&new]).await?;
    let mut fresh = until("a tunnel to what is new", async || {
        dialer.tunnel(&new).await.ok()
    })
    .await
    .with_context(|| dialer.process.last_words())?;
    answers(&mut fresh).await?;
    answers(&mut stream).await?;
    ensure!(
        dialer.admin.json("/status").await?["controlPlane"]["connected"] == true,
        "{}",
        dialer.process.last_words()
    );
    Ok(())
}
