//! The harness itself: a real Kubernetes API, Envoy Gateway and Envoy, and the
//! mechanism of the design done by hand.

use adit_tests::kube::{ControlPlane, Kind};
use anyhow::{Result, ensure};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn an_object_goes_with_its_owner() -> Result<()> {
    let plane = ControlPlane::shared().await?;
    let objects = plane.admin().await?;
    objects.make_namespace("owners", &[]).await?;
    let owner = objects
        .apply(
            "owners",
            json!({
                "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
                "metadata": {"name": "owner"},
                "spec": {"gatewayClassName": "none", "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}]},
            }),
        )
        .await?;
    objects
        .apply(
            "owners",
            json!({
                "apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": "Backend",
                "metadata": {"name": "owned", "ownerReferences": [{
                    "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "name": "owner",
                    "uid": owner["metadata"]["uid"],
                }]},
                "spec": {"endpoints": [{"ip": {"address": "127.0.0.1", "port": 1}}]},
            }),
        )
        .await?;
    let mark = plane.mark();
    objects.delete(Kind::GATEWAY, "owners", "owner").await?;
    objects.until_gone(Kind::BACKEND, "owners", "owned").await?;
    let writes = plane.writes_since(mark)?;
    ensure!(
        writes
            .iter()
            .any(|w| w.verb == "delete" && w.resource == "backends" && w.name == "owned"),
        "{writes:?}"
    );
    objects.delete_namespace("owners").await
}
