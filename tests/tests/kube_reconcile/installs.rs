//! On an API of its own: the role, an older CRD, Envoy Gateway that comes later.

use adit_tests::{
    binaries,
    keys::Key,
    kube::{
        ControlPlane, Kind, Stack,
        objects::{condition, is_true},
        reconciler,
    },
    process::until,
};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::place::*;

pub async fn a_malformed_proxy_is_told_so_and_stops_nobody(_: &Stack) -> Result<()> {
    // An API of its own, whose CRD is an older one: with hardly a schema.
    let plane = ControlPlane::start().await?;
    let objects = plane.admin().await?;
    let name = "httpproxies.networking.datumapis.com";
    let mut crd = objects.get(Kind::CRD, "", name).await?.context("the CRD")?;
    let anything = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let schema = &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    schema["properties"]["spec"] = anything.clone();
    schema
        .as_object_mut()
        .context("a schema")?
        .remove("x-kubernetes-validations");
    let patch = json!({"spec": {"versions": crd["spec"]["versions"]}});
    objects.merge(Kind::CRD, "", name, None, &patch).await?;
    let place = Place::start(&plane, "malformed", &[]).await?;
    place.connector("box").await?;
    until("the older CRD", async || {
        let mut spoilt = proxy("spoilt", "spoilt.test", 80);
        spoilt["spec"]["rules"] = json!("none");
        place.apply(spoilt).await.ok()
    })
    .await?;
    place.apply(proxy("good", "good.test", 80)).await?;
    let spoilt = place.refused("spoilt", "Accepted", "Invalid").await?;
    let message = condition(&spoilt, "Accepted").context("Accepted")?;
    ensure!(
        message["message"]
            .as_str()
            .is_some_and(|m| m.contains("cannot be read")),
        "{message}"
    );
    // The good one gets its Gateway, and says that nobody looks after it: there
    // is no GatewayClass here.
    place
        .refused("good", "Programmed", "GatewayNotReady")
        .await?;
    place.until(Kind::GATEWAY, "good", "made", |_| true).await?;
    // Corrected, it goes on.
    place.apply(proxy("spoilt", "spoilt.test", 80)).await?;
    let wanted = |object: &Value| is_true(object, "Accepted");
    place
        .until(Kind::HTTP_PROXY, "spoilt", "Accepted", wanted)
        .await?;
    place.end().await
}

pub async fn the_role_in_the_manifests_is_enough(_: &Stack) -> Result<()> {
    // An API of its own, without Envoy Gateway: this one looks at all namespaces.
    let plane = ControlPlane::start().await?;
    let objects = plane.admin().await?;
    let system = "envoy-gateway-system";
    for namespace in ["adit-system", system, "role"] {
        objects.make_namespace(namespace, &[]).await?;
    }
    for file in ["rbac-reconciler.yaml", "gateway.yaml"] {
        let file = binaries::root().join("envoy/kubernetes").join(file);
        let text = std::fs::read_to_string(file)?;
        objects.apply_yaml("", &text).await?;
    }
    objects.apply("", class("role")).await?;
    let account = plane.user("system:serviceaccount:adit-system:adit-reconciler")?;
    let dir = tempfile::tempdir()?;
    let gateway = ["--gateway", "envoy-gateway-system/adit"];
    let (mut reconciler, _admin) =
        reconciler::start(dir.path(), &account, "adit-system", &gateway).await?;
    for object in connector("role", "box") {
        objects.apply("role", object).await?;
    }
    let status = details(&Key::new(dir.path(), "box")?.id, "192.0.2.1");
    objects
        .merge(Kind::CONNECTOR, "role", "box", Some("status"), &status)
        .await?;
    let mut first = proxy("web", "role.test", 80);
    first["spec"]["rules"][0]["backends"][0]["endpoint"] = json!("http://localhost:99");
    objects.apply("role", first).await?;
    let refused =
        |o: &Value| condition(o, "Accepted").is_some_and(|c| c["reason"] == "NotAdvertised");
    objects
        .until(Kind::HTTP_PROXY, "role", "web", "NotAdvertised", refused)
        .await
        .with_context(|| reconciler.last_words())?;
    // A person was told.
    let told = |all: &[Value]| all.iter().any(|e| e["reason"] == "NotAdvertised");
    objects
        .until_list(Kind::EVENT, "role", "", "an event", told)
        .await?;
    objects.apply("role", proxy("web", "role.test", 80)).await?;
    let made = [
        (Kind::ENVOY_PATCH_POLICY, system),
        (Kind::ENVOY_EXTENSION_POLICY, system),
        (Kind::HTTP_ROUTE, "role"),
        (Kind::BACKEND, "role"),
        (Kind::REFERENCE_GRANT, "role"),
    ];
    for (kind, namespace) in made {
        objects
            .until_list(kind, namespace, OURS, "made", |all| !all.is_empty())
            .await
            .with_context(|| reconciler.last_words())?;
    }
    objects.delete(Kind::HTTP_PROXY, "role", "web").await?;
    for (kind, namespace) in made {
        objects
            .until_list(kind, namespace, OURS, "gone", |all| all.is_empty())
            .await
            .with_context(|| reconciler.last_words())?;
    }
    reconciler.terminate().await?;
    let log = reconciler.log();
    ensure!(!log.contains("orbidden"), "{log}");
    Ok(())
}

pub async fn envoy_gateway_may_be_installed_later(_: &Stack) -> Result<()> {
    let plane = ControlPlane::start().await?;
    let objects = plane.admin().await?;
    let name = "envoypatchpolicies.gateway.envoyproxy.io";
    let crd = objects.get(Kind::CRD, "", name).await?.context("the CRD")?;
    objects.delete(Kind::CRD, "", name).await?;
    objects.until_gone(Kind::CRD, "", name).await?;
    let place = Place::start(&plane, "later", &[]).await?;
    place.apply(proxy("web", "later.test", 80)).await?;
    let said = place
        .refused("web", "Programmed", "GatewayNotReady")
        .await?;
    let message = condition(&said, "Programmed").context("Programmed")?;
    let names_it = |m: &str| m.contains("EnvoyPatchPolicy");
    ensure!(
        message["message"].as_str().is_some_and(names_it),
        "{message}"
    );
    let again = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": name}, "spec": crd["spec"],
    });
    objects.apply("", again).await?;
    place
        .until(Kind::HTTP_PROXY, "web", "another reason", |object| {
            let condition = condition(object, "Programmed");
            condition.is_some_and(|c| !c["message"].as_str().is_some_and(names_it))
        })
        .await?;
    place.end().await
}
