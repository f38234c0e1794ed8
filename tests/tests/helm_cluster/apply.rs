//! Every rendering, object by object, as the API server sees it.

use std::collections::{BTreeMap, BTreeSet};

use adit_tests::{
    helm::{self, Document},
    kube::{Kind, Objects, external_dns, objects::condition},
};
use anyhow::{Context, Result, ensure};
use kube::{
    Api, Client,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, ValidationDirective},
    core::{GroupVersionKind, TypeMeta},
    discovery::{self, Scope},
};
use serde_json::{Value, json};

use super::Cluster;

pub async fn every_rendering_is_taken_by_an_api_server() -> Result<()> {
    let Some((plane, cluster)) = Cluster::with_plane().await? else {
        return Ok(());
    };
    let objects = plane.admin().await?;
    external_dns::install(&objects).await?;
    install_service_monitor(&objects).await?;
    let mut kinds = BTreeSet::new();
    for (set, values) in helm::values()? {
        let documents = cluster.helm.template(&values)?;
        for namespace in namespaces(&documents) {
            objects.make_namespace(&namespace, &[]).await?;
        }
        for document in &documents {
            strictly(&objects.client, &document.object)
                .await
                .with_context(|| format!("{set}: {} {}", document.kind(), document.name()))?;
            kinds.insert(document.kind().to_owned());
        }
        if let Some(proxy) = documents.iter().find(|d| d.kind() == "EnvoyProxy") {
            let deployment = envoys(&proxy.object)?;
            strictly(&objects.client, &deployment)
                .await
                .with_context(|| format!("{set}: Envoy's pod"))?;
        }
        // Hooks are made anew each time.
        for document in documents.iter().filter(|d| !d.hook().is_empty()) {
            delete(&objects.client, &document.object).await?;
        }
    }
    for kind in [
        "Deployment",
        "EnvoyProxy",
        "Job",
        "NetworkPolicy",
        "Pod",
        "PodDisruptionBudget",
        "ServiceMonitor",
        "ValidatingAdmissionPolicy",
    ] {
        ensure!(kinds.contains(kind), "no {kind} was applied: {kinds:?}");
    }
    Ok(())
}

/// All namespaces that are named.
fn namespaces(documents: &[Document]) -> BTreeSet<String> {
    let mut all: BTreeSet<_> = documents.iter().map(|d| d.namespace().to_owned()).collect();
    all.remove("");
    all
}

/// Server-side apply, with which a field that the kind does not have is an error.
async fn strictly(client: &Client, object: &Value) -> Result<Value> {
    let (api, name) = api(client, object).await?;
    let params = PatchParams {
        field_validation: Some(ValidationDirective::Strict),
        ..PatchParams::apply("helm").force()
    };
    let taken = api.patch(&name, &params, &Patch::Apply(object)).await?;
    Ok(serde_json::to_value(taken)?)
}

async fn delete(client: &Client, object: &Value) -> Result<()> {
    let (api, name) = api(client, object).await?;
    // A pod that no kubelet has seen goes at once.
    let params = DeleteParams::background().grace_period(0);
    api.delete(&name, &params).await?;
    Ok(())
}

async fn api(client: &Client, object: &Value) -> Result<(Api<DynamicObject>, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let types = TypeMeta {
        api_version: text(&object["apiVersion"]),
        kind: text(&object["kind"]),
    };
    let (kind, capabilities) =
        discovery::pinned_kind(client, &GroupVersionKind::try_from(&types)?).await?;
    let api = match capabilities.scope {
        Scope::Cluster => Api::all_with(client.clone(), &kind),
        Scope::Namespaced => {
            let namespace = text(&object["metadata"]["namespace"]);
            ensure!(!namespace.is_empty(), "{} without namespace", kind.kind);
            Api::namespaced_with(client.clone(), &namespace, &kind)
        }
    };
    Ok((api, text(&object["metadata"]["name"])))
}

/// The Deployment that Envoy Gateway would make of an EnvoyProxy: its own
/// container, and all that the proxy adds. An API server says whether mounts and
/// volumes fit together.
fn envoys(proxy: &Value) -> Result<Value> {
    let parts = &proxy["spec"]["provider"]["kubernetes"]["envoyDeployment"];
    let mut pod = parts["pod"].clone();
    let mut envoy = parts["container"].clone();
    envoy["name"] = json!("envoy");
    envoy["image"] = json!("envoy");
    pod["containers"] = json!([envoy]);
    pod["initContainers"] = parts["initContainers"].clone();
    pod["automountServiceAccountToken"] = json!(false);
    let labels = BTreeMap::from([("app", "envoy")]);
    let namespace = proxy["metadata"]["namespace"]
        .as_str()
        .context("namespace")?;
    Ok(json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "envoy", "namespace": namespace},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }))
}

/// A CRD that takes anything: what the Prometheus operator asks of the kind is
/// not tried here.
async fn install_service_monitor(objects: &Objects) -> Result<()> {
    let crd = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "servicemonitors.monitoring.coreos.com"},
        "spec": {
            "group": "monitoring.coreos.com", "scope": "Namespaced",
            "names": {"kind": "ServiceMonitor", "plural": "servicemonitors", "singular": "servicemonitor"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {
                "openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            }}],
        },
    });
    objects.apply("", crd).await?;
    let name = "servicemonitors.monitoring.coreos.com";
    let served = |crd: &Value| condition(crd, "Established").is_some_and(|c| c["status"] == "True");
    objects
        .until(Kind::CRD, "", name, "Established", served)
        .await
        .map(drop)
}
