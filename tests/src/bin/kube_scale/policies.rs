//! The objects that the reconciler writes for many HTTPProxies, from its own
//! emitter, so that what is measured is what is written.

use std::{collections::BTreeSet, time::Duration};

use adit_api::{ResourceExt as _, envoy_gateway::TargetRef, networking::HttpProxy};
use adit_reconciler::{
    Snapshot,
    compile::{Classes, Options, Output, compile},
    emit::gateway::{GATEWAY_API, Place, Setting, Users, bundles, extension},
};
use adit_tests::{binaries, keys::Key, kube::stack::MODULE};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

/// What is there for one HTTPProxy.
pub struct Written {
    /// An HTTPRoute and its Backend.
    pub route: [Value; 2],
    /// The EnvoyPatchPolicy.
    pub policy: Value,
}

/// The objects of `count` HTTPProxies over one Connector.
pub fn written(gateway: &Place, count: usize, dir: &std::path::Path) -> Result<Vec<Written>> {
    let snapshot = snapshot(&gateway.namespace, count, dir)?;
    let options = Options {
        listen: ([127, 0, 0, 1], 0).into(),
        deadline: Duration::from_millis(2500),
        output: Output::EnvoyGateway,
        classes: Classes::Required,
    };
    let compiled = compile(&snapshot, &options);
    ensure!(compiled.problems.is_empty(), "{:?}", compiled.problems);
    let setting = Setting {
        gateway: gateway.clone(),
        patch_target: TargetRef {
            group: GATEWAY_API.into(),
            kind: "Gateway".into(),
            name: gateway.name.clone(),
            section_name: None,
        },
        module: binaries::module()?,
        dialer_socket: "/run/adit/dialer.sock".into(),
        users: Users::default(),
    };
    let of = |proxy: &HttpProxy| {
        let bundle = bundles(proxy, &compiled.model, &setting).pop();
        let bundle = bundle.with_context(|| format!("no route for {}", proxy.name_any()))?;
        let backend = bundle.backends.first().context("no backend")?;
        let policy = bundle.patch.as_ref().context("no policy")?;
        Ok(Written {
            route: [orphan(json!(bundle.route)), orphan(json!(backend))],
            policy: orphan(json!(policy)),
        })
    };
    snapshot.proxies.iter().map(of).collect()
}

/// The EnvoyExtensionPolicy of the Gateway, which selects every tunnel's route.
pub fn filter(gateway: &Place) -> Value {
    orphan(json!(extension(gateway, MODULE, &BTreeSet::new()).0))
}

fn snapshot(namespace: &str, count: usize, dir: &std::path::Path) -> Result<Snapshot> {
    let version = "networking.datumapis.com/v1alpha1";
    let key = Key::new(dir, "agent").context("a key")?;
    let box_ = json!({"name": "box", "namespace": namespace});
    let services = json!([{"address": "localhost", "ports": [{"name": "http", "port": 80}]}]);
    let proxy = |n: usize| {
        serde_json::from_value(json!({
            "apiVersion": "networking.datumapis.com/v1alpha", "kind": "HTTPProxy",
            "metadata": {"name": format!("web-{n}"), "namespace": namespace, "uid": format!("{n}")},
            "spec": {"hostnames": [format!("web-{n}.example.com")], "rules": [{"backends": [{
                "endpoint": "http://localhost:80", "connector": {"name": "box"},
            }]}]},
        }))
    };
    Ok(Snapshot {
        proxies: (0..count).map(proxy).collect::<Result<_, _>>()?,
        connectors: vec![serde_json::from_value(json!({
            "apiVersion": version, "kind": "Connector", "metadata": box_,
            "spec": {"connectorClassName": "datum-connect"},
            "status": {"connectionDetails": {"type": "PublicKey", "publicKey": {
                "id": key.id, "homeRelay": "https://relay.example.com/",
                "addresses": [{"address": "192.0.2.1", "port": 4242}],
            }}},
        }))?],
        advertisements: vec![serde_json::from_value(json!({
            "apiVersion": version, "kind": "ConnectorAdvertisement", "metadata": box_,
            "spec": {
                "connectorRef": {"name": "box"},
                "layer4": [{"name": "all", "services": services}],
            },
        }))?],
        classes: vec![serde_json::from_value(json!({
            "apiVersion": version, "kind": "ConnectorClass",
            "metadata": {"name": "datum-connect"}, "spec": {},
        }))?],
    })
}

/// An object without its owner: the HTTPProxies are not in the cluster, and
/// garbage collection would take what they own.
fn orphan(mut value: Value) -> Value {
    if let Some(metadata) = value["metadata"].as_object_mut() {
        metadata.remove("ownerReferences");
    }
    value
}
