//! The end of an HTTPProxy.

use adit_tests::{
    client::{connect, patiently},
    kube::{Class, Kind, Stack},
};
use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::scene::Scene;

pub async fn a_deleted_proxy_leaves_nothing_behind(stack: &Stack) -> Result<()> {
    let scene = Scene::start(stack, Class::Envoy140, "gone").await?;
    let (_client, mut held) = {
        let client = connect::Http2::connect(scene.site.addr()).await?;
        let mut tunnel = client.tunnel(&scene.authority()).await?;
        tunnel.send("hello").await?;
        ensure!(tunnel.read_at_least(5).await? == b"hello");
        (client, tunnel)
    };
    for name in ["web", "h2", "grpc", "echo"] {
        scene
            .site
            .objects
            .delete(Kind::HTTP_PROXY, "gone", name)
            .await?;
    }
    let kinds = [
        Kind::HTTP_ROUTE,
        Kind::BACKEND,
        Kind::BACKEND_TRAFFIC_POLICY,
        Kind::ENVOY_PATCH_POLICY,
        Kind::ENVOY_EXTENSION_POLICY,
        Kind::REFERENCE_GRANT,
    ];
    for kind in kinds {
        scene
            .site
            .objects
            .until_list(kind, "gone", "", "empty list", <[Value]>::is_empty)
            .await
            .with_context(|| scene.site.last_words())?;
    }
    scene.answers("web.test", 404).await?;
    // What was open for a target that is no more ends, too.
    let ended = async { Ok(held.read_to_end().await) };
    patiently("the end of the tunnel", ended).await?;
    scene.site.end().await
}
