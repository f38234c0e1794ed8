//! What the API server makes of good objects: defaults, columns, field
//! selectors, owners of fields.

use std::{fs, path::Path};

use adit_tests::kube::{ControlPlane, Kind, Objects};
use anyhow::{Context as _, Result, ensure};
use kube::api::{DynamicObject, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

const AGENT: &str = "adit-connector";
const RECONCILER: &str = "adit-reconciler";

#[tokio::test(flavor = "multi_thread")]
async fn every_crd_is_established_with_its_names() -> Result<()> {
    let objects = ControlPlane::shared().await?.admin().await?;
    for crd in adit_api::crds() {
        let name = crd.metadata.name.context("a name")?;
        let found = objects
            .get(Kind::CRD, "", &name)
            .await?
            .context("installed")?;
        for kind in ["Established", "NamesAccepted"] {
            let conditions = found["status"]["conditions"]
                .as_array()
                .context("conditions")?;
            let condition = conditions.iter().find(|c| c["type"] == kind);
            ensure!(
                condition.is_some_and(|c| c["status"] == "True"),
                "{name}: {kind}: {condition:?}"
            );
            // A schema that is not structural keeps unknown fields.
            ensure!(
                !conditions
                    .iter()
                    .any(|c| c["type"] == "NonStructuralSchema"),
                "{name}"
            );
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_out_or_null_is_filled_in() -> Result<()> {
    let objects = ControlPlane::shared().await?.admin().await?;
    objects.make_namespace("defaults", &[]).await?;
    let proxy = objects.apply("defaults", json!({
        "apiVersion": "networking.datumapis.com/v1alpha", "kind": "HTTPProxy",
        "metadata": {"name": "shop"},
        "spec": {"rules": [{"matches": null, "backends": [{"endpoint": "http://web.internal"}]}]},
    })).await?;
    let rule = json!({
        "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
        "backends": [{"endpoint": "http://web.internal"}],
    });
    ensure!(
        proxy["spec"] == json!({"rules": [rule]}),
        "{}",
        proxy["spec"]
    );
    waiting(&proxy, &["Accepted", "Programmed"])?;

    let class = objects
        .apply(
            "",
            json!({
                "apiVersion": "networking.datumapis.com/v1alpha1", "kind": "ConnectorClass",
                "metadata": {"name": "defaults"}, "spec": {},
            }),
        )
        .await?;
    ensure!(class["spec"]["controllerName"] == adit_api::networking::DEFAULT_CONTROLLER);

    let connector = objects.apply("defaults", connector()).await?;
    waiting(&connector, &["Accepted"])?;

    let ad = objects
        .apply(
            "defaults",
            json!({
                "apiVersion": "networking.datumapis.com/v1alpha1", "kind": "ConnectorAdvertisement",
                "metadata": {"name": "laptop"},
                "spec": {"connectorRef": {"name": "laptop"}, "layer4": [{"name": "a", "services": [
                    {"address": "*", "ports": [{"name": "web", "port": 80}]}]}]},
            }),
        )
        .await?;
    waiting(&ad, &["Accepted"])?;
    let port = &ad["spec"]["layer4"][0]["services"][0]["ports"][0];
    ensure!(port["protocol"] == "TCP", "{port}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn agent_and_reconciler_write_one_status_without_losing_the_others_part() -> Result<()> {
    let objects = ControlPlane::shared().await?.admin().await?;
    objects.make_namespace("writers", &[]).await?;
    objects.apply("writers", connector()).await?;
    let agents = |device: &str| {
        json!({
            "connectionDetails": {"type": "PublicKey", "publicKey": {
                "id": "ab".repeat(32), "addresses": [{"address": "10.0.0.1", "port": 1}]}},
            "capabilities": [{"type": "ConnectTCP", "conditions": [condition("Ready", "True")]}],
            "device": {"name": device, "os": "linux"},
            "conditions": [condition("NetworkReachable", "True")],
        })
    };
    let reconcilers = |ready: &str, dialers: &[&str]| {
        json!({
            "conditions": [condition("Accepted", "True"), condition("Ready", ready)],
            "leaseRef": {"name": "laptop"},
            "allowedDialers": dialers,
        })
    };
    let (one, two) = ("1".repeat(64), "2".repeat(64));
    write(&objects, AGENT, agents("a")).await?;
    write(&objects, RECONCILER, reconcilers("False", &[&two, &one])).await?;
    write(&objects, AGENT, agents("b")).await?;
    let seen = write(&objects, RECONCILER, reconcilers("True", &[&one])).await?;
    let status = &seen["status"];
    ensure!(status["device"]["name"] == "b", "{status}");
    ensure!(
        status["connectionDetails"]["publicKey"]["addresses"][0]["port"] == 1,
        "{status}"
    );
    ensure!(
        status["capabilities"][0]["conditions"][0]["type"] == "Ready",
        "{status}"
    );
    ensure!(status["allowedDialers"] == json!([one]), "{status}");
    let conditions = status["conditions"].as_array().context("conditions")?;
    let state = |kind: &str| {
        conditions
            .iter()
            .find(|c| c["type"] == kind)
            .map(|c| &c["status"])
    };
    ensure!(state("Accepted") == Some(&json!("True")), "{status}");
    ensure!(state("Ready") == Some(&json!("True")), "{status}");
    ensure!(
        state("NetworkReachable") == Some(&json!("True")),
        "{status}"
    );
    // What one of them no longer says goes; the other's stays.
    let seen = write(&objects, AGENT, json!({"device": {"name": "b"}})).await?;
    let status = &seen["status"];
    ensure!(
        status["connectionDetails"].is_null() && status["capabilities"].is_null(),
        "{status}"
    );
    ensure!(status["leaseRef"]["name"] == "laptop", "{status}");
    ensure!(
        status["conditions"].as_array().map(Vec::len) == Some(2),
        "{status}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connector_is_found_by_its_key_and_an_advertisement_by_its_connector() -> Result<()> {
    let objects = ControlPlane::shared().await?.admin().await?;
    objects.make_namespace("selected", &[]).await?;
    for (name, digit) in [("one", "1"), ("two", "2")] {
        let mut object = connector();
        object["metadata"]["name"] = json!(name);
        objects.apply("selected", object).await?;
        let id = digit.repeat(64);
        let status = json!({"status": {"connectionDetails": {"type": "PublicKey", "publicKey": {"id": id}}}});
        objects
            .merge(Kind::CONNECTOR, "selected", name, Some("status"), &status)
            .await?;
        objects.apply("selected", json!({
            "apiVersion": "networking.datumapis.com/v1alpha1", "kind": "ConnectorAdvertisement",
            "metadata": {"name": format!("of-{name}")}, "spec": {"connectorRef": {"name": name}},
        })).await?;
    }
    let found = async |kind: Kind, selector: &str| -> Result<Vec<String>> {
        let params = ListParams::default().fields(selector);
        let list = objects.api(kind, "selected").list(&params).await?;
        Ok(list
            .items
            .into_iter()
            .filter_map(|o| o.metadata.name)
            .collect())
    };
    let by_key = format!("status.connectionDetails.publicKey.id={}", "2".repeat(64));
    ensure!(found(Kind::CONNECTOR, &by_key).await? == ["two"]);
    let by_connector = "spec.connectorRef.name=one";
    ensure!(found(Kind::CONNECTOR_ADVERTISEMENT, by_connector).await? == ["of-one"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_shows_what_a_person_looks_for_first() -> Result<()> {
    let objects = ControlPlane::shared().await?.admin().await?;
    objects.make_namespace("columns", &[]).await?;
    objects.apply("columns", connector()).await?;
    let status = json!({"status": {"device": {"name": "attic"}, "conditions": [condition("Ready", "True")]}});
    objects
        .merge(
            Kind::CONNECTOR,
            "columns",
            "laptop",
            Some("status"),
            &status,
        )
        .await?;
    let (columns, row) = table(
        &objects,
        "/apis/networking.datumapis.com/v1alpha1/namespaces/columns/connectors",
    )
    .await?;
    ensure!(
        columns
            == [
                "Name", "Class", "Ready", "Device", "OS", "Endpoint", "Reason", "Age"
            ],
        "{columns:?}"
    );
    ensure!(
        row[..4] == ["laptop", "datum-connect", "True", "attic"],
        "{row:?}"
    );

    let proxy = json!({
        "apiVersion": "networking.datumapis.com/v1alpha", "kind": "HTTPProxy",
        "metadata": {"name": "shop"}, "spec": {"rules": [{"backends": [{"endpoint": "http://web.internal"}]}]},
    });
    objects.apply("columns", proxy).await?;
    let status = json!({"status": {"hostnames": ["a.example"], "conditions": [
        condition("Programmed", "True"), condition("ConnectorsReady", "False")]}});
    objects
        .merge(Kind::HTTP_PROXY, "columns", "shop", Some("status"), &status)
        .await?;
    let (columns, row) = table(
        &objects,
        "/apis/networking.datumapis.com/v1alpha/namespaces/columns/httpproxies",
    )
    .await?;
    ensure!(
        columns
            == [
                "Name",
                "Hostname",
                "Programmed",
                "Connectors",
                "Reason",
                "Age"
            ],
        "{columns:?}"
    );
    ensure!(row[1..4] == ["a.example", "True", "False"], "{row:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_manifests_and_examples_of_the_book_are_taken() -> Result<()> {
    let objects = ControlPlane::shared().await?.admin().await?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut texts = Vec::new();
    for folder in ["envoy/manifests", "docs", "."] {
        for entry in fs::read_dir(root.join(folder))? {
            let path = entry?.path();
            let extension = path
                .extension()
                .and_then(|e| e.to_str())
                .unwrap_or_default();
            if !matches!(extension, "yaml" | "md") {
                continue;
            }
            let text = fs::read_to_string(&path)?;
            let blocks = if extension == "md" {
                yaml_blocks(&text)
            } else {
                vec![text]
            };
            texts.extend(
                blocks
                    .into_iter()
                    .map(|block| (path.display().to_string(), block)),
            );
        }
    }
    let mut taken = 0;
    for (file, text) in texts {
        let documents: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap_or_default();
        for mut object in documents {
            if !object["apiVersion"]
                .as_str()
                .unwrap_or_default()
                .starts_with(adit_api::networking::GROUP)
            {
                continue;
            }
            let kind = Kind::of(
                object["apiVersion"].as_str().unwrap_or_default(),
                object["kind"].as_str().unwrap_or_default(),
            );
            let kind = kind.with_context(|| format!("{file}: an unknown kind"))?;
            let namespace = if kind.namespaced { "default" } else { "" };
            // Which namespace does not matter, and the one that is named may not exist.
            if let Some(metadata) = object["metadata"].as_object_mut() {
                metadata.remove("namespace");
            }
            let name = object["metadata"]["name"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            let mut params = PatchParams::apply("book").force();
            params.dry_run = true;
            // Strict: a field that the kind does not have is an error.
            params.field_validation = Some(kube::api::ValidationDirective::Strict);
            let api = objects.api(kind, namespace);
            api.patch(&name, &params, &Patch::Apply(&object))
                .await
                .with_context(|| format!("{file}: {} {name}", kind.kind))?;
            taken += 1;
        }
    }
    ensure!(taken >= 4, "only {taken} manifests were found");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_and_texts_have_ends() -> Result<()> {
    let objects = ControlPlane::shared().await?.admin().await?;
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let backend = json!({"endpoint": "http://web.internal"});
    let spec = |rules: Value| json!({"rules": rules});
    let long = |n: usize| "a".repeat(n);
    for (what, spec) in [
        (
            "rules",
            spec(json!(vec![json!({"backends": [backend]}); 17])),
        ),
        ("no rule", spec(json!([]))),
        (
            "backends",
            spec(json!([{"backends": vec![backend.clone(); 17]}])),
        ),
        (
            "an endpoint",
            spec(json!([{"backends": [{"endpoint": format!("http://{}", long(300))}]}])),
        ),
        (
            "a weight",
            spec(json!([{"backends": [{"endpoint": "http://a", "weight": 1_000_001}]}])),
        ),
        (
            "a negative weight",
            spec(json!([{"backends": [{"endpoint": "http://a", "weight": -1}]}])),
        ),
        (
            "a path",
            spec(
                json!([{"backends": [backend], "matches": [{"path": {"value": format!("/{}", long(1024))}}]}]),
            ),
        ),
        (
            "a scheme",
            spec(
                json!([{"filters": [{"type": "RequestRedirect", "requestRedirect": {"scheme": "ftp"}}]}]),
            ),
        ),
        (
            "a status code",
            spec(
                json!([{"filters": [{"type": "RequestRedirect", "requestRedirect": {"statusCode": 200}}]}]),
            ),
        ),
    ] {
        let object: DynamicObject = serde_json::from_value(json!({
            "apiVersion": "networking.datumapis.com/v1alpha", "kind": "HTTPProxy",
            "metadata": {"name": "shop"}, "spec": spec,
        }))?;
        let answer = objects
            .api(Kind::HTTP_PROXY, "default")
            .create(&dry, &object)
            .await;
        ensure!(
            matches!(&answer, Err(kube::Error::Api(e)) if e.code == 422),
            "{what}: {answer:?}"
        );
    }
    Ok(())
}

fn connector() -> Value {
    json!({
        "apiVersion": "networking.datumapis.com/v1alpha1", "kind": "Connector",
        "metadata": {"name": "laptop"}, "spec": {"connectorClassName": "datum-connect"},
    })
}

fn condition(kind: &str, status: &str) -> Value {
    json!({
        "type": kind, "status": status, "reason": "Tested", "message": "",
        "lastTransitionTime": "2026-11-20T00:00:00Z", "observedGeneration": 1,
    })
}

/// The conditions before anyone has written.
fn waiting(object: &Value, kinds: &[&str]) -> Result<()> {
    let conditions = object["status"]["conditions"]
        .as_array()
        .context("conditions")?;
    let seen: Vec<_> = conditions
        .iter()
        .filter_map(|c| c["type"].as_str())
        .collect();
    ensure!(seen == kinds, "{conditions:?}");
    let pending = conditions
        .iter()
        .all(|c| c["status"] == "Unknown" && c["reason"] == "Pending");
    ensure!(pending, "{conditions:?}");
    Ok(())
}

/// Server-side apply of a part of the Connector's status.
async fn write(objects: &Objects, manager: &str, status: Value) -> Result<Value> {
    let mut object = connector();
    object.as_object_mut().context("an object")?.remove("spec");
    object["status"] = status;
    let params = PatchParams::apply(manager).force();
    let api = objects.api(Kind::CONNECTOR, "writers");
    let written = api
        .patch_status("laptop", &params, &Patch::Apply(&object))
        .await?;
    Ok(serde_json::to_value(written)?)
}

/// The columns of a list, and its first row.
async fn table(objects: &Objects, path: &str) -> Result<(Vec<String>, Vec<String>)> {
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let request = http::Request::get(path)
        .header("accept", accept)
        .body(Vec::new())?;
    let table: Value = objects.client.request(request).await?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let columns = table["columnDefinitions"].as_array().context("columns")?;
    let cells = table["rows"][0]["cells"].as_array().context("a row")?;
    Ok((
        columns.iter().map(|c| text(&c["name"])).collect(),
        cells.iter().map(text).collect(),
    ))
}

/// The texts of fenced YAML in Markdown, indented or not.
fn yaml_blocks(text: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        match &mut open {
            None if line.trim_start().starts_with("```yaml") => {
                open = Some((indent, String::new()))
            }
            None => {}
            Some(_) if line.trim_start().starts_with("```") => {
                blocks.extend(open.take().map(|(_, block)| block));
            }
            Some((indent, block)) => {
                block.push_str(line.get(*indent..).unwrap_or_default());
                block.push('\n');
            }
        }
    }
    blocks
}
