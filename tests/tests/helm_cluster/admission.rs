//! Who may write EnvoyPatchPolicies when `admissionPolicy.enabled` is set.

use adit_tests::{
    helm,
    kube::{Kind, Objects, by_hand},
    process::until,
};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::Cluster;

pub async fn only_the_reconciler_may_write_patch_policies() -> Result<()> {
    let Some((plane, cluster)) = Cluster::with_plane().await? else {
        return Ok(());
    };
    let admin = plane.admin().await?;
    for document in cluster.helm.template(&helm::values_of("everything")?)? {
        if document.kind().starts_with("ValidatingAdmissionPolicy") {
            admin.apply("", document.object).await?;
        }
    }
    admin.make_namespace("edge", &[]).await?;
    let rules = json!([{
        "apiGroups": ["gateway.envoyproxy.io"], "verbs": ["*"],
        "resources": ["envoypatchpolicies", "envoypatchpolicies/status"],
    }]);
    let open = async |user: &str| -> Result<Objects> {
        let kubeconfig = plane.user_with(user, "edge", rules.clone()).await?;
        Objects::open(&kubeconfig).await
    };
    let reconciler = open("system:serviceaccount:adit-system:programmer").await?;
    let allowed = open("system:serviceaccount:other:programmer").await?;
    let somebody = open("somebody").await?;

    let policy = |name: &str| by_hand::patch(name, "gw", "cluster", "/a.sock".as_ref());
    // The policy takes effect a moment after it is written.
    let mut tried = 0;
    let refused = until("a refusal", async || {
        tried += 1;
        let name = format!("p{tried}");
        somebody.apply("edge", policy(&name)).await.err()
    })
    .await?;
    let said = format!("{refused:#}");
    ensure!(
        said.contains("system:serviceaccount:adit-system:programmer may write one, not somebody"),
        "{said}"
    );
    reconciler.apply("edge", policy("ours")).await?;
    allowed.apply("edge", policy("theirs")).await?;

    // What it says stays as it is; what others keep in it may change.
    let change = async |patch: Value, part: Option<&str>| {
        let kind = Kind::ENVOY_PATCH_POLICY;
        somebody.merge(kind, "edge", "ours", part, &patch).await
    };
    for patch in [
        json!({"spec": {"priority": 7}}),
        json!({"metadata": {"labels": {"networking.datumapis.com/gateway": "x"}}}),
        json!({"metadata": {"annotations": {"networking.datumapis.com/targets": "x"}}}),
    ] {
        let answer = change(patch.clone(), None).await;
        ensure!(answer.is_err(), "{patch} was taken");
    }
    let finalizer = json!({"metadata": {"finalizers": ["example.com/kept"]}});
    change(finalizer, None).await.context("a finalizer")?;
    let none = json!({"metadata": {"finalizers": null}});
    change(none, None).await.context("no finalizer")?;
    let status = json!({"status": {"ancestors": []}});
    change(status, Some("status")).await.context("the status")?;
    // Whoever may delete may delete: no proxy is owned by that.
    somebody
        .delete(Kind::ENVOY_PATCH_POLICY, "edge", "ours")
        .await
}
