//! How a dialer says who it is.

use adit_tests::kube::Kind;
use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::stage::*;

pub async fn a_dialer_says_its_key_by_a_lease() -> Result<()> {
    let stage = Stage::new("lease").await?;
    let mut dialer = stage.start(&[]).await?;
    let name = format!("adit-dialer-{}", &stage.key.id[..10]);
    let said = |lease: &Value| {
        lease["spec"]["holderIdentity"] == stage.key.id.as_str()
            && lease["metadata"]["labels"]["networking.datumapis.com/dialer"] == "true"
            && lease["spec"]["leaseDurationSeconds"] == 30
            && lease["spec"]["renewTime"].is_string()
    };
    let made = stage
        .objects
        .until(Kind::LEASE, &stage.dialers, &name, "its key", said)
        .await?;
    let time = made["spec"]["renewTime"].clone();
    let renewed = |l: &Value| said(l) && l["spec"]["renewTime"] != time;
    stage
        .objects
        .until(Kind::LEASE, &stage.dialers, &name, "a renewal", renewed)
        .await?;
    // Somebody deletes it: the next renewal makes it anew.
    stage
        .objects
        .delete(Kind::LEASE, &stage.dialers, &name)
        .await?;
    stage
        .objects
        .until(Kind::LEASE, &stage.dialers, &name, "its key again", said)
        .await?;
    let status = dialer.admin.json("/status").await?;
    let object = format!("{}/{name}", stage.dialers);
    ensure!(
        status["controlPlane"]["object"] == object.as_str(),
        "{status}"
    );
    let metrics = dialer.admin.get("/metrics").await?;
    ensure!(
        metrics.contains("adit_dialer_control_plane_connected 1"),
        "{metrics}"
    );
    dialer.process.terminate().await?;
    stage
        .objects
        .until_gone(Kind::LEASE, &stage.dialers, &name)
        .await
        .with_context(|| dialer.process.last_words())
}
