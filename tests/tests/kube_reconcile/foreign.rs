//! What is somebody else's: names that are taken, also at the very moment, and
//! policies that stand in the way.

use std::sync::Arc;

use adit_api::envoy_gateway::{Backend, BackendSpec};
use adit_reconciler::kubernetes::{
    kept::{Kept, Key},
    leader::Fence,
    metrics::Metrics,
    writer::{WriteError, Writer},
};
use adit_tests::{
    kube::{Class, Kind, Stack, objects::condition},
    process::until,
};
use anyhow::{Context, Result, ensure};
use kube::api::PostParams;
use serde_json::{Value, json};

use super::place::*;

/// Objects that two race to make.
const ROUNDS: usize = 60;

pub async fn a_name_that_is_taken_is_left_as_it_is_and_named(stack: &Stack) -> Result<()> {
    let place = one_proxy(stack, "taken").await?;
    // Names are made of what is wanted: the same again later.
    for kind in [Kind::BACKEND, Kind::HTTP_ROUTE, Kind::ENVOY_PATCH_POLICY] {
        let name = place.names(kind).await?.remove(0);
        place.apply(proxy("web", "else.test", 80)).await?;
        place.programmed("web").await?;
        place.objects.until_gone(kind, "taken", &name).await?;
        // Not ours, and nothing in it that ours would differ from; nobody else
        // has anything to say of it either.
        let spec = match kind {
            Kind::ENVOY_PATCH_POLICY => json!({"type": "JSONPatch", "targetRef": {
                "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "none"}}),
            _ => json!({}),
        };
        place
            .apply(json!({
                "apiVersion": kind.api_version(), "kind": kind.kind,
                "metadata": {"name": name, "annotations": {"whose": "theirs"}}, "spec": spec,
            }))
            .await?;
        let get = async || {
            let found = place.objects.get(kind, "taken", &name).await?;
            found.context("theirs")
        };
        let theirs = get().await?;
        place.apply(proxy("web", "web.test", 80)).await?;
        let refused = place.refused("web", "Programmed", "Conflict").await?;
        let said = condition(&refused, "Programmed").context("Programmed")?;
        let object = format!("{} taken/{name}", kind.kind);
        ensure!(
            said["message"]
                .as_str()
                .is_some_and(|m| m.contains(&object)),
            "{said}"
        );
        // Not a byte, nor who owns which field.
        ensure!(get().await? == theirs, "{:#}\nwas {theirs:#}", get().await?);
        place.objects.delete(kind, "taken", &name).await?;
        // Nobody tells of it; it is looked at again even so.
        place.programmed("web").await?;
    }
    place.end().await
}

pub async fn of_two_that_make_an_object_at_once_one_has_it(stack: &Stack) -> Result<()> {
    let objects = stack.plane.admin().await?;
    objects.make_namespace("race", &[]).await?;
    let metrics = Arc::new(Metrics::default());
    let writer = Writer::new(objects.client.clone(), metrics, Fence::none(), false);
    let store: Kept<Backend> = Kept::new();
    let (mut ours, mut theirs) = (0, 0);
    for round in 0..ROUNDS {
        let name = format!("b-{round}");
        let mut wish = Backend::new(&name, BackendSpec::default());
        wish.metadata.namespace = Some("race".into());
        wish.metadata.labels = Some(
            [
                ("app.kubernetes.io/managed-by", "adit"),
                ("networking.datumapis.com/httpproxy-uid", "u"),
            ]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into(),
        );
        let mine = async {
            // Now one is earlier, now the other.
            if round % 2 == 0 {
                tokio::task::yield_now().await;
            }
            writer.apply(&store, &wish).await
        };
        let other = serde_json::from_value(json!({
            "apiVersion": Kind::BACKEND.api_version(), "kind": "Backend",
            "metadata": {"name": name}, "spec": {},
        }))?;
        let api = objects.api(Kind::BACKEND, "race");
        let params = PostParams::default();
        let (mine, other) = tokio::join!(mine, api.create(&params, &other));
        let there = objects.get(Kind::BACKEND, "race", &name).await?;
        let there = there.context("one of them")?;
        match (mine, other) {
            (Ok(Some(_)), Err(_)) => {
                ours += 1;
                ensure!(there["metadata"]["labels"] != Value::Null, "{there:#}");
            }
            (Err(WriteError::Foreign { .. }), Ok(made)) => {
                theirs += 1;
                ensure!(there == serde_json::to_value(made)?, "{there:#}");
                ensure!(store.get(&Key::new("race", &name)).is_none());
            }
            (mine, other) => anyhow::bail!("{mine:?}\n{other:?}"),
        }
    }
    ensure!(ours > 0 && theirs > 0, "no race: {ours} and {theirs}");
    // What is there and ours, but not known here, is taken as it is.
    let again: Kept<Backend> = Kept::new();
    let mut known = 0;
    for round in 0..ROUNDS {
        let key = Key::new("race", format!("b-{round}"));
        if let Some(wish) = store.get(&key) {
            let mut wish = wish.as_ref().clone();
            wish.metadata.resource_version = None;
            wish.metadata.uid = None;
            wish.metadata.creation_timestamp = None;
            wish.metadata.managed_fields = None;
            let written = writer.apply(&again, &wish).await?.context("written")?;
            ensure!(
                store
                    .get(&key)
                    .is_some_and(|o| o.metadata.uid == written.metadata.uid)
            );
            known += 1;
        }
    }
    ensure!(known == ours);
    objects.delete_namespace("race").await
}

pub async fn an_older_filter_policy_of_a_user_is_named_until_it_is_gone(
    stack: &Stack,
) -> Result<()> {
    let objects = stack.admin().await?;
    objects.make_namespace("older", &[]).await?;
    stack.make_gateway(Class::Envoy140, "older", "edge").await?;
    let place = Place::start(&stack.plane, "older", &["--gateway", "older/edge"]).await?;
    place.connector("box").await?;
    // It selects the routes of an HTTPProxy that is still to come.
    let labels = json!({"networking.datumapis.com/httpproxy": "web"});
    place
        .apply(json!({
            "apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": "EnvoyExtensionPolicy",
            "metadata": {"name": "theirs"},
            "spec": {"targetSelectors": [{"group": "gateway.networking.k8s.io",
                "kind": "HTTPRoute", "matchLabels": labels}]},
        }))
        .await?;
    // The older wins; Kubernetes counts the age in seconds.
    let theirs = place
        .until(Kind::ENVOY_EXTENSION_POLICY, "theirs", "there", |_| true)
        .await?;
    until("a later second", async || {
        let clock = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "clock"}});
        place
            .objects
            .delete(Kind::CONFIG_MAP, "older", "clock")
            .await
            .ok()?;
        let made = place.apply(clock).await.ok()?;
        let born = |o: &Value| o["metadata"]["creationTimestamp"].clone();
        (born(&made) != born(&theirs)).then_some(())
    })
    .await?;
    place.apply(proxy("web", "web.test", 80)).await?;
    let refused = place
        .refused("web", "Programmed", "PolicyOverridden")
        .await?;
    let said = condition(&refused, "Programmed").context("Programmed")?;
    ensure!(
        said["message"]
            .as_str()
            .is_some_and(|m| m.contains("EnvoyExtensionPolicy older/theirs")),
        "{said}"
    );
    place
        .objects
        .delete(Kind::ENVOY_EXTENSION_POLICY, "older", "theirs")
        .await?;
    place.programmed("web").await?;
    place.end().await
}

pub async fn a_grant_that_somebody_removes_comes_back(stack: &Stack) -> Result<()> {
    let objects = stack.admin().await?;
    objects.make_namespace("grants-gw", &[]).await?;
    stack
        .make_gateway(Class::Envoy140, "grants-gw", "edge")
        .await?;
    let place = Place::start(&stack.plane, "grants", &["--gateway", "grants-gw/edge"]).await?;
    place.connector("box").await?;
    place.apply(proxy("web", "web.test", 80)).await?;
    place.programmed("web").await?;
    let name = place.names(Kind::REFERENCE_GRANT).await?.remove(0);
    let grant = place
        .until(Kind::REFERENCE_GRANT, &name, "made", |_| true)
        .await?;
    // Without it Envoy Gateway would serve the routes without our filter.
    place
        .objects
        .delete(Kind::REFERENCE_GRANT, "grants", &name)
        .await?;
    let back =
        |g: &Value| g["metadata"]["uid"] != grant["metadata"]["uid"] && g["spec"] == grant["spec"];
    place
        .until(Kind::REFERENCE_GRANT, &name, "made again", back)
        .await?;
    place.programmed("web").await?;
    place.end().await?;
    objects.delete_namespace("grants-gw").await
}
