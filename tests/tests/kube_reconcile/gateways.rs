//! Which Gateway an HTTPProxy is programmed at.

use adit_tests::kube::{Class, Kind, Stack};
use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::place::*;

pub async fn a_gateway_elsewhere_is_used_as_long_as_it_allows_it(stack: &Stack) -> Result<()> {
    let objects = stack.admin().await?;
    for namespace in ["far-gw", "near-gw"] {
        objects.make_namespace(namespace, &[]).await?;
    }
    stack.make_gateway(Class::Envoy140, "far-gw", "far").await?;
    let flags = ["--gateway", "far-gw/far"];
    let place = Place::start(&stack.plane, "guest", &flags).await?;
    place.connector("box").await?;
    place.apply(proxy("web", "guest.test", 80)).await?;
    place.programmed("web").await?;
    let there = async |kind| objects.list(kind, "far-gw", OURS).await;
    ensure!(there(Kind::ENVOY_PATCH_POLICY).await?.len() == 1);
    // Not any more.
    let same = json!([{"name": "http", "port": 18080, "protocol": "HTTP",
        "allowedRoutes": {"namespaces": {"from": "Same"}}}]);
    let patch = json!({"spec": {"listeners": same}});
    objects
        .merge(Kind::GATEWAY, "far-gw", "far", None, &patch)
        .await?;
    place
        .refused("web", "Programmed", "NotAllowedByListeners")
        .await?;
    for kind in [Kind::ENVOY_PATCH_POLICY, Kind::ENVOY_EXTENSION_POLICY] {
        objects
            .until_list(kind, "far-gw", OURS, "nothing of a guest", |all| {
                all.is_empty()
            })
            .await
            .with_context(|| place.reconciler.last_words())?;
    }
    for kind in MADE {
        ensure!(place.names(kind).await?.is_empty(), "{kind:?}");
    }
    objects
        .until_list(Kind::REFERENCE_GRANT, "guest", OURS, "no grant", |all| {
            all.is_empty()
        })
        .await?;
    // One that names another Gateway by its annotation, which is not there yet.
    let mut named = proxy("named", "named.test", 80);
    named["metadata"]["annotations"] = json!({"networking.datumapis.com/gateway": "guest-gw"});
    place.apply(named).await?;
    place
        .refused("named", "Programmed", "GatewayNotFound")
        .await?;
    stack
        .make_gateway(Class::Envoy140, "guest", "guest-gw")
        .await?;
    place.programmed("named").await?;
    place.end().await?;
    for namespace in ["far-gw", "near-gw"] {
        objects.delete_namespace(namespace).await?;
    }
    Ok(())
}

pub async fn a_proxy_without_a_gateway_gets_one_of_its_own(stack: &Stack) -> Result<()> {
    let place = Place::start(&stack.plane, "own", &["--gateway-class", "envoy-1-40"]).await?;
    place.connector("box").await?;
    place.apply(proxy("web", "own.test", 80)).await?;
    place.programmed("web").await?;
    let gateway = place.until(Kind::GATEWAY, "web", "made", |_| true).await?;
    ensure!(
        gateway["spec"]["gatewayClassName"] == "envoy-1-40",
        "{gateway:#}"
    );
    ensure!(
        gateway["metadata"]["ownerReferences"][0]["name"] == "web",
        "{gateway:#}"
    );
    // With another Gateway the one that was made goes, when the other serves.
    stack.make_gateway(Class::Envoy140, "own", "edge").await?;
    let annotation =
        json!({"metadata": {"annotations": {"networking.datumapis.com/gateway": "edge"}}});
    place
        .objects
        .merge(Kind::HTTP_PROXY, "own", "web", None, &annotation)
        .await?;
    place
        .objects
        .until_gone(Kind::GATEWAY, "own", "web")
        .await?;
    place.programmed("web").await?;
    let policies = place
        .objects
        .list(Kind::ENVOY_PATCH_POLICY, "own", OURS)
        .await?;
    ensure!(policies.len() == 1, "{policies:#?}");
    ensure!(
        policies[0]["spec"]["targetRef"]["name"] == "edge",
        "{policies:#?}"
    );
    place.end().await
}

pub async fn a_gateway_without_the_module_gets_nothing(stack: &Stack) -> Result<()> {
    let objects = stack.admin().await?;
    objects.make_namespace("bare", &[]).await?;
    stack.make_gateway(Class::NoModule, "bare", "edge").await?;
    let place = Place::start(&stack.plane, "bare", &["--gateway", "bare/edge"]).await?;
    place.connector("box").await?;
    place.apply(proxy("web", "bare.test", 80)).await?;
    place
        .refused("web", "Programmed", "ModuleNotInstalled")
        .await?;
    for kind in MADE.into_iter().chain([Kind::ENVOY_EXTENSION_POLICY]) {
        ensure!(place.names(kind).await?.is_empty(), "{kind:?}");
    }
    // A backend without a connector needs no module.
    let mut plain = proxy("plain", "plain.test", 80);
    plain["spec"]["rules"] = json!([{"backends": [{"endpoint": "http://192.0.2.9:80"}]}]);
    place.apply(plain).await?;
    place.programmed("plain").await?;
    ensure!(place.names(Kind::ENVOY_PATCH_POLICY).await?.is_empty());
    place.end().await
}
