//! `adit reconciler --dry-run`: it says all and does nothing.

use adit_tests::{
    kube::{Kind, Stack, reconciler},
    process::until,
};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::place::*;

pub async fn a_dry_run_names_what_it_would_write_and_writes_nothing(stack: &Stack) -> Result<()> {
    // What there is: all that somebody who writes made of one HTTPProxy, and
    // another one since, and a target that may not be reached any more.
    let place = one_proxy(stack, "dry").await?;
    let gateway = "dry/edge";
    let objects = place.objects.clone();
    let there = async || {
        let mut all = Vec::new();
        for kind in MADE
            .into_iter()
            .chain([Kind::ENVOY_EXTENSION_POLICY, Kind::LEASE])
        {
            all.extend(objects.list(kind, "dry", "").await?);
        }
        anyhow::Ok(all)
    };
    let route = place.names(Kind::HTTP_ROUTE).await?;
    ensure!(route.len() == 1, "{route:?}");
    place.reconciler_ends().await?;
    objects.apply("dry", proxy("new", "new.test", 81)).await?;
    for object in connector("dry", "fresh") {
        objects.apply("dry", object).await?;
    }
    // The port of `web` is withdrawn: what stands of it has to go.
    let [_, mut advertisement] = connector("dry", "box");
    let ports = json!([{"name": "b", "port": 81}]);
    advertisement["spec"]["layer4"][0]["services"] =
        json!([{"address": "localhost", "ports": ports}]);
    objects.apply("dry", advertisement).await?;
    let events = objects.list(Kind::EVENT, "dry", "").await?.len();
    let before = there().await?;

    // It may write everything, were it to try.
    let all = json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]);
    let kubeconfig = stack.plane.user_with("dry-runner", "", all).await?;
    let dir = tempfile::tempdir()?;
    let mark = stack.plane.mark();
    let flags = [
        "--watch-namespace",
        "dry",
        "--gateway",
        gateway,
        "--dry-run",
    ];
    let (mut process, _) = reconciler::start(dir.path(), &kubeconfig, "dry", &flags).await?;
    let said = |wanted: &(&str, String, &str)| {
        let (verb, object, kind) = wanted;
        let would = format!("would {verb}");
        let log = process.log();
        log.lines()
            .any(|l| l.contains(&would) && l.contains(object.as_str()) && l.contains(kind))
    };
    let wanted = [
        ("create", "dry/new-".to_owned(), "Backend"),
        ("create", "dry/new-".to_owned(), "EnvoyPatchPolicy"),
        ("create", "dry/new-".to_owned(), "HTTPRoute"),
        ("apply status of", "dry/new".to_owned(), "HTTPProxy"),
        ("create", "dry/fresh".to_owned(), "Lease"),
        ("apply status of", "dry/fresh".to_owned(), "Connector"),
        ("apply", "dry/fresh".to_owned(), "ConnectorAdvertisement"),
        ("delete", format!("dry/{}", route[0]), "HTTPRoute"),
    ];
    for one in &wanted {
        until(&format!("{one:?} in the output"), async || {
            said(one).then_some(())
        })
        .await
        .with_context(|| process.log())?;
    }
    let status = process.terminate().await?;
    ensure!(status.success(), "{}", process.last_words());
    // Done: nothing was written, nor tried.
    let writes = stack.plane.writes_since(mark)?;
    let its: Vec<_> = writes.iter().filter(|w| w.user == "dry-runner").collect();
    ensure!(its.is_empty(), "{its:#?}");
    let version = |all: &[Value]| -> Vec<Value> {
        all.iter()
            .map(|o| o["metadata"]["resourceVersion"].clone())
            .collect()
    };
    ensure!(version(&there().await?) == version(&before));
    ensure!(objects.list(Kind::EVENT, "dry", "").await?.len() == events);
    // Who writes again clears up.
    let place = Place::start(&stack.plane, "dry", &["--gateway", gateway]).await?;
    place.programmed("new").await?;
    place.end().await
}
