//! Where connectors are, and which targets are wanted.

use std::time::Duration;

use adit_tests::{
    bare::{self, Dialer},
    client::patiently,
    fake_connector::{Asked, FakeConnector},
    kube::{ControlPlane, Kind},
    process::until,
};
use anyhow::{Result, ensure};
use serde_json::json;
use tokio::io::AsyncReadExt;

use super::stage::*;

pub async fn connectors_are_found_by_their_objects_and_followed_when_they_move() -> Result<()> {
    let stage = Stage::new("found").await?;
    let fake = FakeConnector::start(Asked::serve).await?;
    // Objects that make no sense, before and after the good one.
    let nonsense = json!({"type": "PublicKey", "publicKey": {
        "id": "g".repeat(100_000), "discoveryMode": "DNS",
        "addresses": [{"address": "192.0.2.1", "port": 1}]}});
    let _ = stage.connector(&stage.connectors, "bad", nonsense).await;
    let dialer = stage.start(&[]).await?;
    let target = target(&fake, 80)?;
    ensure!(dialer.tunnel(&target).await.is_err(), "nobody knows it yet");
    stage
        .connector(&stage.connectors, "edge", details(&fake))
        .await?;
    let stream = until("a tunnel", async || dialer.tunnel(&target).await.ok()).await?;
    drop(stream);

    // One that is not where its object says, and then says where it is.
    let second = FakeConnector::start(Asked::serve).await?;
    let nowhere = json!({"type": "PublicKey", "publicKey": {
        "id": second.id, "discoveryMode": "DNS",
        "addresses": [{"address": "127.0.0.1", "port": 9}]}});
    stage
        .connector(&stage.connectors, "second", nowhere)
        .await?;
    let other = bare::target(
        &[&second.id],
        "service.internal.test:80",
        Duration::from_secs(1),
    )?;
    ensure!(dialer.tunnel(&other).await.is_err());
    stage
        .connector(&stage.connectors, "second", details(&second))
        .await?;
    until("a tunnel to the second one", async || {
        dialer.tunnel(&other).await.ok()
    })
    .await?;
    let status = dialer.admin.json("/status").await?;
    ensure!(status["controlPlane"]["connected"] == true, "{status}");
    Ok(())
}

pub async fn streams_of_a_target_end_when_its_policy_goes() -> Result<()> {
    let stage = Stage::new("live").await?;
    let fake = FakeConnector::start(Asked::serve).await?;
    stage
        .connector(&stage.connectors, "edge", details(&fake))
        .await?;
    let (kept, gone) = (target(&fake, 80)?, target(&fake, 81)?);
    stage.policy("kept", &[&kept]).await?;
    stage.policy("gone", &[&gone]).await?;
    let dialer = stage
        .start(&[
            "--gateway-namespace",
            &stage.gateways,
            "--drain-timeout",
            "300ms",
        ])
        .await?;
    let mut first = until("a tunnel", async || dialer.tunnel(&kept).await.ok()).await?;
    let mut second = until("a tunnel", async || dialer.tunnel(&gone).await.ok()).await?;
    answers(&mut first).await?;
    answers(&mut second).await?;
    stage
        .objects
        .delete(Kind::ENVOY_PATCH_POLICY, &stage.gateways, "gone")
        .await?;
    let mut rest = Vec::new();
    patiently("the end of the stream", async {
        Ok(second.read_to_end(&mut rest).await)
    })
    .await?
    .ok();
    answers(&mut first).await?;
    // A policy's annotation changes: the same.
    stage.policy("kept", &[&gone]).await?;
    patiently("the end of the other stream", async {
        Ok(first.read_to_end(&mut rest).await)
    })
    .await?
    .ok();
    let mut again = dialer.tunnel(&gone).await?;
    answers(&mut again).await
}

pub async fn only_the_watched_namespaces_are_read() -> Result<()> {
    let plane = ControlPlane::shared().await?;
    let stage = Stage::new("some").await?;
    // The rights of the example's other form: a Role where Connectors are.
    let [everywhere, own, _] = rules()?;
    let user = "some-other";
    plane.user_with(user, &stage.connectors, everywhere).await?;
    let kubeconfig = plane.user_with(user, &stage.dialers, own).await?;
    let (near, far) = (
        FakeConnector::start(Asked::serve).await?,
        FakeConnector::start(Asked::serve).await?,
    );
    stage
        .connector(&stage.connectors, "near", details(&near))
        .await?;
    stage
        .connector(&stage.gateways, "far", details(&far))
        .await?;
    let mut command = Dialer::command(stage.dir.path(), &stage.key, &[])?;
    command
        .arg("--kubeconfig")
        .arg(&kubeconfig)
        .args(["--namespace", &stage.dialers])
        .args(["--watch-namespace", &stage.connectors]);
    let dialer = Dialer::run(stage.dir.path(), command).await?;
    let to_near = target(&near, 80)?;
    until("a tunnel", async || dialer.tunnel(&to_near).await.ok()).await?;
    ensure!(dialer.tunnel(&target(&far, 80)?).await.is_err());

    // Everything is not permitted to this user: said, and nothing else harmed.
    let mut command = Dialer::command(stage.dir.path(), &stage.key, &[(&far.id, far.addr)])?;
    command
        .arg("--kubeconfig")
        .arg(&kubeconfig)
        .args(["--namespace", &stage.dialers]);
    drop(dialer);
    let dialer = Dialer::run(stage.dir.path(), command).await?;
    let mut stream = dialer.tunnel(&target(&far, 80)?).await?;
    answers(&mut stream).await?;
    let said = until("what is refused", async || {
        let status = dialer.admin.json("/status").await.ok()?;
        Some(status["controlPlane"]["lastError"].as_str()?.to_owned())
    });
    let said = said.await?;
    ensure!(
        said.contains("not permitted") && said.contains("connectors"),
        "{said}"
    );
    Ok(())
}
