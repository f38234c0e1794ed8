//! Objects that were stored before a rule: a stricter schema must not make
//! them impossible to work with or to delete (it once did, elsewhere: a
//! finalizer could not be removed any more).

use std::time::Instant;

use adit_tests::{
    client::PATIENCE,
    kube::{ControlPlane, Kind},
};
use anyhow::{Result, ensure};
use kube::{
    Api,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
    core::ApiResource,
};
use serde_json::{Value, json};

/// A group of its own, so that the other tests' CRDs stay as they are.
const GROUP: &str = "before.adit.test";

#[tokio::test(flavor = "multi_thread")]
async fn an_object_from_before_a_rule_can_be_labelled_reported_on_and_deleted() -> Result<()> {
    let plane = ControlPlane::shared().await?;
    let objects = plane.admin().await?;
    let crds = adit_api::crds();
    for crd in crds {
        let kind = crd.spec.names.kind.clone();
        let Some((spec, status)) = breaking(&kind) else {
            continue;
        };
        let mut strict = serde_json::to_value(crd)?;
        strict["spec"]["group"] = json!(GROUP);
        let plural = strict["spec"]["names"]["plural"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        strict["metadata"]["name"] = json!(format!("{plural}.{GROUP}"));
        // Beside the real one, short names would be taken.
        strict["spec"]["names"]["shortNames"] = Value::Null;
        let mut lenient = strict.clone();
        soften(&mut lenient["spec"]["versions"][0]["schema"]["openAPIV3Schema"]);
        objects.apply("", lenient).await?;
        let version = strict["spec"]["versions"][0]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let resource = ApiResource {
            group: GROUP.into(),
            api_version: format!("{GROUP}/{version}"),
            version,
            kind: kind.clone(),
            plural,
        };
        let api: Api<DynamicObject> =
            Api::namespaced_with(objects.client.clone(), "default", &resource);
        let old = json!({
            "apiVersion": resource.api_version, "kind": kind,
            "metadata": {"name": "old.one", "finalizers": ["adit.test/held"]},
            "spec": spec, "status": status,
        });
        until(&format!("{kind} served"), async || {
            create(&api, &old, false).await.is_ok()
        })
        .await?;
        merge(&api, true, json!({"status": status})).await?;

        objects.apply("", strict).await?;
        let mut new = old.clone();
        new["metadata"]["name"] = json!("new.one");
        until(&format!("the rules of {kind} in effect"), async || {
            matches!(create(&api, &new, true).await, Err(kube::Error::Api(e)) if e.code == 422)
        })
        .await?;

        // A person labels it, a controller reports on it.
        merge(&api, false, json!({"metadata": {"labels": {"a": "b"}}})).await?;
        let condition = json!([{
            "type": "Accepted", "status": "False", "reason": "Invalid", "message": "",
            "lastTransitionTime": "2026-11-20T00:00:00Z",
        }]);
        merge(&api, true, json!({"status": {"conditions": condition}})).await?;
        // It goes, although a finalizer has to be removed first.
        api.delete("old.one", &DeleteParams::background()).await?;
        ensure!(
            api.get_opt("old.one").await?.is_some(),
            "held by its finalizer"
        );
        merge(&api, false, json!({"metadata": {"finalizers": null}})).await?;
        until(&format!("{kind} gone"), async || {
            matches!(api.get_opt("old.one").await, Ok(None))
        })
        .await?;
        let name = format!("{}.{GROUP}", resource.plural);
        objects.delete(Kind::CRD, "", &name).await?;
    }
    Ok(())
}

/// A spec and a status that break as many rules as they can. (Lists with keys
/// have always had them, so no key is there twice with two contents.)
fn breaking(kind: &str) -> Option<(Value, Value)> {
    match kind {
        "HTTPProxy" => Some((
            json!({"hostnames": ["*.Example", "*.Example"], "rules": [
                {"name": "a"},
                {"name": "a",
                    "filters": [{"type": "RequestRedirect"}, {"type": "URLRewrite"}, {"type": "URLRewrite"}],
                    "backends": [
                        {"connector": {"name": "A", "selector": {}}, "weight": 0},
                        {"endpoint": "ftp://user@localhost/x", "tls": {}, "weight": 0},
                    ]},
            ]}),
            json!({}),
        )),
        "Connector" => Some((
            json!({"connectorClassName": "", "capabilities": [{"type": ""}, {"type": ""}]}),
            json!({"connectionDetails": {"type": "PublicKey", "publicKey": {
                "id": "abc", "homeRelay": "relay", "addresses": [{"address": "host", "port": 0}]}},
                "allowedDialers": ["x", "x"]}),
        )),
        "ConnectorAdvertisement" => Some((
            json!({"connectorRef": {"name": ""}, "layer4": [
                {"name": "a", "services": [{"address": "a b", "ports": [
                    {"name": "p", "port": 0, "protocol": "SCTP"}, {"name": "q", "port": 70000, "protocol": "x"}]}]},
                {"name": "b", "services": []},
            ]}),
            json!({}),
        )),
        _ => None,
    }
}

/// The schema as it might have been: only types and names.
fn soften(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            for strict in [
                "x-kubernetes-validations",
                "x-kubernetes-list-type",
                "x-kubernetes-list-map-keys",
                "pattern",
                "enum",
                "format",
                "required",
                "default",
                "minLength",
                "maxLength",
                "minItems",
                "maxItems",
                "minimum",
                "maximum",
                "maxProperties",
            ] {
                // A property may have such a name; its schema is an object.
                if map.get(strict).is_some_and(|v| !v.is_object()) || strict == "default" {
                    map.remove(strict);
                }
            }
            map.values_mut().for_each(soften);
        }
        Value::Array(items) => items.iter_mut().for_each(soften),
        _ => {}
    }
}

async fn create(api: &Api<DynamicObject>, object: &Value, dry_run: bool) -> kube::Result<()> {
    let object = serde_json::from_value(object.clone()).map_err(kube::Error::SerdeError)?;
    let params = PostParams {
        dry_run,
        ..PostParams::default()
    };
    api.create(&params, &object).await.map(drop)
}

async fn merge(api: &Api<DynamicObject>, status: bool, patch: Value) -> Result<()> {
    let params = PatchParams::default();
    let patch = Patch::Merge(patch);
    if status {
        api.patch_status("old.one", &params, &patch).await?;
    } else {
        api.patch("old.one", &params, &patch).await?;
    }
    Ok(())
}

async fn until(what: &str, ready: impl AsyncFn() -> bool) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !ready().await {
        ensure!(Instant::now() < deadline, "no {what} in {PATIENCE:?}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    Ok(())
}
