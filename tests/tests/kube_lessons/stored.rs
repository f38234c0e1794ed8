//! Objects that were there before us.

use adit_tests::kube::{Kind, Stack};
use anyhow::{Context, Result, ensure};
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

const V1ALPHA1: &str = "networking.datumapis.com/v1alpha1";
const V1ALPHA: &str = "networking.datumapis.com/v1alpha";

/// Number 15. A rule "exactly one of these" once refused every object that had
/// two of them by design: an endpoint *and* a connector. These are objects in
/// the form in which agents and users write them, field for field.
pub async fn what_agents_have_always_written_is_taken(stack: &Stack) -> Result<()> {
    let objects = stack.admin().await?;
    objects.make_namespace("written", &[]).await?;
    let backend = |endpoint: &str| json!({"endpoint": endpoint, "connector": {"name": "laptop"}});
    let proxy = |spec: Value| {
        json!({"apiVersion": V1ALPHA, "kind": "HTTPProxy",
            "metadata": {"generateName": "tunnel-"}, "spec": spec})
    };
    let rules = |endpoint: &str| json!({"rules": [{"backends": [backend(endpoint)]}]});
    let matches = json!([{"path": {"type": "PathPrefix", "value": "/"}}]);
    let written = [
        json!({"apiVersion": V1ALPHA1, "kind": "ConnectorClass", "metadata": {"name": "written"},
            "spec": {"controllerName": "networking.datumapis.com/datum-connect"}}),
        json!({"apiVersion": V1ALPHA1, "kind": "Connector", "metadata": {"name": "laptop"},
            "spec": {"connectorClassName": "written", "capabilities": [
                {"type": "ConnectTCP", "connectTCP": {"disabled": false}}]}}),
        json!({"apiVersion": V1ALPHA1, "kind": "ConnectorAdvertisement",
            "metadata": {"name": "tunnel-abcde"},
            "spec": {"connectorRef": {"name": "laptop"}, "layer4": [{"name": "tunnel", "services": [
                {"address": "localhost", "ports": [
                    {"name": "tcp-8080", "port": 8080, "protocol": "TCP"}]}]}]}}),
        // Without a host name, as an agent makes it: one is given later.
        proxy(rules("http://localhost:8080")),
        proxy(rules("http://127.0.0.1:8080")),
        proxy(rules("http://[::1]:8080")),
        proxy(
            json!({"rules": [{"backends": [{"endpoint": "https://127.0.0.1:8443",
            "connector": {"name": "laptop"}, "tls": {"hostname": "localhost"}}]}]}),
        ),
        proxy(json!({"hostnames": ["app.example.com"], "rules": [{
            "name": "main", "matches": matches, "backends": [backend("http://10.0.0.7:3000")],
            "filters": [{"type": "RequestHeaderModifier",
                "requestHeaderModifier": {"set": [{"name": "x-a", "value": "b"}]}}],
        }]})),
        proxy(
            json!({"hostnames": ["plain.example.com"], "rules": [{"backends": [
            {"endpoint": "https://origin.example.com"}]}]}),
        ),
        proxy(
            json!({"hostnames": ["ip.example.com"], "rules": [{"backends": [
            {"endpoint": "https://192.0.2.7", "tls": {"hostname": "origin.example.com"}}]}]}),
        ),
        proxy(
            json!({"hostnames": ["old.example.com"], "rules": [{"filters": [
            {"type": "RequestRedirect", "requestRedirect": {"scheme": "https", "statusCode": 301}}]}]}),
        ),
    ];
    for object in written {
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let kind = Kind::of(&text(&object["apiVersion"]), &text(&object["kind"]));
        let kind = kind.context("a kind")?;
        let api = objects.api(kind, "written");
        let typed: DynamicObject = serde_json::from_value(object.clone())?;
        let made = api.create(&PostParams::default(), &typed).await;
        let made = made.with_context(|| format!("{object}"))?;
        // Nothing of it was dropped, and it can be written again.
        let stored = serde_json::to_value(&made)?;
        holds(&stored["spec"], &object["spec"]).with_context(|| format!("{stored:#}"))?;
        let name = made.metadata.name.clone().context("a name")?;
        let label = json!({"metadata": {"labels": {"a": "b"}}});
        objects
            .merge(kind, "written", &name, None, &label)
            .await
            .with_context(|| format!("{object}"))?;
    }
    objects.delete(Kind::CONNECTOR_CLASS, "", "written").await?;
    // What an agent reports is taken by the status.
    let details = json!({"status": {
        "capabilities": [{"type": "ConnectTCP", "conditions": [{
            "type": "Ready", "status": "True", "reason": "Ready", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"}]}],
        "connectionDetails": {"type": "PublicKey", "publicKey": {
            "id": "ab".repeat(32), "discoveryMode": "DNS",
            "homeRelay": "https://relay.us-east.example.com:583/",
            "addresses": [{"address": "192.0.2.1", "port": 50000},
                          {"address": "2001:db8::1", "port": 50001}],
        }},
    }});
    objects
        .merge(
            Kind::CONNECTOR,
            "written",
            "laptop",
            Some("status"),
            &details,
        )
        .await?;
    objects.delete_namespace("written").await
}

/// Every field that was written is there, as it was written.
fn holds(stored: &Value, written: &Value) -> Result<()> {
    match (stored, written) {
        (Value::Object(stored), Value::Object(written)) => {
            for (key, value) in written {
                let found = stored.get(key).with_context(|| format!("{key} is gone"))?;
                holds(found, value).with_context(|| key.clone())?;
            }
            Ok(())
        }
        (Value::Array(stored), Value::Array(written)) => {
            ensure!(stored.len() == written.len(), "{stored:?}");
            stored
                .iter()
                .zip(written)
                .try_for_each(|(stored, written)| holds(stored, written))
        }
        _ => {
            ensure!(stored == written, "{stored} instead of {written}");
            Ok(())
        }
    }
}

/// Number 17. A rule that comes later must not lock what is stored: the part
/// that broke it may stay while another part is changed.
pub async fn a_stored_object_that_breaks_a_later_rule_can_still_be_changed_elsewhere(
    stack: &Stack,
) -> Result<()> {
    let objects = stack.admin().await?;
    objects.make_namespace("stored", &[]).await?;
    // A copy of the kind in a group of its own, whose rules come later.
    let group = "stored.adit.test";
    let name = format!("httpproxies.{group}");
    let crds = adit_api::crds();
    let crd = crds
        .into_iter()
        .find(|c| c.spec.names.kind == "HTTPProxy")
        .context("HTTPProxy")?;
    let mut strict = serde_json::to_value(crd)?;
    strict["metadata"]["name"] = json!(name);
    strict["spec"]["group"] = json!(group);
    strict["spec"]["names"]["shortNames"] = Value::Null;
    let mut lenient = strict.clone();
    without_rules(&mut lenient);
    objects.apply("", lenient).await?;
    let resource = kube::core::ApiResource {
        group: group.into(),
        version: "v1alpha".into(),
        api_version: format!("{group}/v1alpha"),
        kind: "HTTPProxy".into(),
        plural: "httpproxies".into(),
    };
    let api: kube::Api<DynamicObject> =
        kube::Api::namespaced_with(objects.client.clone(), "stored", &resource);
    let broken = json!({"endpoint": "ftp://somewhere/else", "connector": {"name": "laptop"}});
    let old: DynamicObject = serde_json::from_value(json!({
        "apiVersion": resource.api_version, "kind": "HTTPProxy", "metadata": {"name": "old"},
        "spec": {"hostnames": ["a.example.com"], "rules": [
            {"name": "first", "backends": [broken]},
            {"name": "second", "backends": [{"endpoint": "http://192.0.2.1"}]},
        ]},
    }))?;
    adit_tests::process::until("the kind served", async || {
        api.create(&PostParams::default(), &old).await.ok()
    })
    .await?;
    objects.apply("", strict).await?;
    let mut new = old.clone();
    new.metadata.name = Some("new".into());
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    adit_tests::process::until("the rules in effect", async || {
        let refused = api.create(&dry, &new).await;
        matches!(refused, Err(kube::Error::Api(e)) if e.code == 422).then_some(())
    })
    .await?;

    // Whatever leaves the list with the broken rule as it is.
    let params = PatchParams::default();
    for change in [
        json!({"metadata": {"finalizers": ["adit.test/held"]}}),
        json!({"spec": {"hostnames": ["b.example.com"]}}),
        json!({"spec": {"hostnames": ["b.example.com", "c.example.com"]}}),
        json!({"metadata": {"labels": {"a": "b"}, "finalizers": null}}),
    ] {
        let changed = api.patch("old", &params, &Patch::Merge(&change)).await;
        changed.with_context(|| format!("{change}"))?;
    }
    // What is wrong is still told to whoever touches it.
    let rules =
        |endpoint: &str| json!({"spec": {"rules": [{"backends": [{"endpoint": endpoint}]}]}});
    let wrong = rules("ftp://elsewhere");
    let refused = api.patch("old", &params, &Patch::Merge(&wrong)).await;
    ensure!(
        matches!(&refused, Err(kube::Error::Api(e)) if e.code == 422),
        "{refused:?}"
    );
    let right = rules("http://192.0.2.4");
    api.patch("old", &params, &Patch::Merge(&right)).await?;
    objects.delete(Kind::CRD, "", &name).await?;
    objects.delete_namespace("stored").await
}

fn without_rules(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            map.remove("x-kubernetes-validations");
            if map.get("pattern").is_some_and(Value::is_string) {
                map.remove("pattern");
            }
            map.values_mut().for_each(without_rules);
        }
        Value::Array(items) => items.iter_mut().for_each(without_rules),
        _ => {}
    }
}
