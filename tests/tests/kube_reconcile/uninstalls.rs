//! Removed in an order that nobody advised: nothing waits for what is gone.

use adit_tests::{
    binaries,
    kube::{Class, ControlPlane, Kind, Stack},
};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::place::*;

/// All that is made for HTTPProxies, and what the reconciler writes to of others.
const WRITTEN: [Kind; 10] = [
    Kind::HTTP_ROUTE,
    Kind::BACKEND,
    Kind::ENVOY_PATCH_POLICY,
    Kind::BACKEND_TRAFFIC_POLICY,
    Kind::ENVOY_EXTENSION_POLICY,
    Kind::REFERENCE_GRANT,
    Kind::LEASE,
    Kind::HTTP_PROXY,
    Kind::CONNECTOR,
    Kind::CONNECTOR_ADVERTISEMENT,
];

/// Who removes the reconciler first, and then everything else, meets nothing
/// that waits for it.
pub async fn what_is_left_of_a_reconciler_that_is_gone_can_be_deleted(stack: &Stack) -> Result<()> {
    let objects = stack.admin().await?;
    objects.make_namespace("orphans-gw", &[]).await?;
    stack
        .make_gateway(Class::Envoy140, "orphans-gw", "edge")
        .await?;
    let flags = ["--gateway", "orphans-gw/edge"];
    let mut place = Place::start(&stack.plane, "orphans", &flags).await?;
    place.connector("box").await?;
    place.apply(proxy("web", "orphans.test", 80)).await?;
    let mut tcp = proxy("tcp", "tcp.test", 81);
    tcp["spec"]["rules"][0]["backends"][0]["endpoint"] = json!("tcp://localhost:81");
    place.apply(tcp).await?;
    for name in ["web", "tcp"] {
        place.programmed(name).await?;
    }
    place.until(Kind::LEASE, "box", "made", |_| true).await?;
    for kind in WRITTEN {
        let mut found = 0;
        for namespace in ["orphans", "orphans-gw"] {
            for object in objects.list(kind, namespace, "").await? {
                ensure!(object["metadata"]["finalizers"].is_null(), "{object:#}");
                let owners = object["metadata"]["ownerReferences"].as_array();
                let blocks = |o: &Value| o["blockOwnerDeletion"] == true;
                ensure!(!owners.is_some_and(|o| o.iter().any(blocks)), "{object:#}");
                found += 1;
            }
        }
        ensure!(found > 0, "no {} to look at", kind.kind);
    }
    place.reconciler.terminate().await?;
    // What is in the HTTPProxy's namespace goes with it; what is in the
    // Gateway's, and belongs to nobody any more, is anybody's to delete.
    objects.delete_namespace("orphans").await?;
    let left = objects
        .list(Kind::ENVOY_PATCH_POLICY, "orphans-gw", OURS)
        .await?;
    ensure!(left.len() == 2, "{left:#?}");
    objects.delete_namespace("orphans-gw").await
}

/// Who removes the CRDs first removes every HTTPProxy with them: what was made
/// for those goes as if each had been deleted, if there is a reconciler still.
pub async fn the_crds_may_go_first(_: &Stack) -> Result<()> {
    for running in [true, false] {
        let plane = ControlPlane::start().await?;
        let objects = plane.admin().await?;
        let system = "envoy-gateway-system";
        objects.make_namespace(system, &[]).await?;
        let file = binaries::root().join("envoy/kubernetes/gateway.yaml");
        objects
            .apply_yaml("", &std::fs::read_to_string(file)?)
            .await?;
        let gateway = ["--gateway", "envoy-gateway-system/adit"];
        let mut place = Place::start(&plane, "first", &gateway).await?;
        place.connector("box").await?;
        place.apply(proxy("web", "first.test", 80)).await?;
        let made = [
            (Kind::ENVOY_PATCH_POLICY, system),
            (Kind::ENVOY_EXTENSION_POLICY, system),
            (Kind::HTTP_ROUTE, "first"),
            (Kind::BACKEND, "first"),
            (Kind::REFERENCE_GRANT, "first"),
        ];
        for (kind, namespace) in made {
            objects
                .until_list(kind, namespace, OURS, "made", |all| !all.is_empty())
                .await
                .with_context(|| place.reconciler.last_words())?;
        }
        if !running {
            place.reconciler.terminate().await?;
        }
        let crds = [
            "connectorclasses",
            "connectors",
            "connectoradvertisements",
            "httpproxies",
        ];
        let crds = crds.map(|plural| format!("{plural}.networking.datumapis.com"));
        for crd in &crds {
            objects.delete(Kind::CRD, "", crd).await?;
        }
        for crd in &crds {
            objects
                .until_gone(Kind::CRD, "", crd)
                .await
                .with_context(|| place.reconciler.last_words())?;
        }
        if running {
            for (kind, namespace) in made {
                objects
                    .until_list(kind, namespace, OURS, "gone", |all| all.is_empty())
                    .await
                    .with_context(|| place.reconciler.last_words())?;
            }
            // It lives, and ends when it is told to.
            ensure!(
                place.reconciler.is_running(),
                "{}",
                place.reconciler.last_words()
            );
            place.end().await?;
        } else {
            objects.delete_namespace("first").await?;
        }
        objects.delete_namespace(system).await?;
    }
    Ok(())
}
