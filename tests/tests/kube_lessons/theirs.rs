//! What others put beside ours.

use adit_tests::kube::{
    Kind, Stack, by_hand,
    objects::condition,
    reconciler,
    site::{Site, rule},
};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::ground::*;

const PATCHES: &str = "gateway.envoyproxy.io/v1alpha1";

/// A policy of somebody else at the site's Gateway with one patch.
fn patch(name: &str, kind: &str, resource: &str, operation: Value) -> Value {
    json!({
        "apiVersion": PATCHES, "kind": "EnvoyPatchPolicy", "metadata": {"name": name},
        "spec": {
            "type": "JSONPatch",
            "targetRef": {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "edge"},
            "jsonPatches": [{
                "type": format!("type.googleapis.com/envoy.config.{kind}"),
                "name": resource, "operation": operation,
            }],
        },
    })
}

/// Once, one patch that could not be applied stopped the configuration of all.
pub async fn a_patch_of_somebody_else_that_cannot_be_applied_stops_nobody(
    stack: &Stack,
) -> Result<()> {
    let ground = Ground::start(stack, "bad-patch").await?;
    let site = &ground.site;
    let rules = || json!([rule("/", "edge", &ground.url())]);
    site.proxy("before", "before.test", rules()).await?;
    site.until_true("before", "Programmed").await?;
    answers(site, "before.test", 200).await?;

    // One names nothing that is there; one is no patch of what it names; one
    // leaves something that is no cluster.
    let theirs = site
        .objects
        .apply("bad-patch", by_hand::placeholder("theirs"))
        .await;
    theirs?;
    site.objects
        .apply(
            "bad-patch",
            by_hand::route("theirs", "theirs.test", "edge", "theirs"),
        )
        .await?;
    let cluster = by_hand::cluster("bad-patch", "theirs");
    let kind = "cluster.v3.Cluster";
    let bad = [
        patch(
            "nothing",
            kind,
            "no-such-cluster",
            json!({"op": "add", "path": "/connect_timeout", "value": "1s"}),
        ),
        patch(
            "nowhere",
            kind,
            &cluster,
            json!({"op": "replace", "path": "/no/such/field", "value": 1}),
        ),
        patch(
            "nonsense",
            kind,
            &cluster,
            json!({"op": "add", "path": "/connect_timeout", "value": "soon"}),
        ),
    ];
    for object in bad {
        let name = object["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        site.objects.apply("bad-patch", object).await?;
        site.until(Kind::ENVOY_PATCH_POLICY, &name, "refusal", |p| {
            condition(p, "Programmed").is_some_and(|c| c["status"] == "False")
        })
        .await?;
    }
    site.proxy("after", "after.test", rules()).await?;
    site.until_true("after", "Programmed").await?;
    answers(site, "after.test", 200).await?;
    answers(site, "before.test", 200).await?;
    site.until_true("before", "Programmed").await?;
    envoy_took_everything(stack, site).await?;
    ground.site.end().await
}

/// Number 3. What looks after leftovers knows its own by the HTTPProxy's UID,
/// not by their kind, name or namespace.
pub async fn what_others_made_is_never_swept(stack: &Stack) -> Result<()> {
    let mut ground = Ground::start(stack, "sweep").await?;
    let site = &mut ground.site;
    let operation = json!({"op": "add", "path": "/connect_timeout", "value": "1s"});
    let mut policies = vec![patch("plain", "cluster.v3.Cluster", "x", operation.clone())];
    // One that looks as if it were made here, but for an HTTPProxy's UID; one
    // named as those made here are.
    let mut alike = patch("alike", "cluster.v3.Cluster", "x", operation.clone());
    alike["metadata"]["labels"] = json!({
        "app.kubernetes.io/managed-by": "adit",
        "networking.datumapis.com/httpproxy": "web",
    });
    policies.push(alike);
    policies.push(patch(
        "web-0-0123456789",
        "cluster.v3.Cluster",
        "x",
        operation,
    ));
    let mut theirs = Vec::new();
    for policy in policies {
        theirs.push(site.objects.apply("sweep", policy).await?);
    }
    theirs.push(
        site.objects
            .apply("sweep", by_hand::placeholder("web-0-0123456789-0"))
            .await?,
    );
    let url = format!("http://{}", ground.web.addr);
    site.proxy("web", "sweep.test", json!([rule("/", "edge", &url)]))
        .await?;
    site.until_true("web", "Programmed").await?;
    // Deleted while it is watched, and while it is not.
    site.objects
        .delete(Kind::HTTP_PROXY, "sweep", "web")
        .await?;
    gone(site).await?;
    site.proxy("web", "sweep.test", json!([rule("/", "edge", &url)]))
        .await?;
    site.until_true("web", "Programmed").await?;
    site.reconciler.terminate().await?;
    site.objects
        .delete(Kind::HTTP_PROXY, "sweep", "web")
        .await?;
    let flags = ["--watch-namespace", "sweep", "--gateway", "sweep/edge"];
    let dir = tempfile::tempdir()?;
    let (process, _admin) =
        reconciler::start(dir.path(), &stack.plane.kubeconfig(), "sweep", &flags).await?;
    site.reconciler = process;
    gone(site).await?;
    for before in theirs {
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let kind = Kind::of(&text(&before["apiVersion"]), &text(&before["kind"]));
        let name = text(&before["metadata"]["name"]);
        let now = site
            .objects
            .get(kind.context("a kind")?, "sweep", &name)
            .await?
            .with_context(|| format!("{name} was swept"))?;
        for field in ["uid", "generation", "labels", "deletionTimestamp"] {
            ensure!(
                now["metadata"][field] == before["metadata"][field],
                "{name}: {now:#}"
            );
        }
    }
    ground.site.end().await
}

/// Waits until nothing that was made for an HTTPProxy is left.
async fn gone(site: &Site) -> Result<()> {
    for kind in [Kind::HTTP_ROUTE, Kind::BACKEND, Kind::ENVOY_PATCH_POLICY] {
        let uid = "networking.datumapis.com/httpproxy-uid";
        site.objects
            .until_list(kind, &site.namespace, uid, "nothing", <[Value]>::is_empty)
            .await
            .with_context(|| site.last_words())?;
    }
    Ok(())
}
