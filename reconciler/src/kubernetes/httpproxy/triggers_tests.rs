//! Tests of which change concerns which HTTPProxy.

use kube::core::DeserializeGuard;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;
use crate::kubernetes::options::Options;

/// Three HTTPProxies: `a/one` names a connector, `a/two` selects some, `b/three`
/// has none; all on the Gateway `infra/edge`.
struct Scene {
    stores: Stores,
    queue: Proxies,
}

fn object<K: DeserializeOwned + Resource<DynamicType = ()>>(
    namespace: &str,
    name: &str,
    version: u32,
    more: Value,
) -> K {
    let mut object = json!({
        "apiVersion": K::api_version(&()), "kind": K::kind(&()),
        "metadata": {
            "namespace": namespace, "name": name, "uid": format!("{namespace}-{name}"),
            "resourceVersion": version.to_string(),
        },
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        match key.as_str() {
            "labels" | "annotations" => object["metadata"][key] = value.clone(),
            _ => object[key] = value.clone(),
        }
    }
    serde_json::from_value(object).unwrap()
}

impl Scene {
    fn new() -> Self {
        let stores = Stores::default();
        let options = Options {
            control: adit_control::Options {
                in_cluster: Some(true),
                ..Default::default()
            },
            gateway: Some("infra/edge".into()),
            ..Default::default()
        };
        let queue = register(&stores, &options.resolve().unwrap());
        let scene = Self { stores, queue };
        let rule = |connector: Value| {
            let backend = json!({"endpoint": "http://localhost:80", "connector": connector});
            json!([{"backends": [backend]}])
        };
        let selector = json!({"selector": {"matchLabels": {"kind": "lab"}}});
        for (namespace, name, host, rules) in [
            ("a", "one", "one.test", rule(json!({"name": "box"}))),
            ("a", "two", "two.test", rule(selector)),
            ("b", "three", "three.test", json!([{}])),
        ] {
            let spec = json!({"spec": {"hostnames": [host], "rules": rules}});
            scene.put(&scene.stores.proxies, object(namespace, name, 1, spec));
        }
        scene.asked();
        scene
    }

    fn put<K: Resource<DynamicType = ()> + Clone>(&self, kept: &Kept<K>, object: K) {
        kept.seen(DeserializeGuard(Ok(object)));
    }

    /// Who is to be looked at, since last asked.
    fn asked(&self) -> Vec<String> {
        let mut asked: Vec<_> = self.queue.drain().iter().map(Key::to_string).collect();
        asked.sort();
        asked
    }

    fn connector(&self, name: &str, version: u32, more: Value) -> Vec<String> {
        let mut all = json!({"spec": {"connectorClassName": "c"}});
        for (key, value) in more.as_object().into_iter().flatten() {
            all[key] = value.clone();
        }
        self.put(&self.stores.connectors, object("a", name, version, all));
        self.asked()
    }
}

const NOBODY: [&str; 0] = [];

#[test]
fn a_connector_concerns_who_names_it_and_who_selects_it_before_or_after() {
    let scene = Scene::new();
    assert_eq!(scene.connector("box", 1, json!({})), ["a/one"]);
    let lab = json!({"labels": {"kind": "lab"}});
    assert_eq!(scene.connector("box", 2, lab), ["a/one", "a/two"]);
    assert_eq!(scene.connector("box", 3, json!({})), ["a/one", "a/two"]);
    assert_eq!(scene.connector("other", 4, json!({})), NOBODY);
}

#[test]
fn where_an_agent_is_concerns_nobody_but_its_key_and_its_readiness_do() {
    let scene = Scene::new();
    let id = "ae58ff8833241ac82d6ff7611046ed67b5072d142c588d0063e942d9a75502b6";
    let status = |relay: &str, addresses: Value, ready: &str| {
        let condition = json!({"type": "Ready", "status": ready, "reason": "R", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"});
        json!({"status": {"connectionDetails": {"type": "PublicKey", "publicKey": {
            "id": id, "homeRelay": relay, "addresses": addresses}}, "conditions": [condition],
            "allowedDialers": [relay]}})
    };
    let relay = "https://relay.test/";
    let none = json!([]);
    let one = json!([{"address": "192.0.2.1", "port": 1}]);
    assert_eq!(scene.connector("box", 1, json!({})), ["a/one"]);
    let told = scene.connector("box", 2, status(relay, none.clone(), "True"));
    assert_eq!(told, ["a/one"], "it has a key now");
    let moved = scene.connector("box", 3, status("https://other.test/", one.clone(), "True"));
    assert_eq!(moved, NOBODY, "it is elsewhere");
    let down = scene.connector("box", 4, status(relay, one, "False"));
    assert_eq!(down, ["a/one"], "it is not ready");
}

#[test]
fn an_own_status_concerns_nobody_and_a_new_wish_concerns_its_own_proxy() {
    let scene = Scene::new();
    let rules = json!([{}]);
    let with = |version, more: Value| {
        let mut all = json!({"spec": {"hostnames": ["three.test"], "rules": rules}});
        for (key, value) in more.as_object().into_iter().flatten() {
            all[key] = value.clone();
        }
        let proxy = object("b", "three", version, all);
        scene.put(&scene.stores.proxies, proxy);
        scene.asked()
    };
    assert_eq!(
        with(2, json!({"status": {"hostnames": ["three.test"]}})),
        NOBODY
    );
    let elsewhere = json!({"annotations": {"networking.datumapis.com/gateway": "b/own"}});
    assert_eq!(with(3, elsewhere), ["b/three"]);
}

#[test]
fn who_claims_a_host_name_concerns_the_others_that_have_it() {
    let scene = Scene::new();
    let claim = |version, host: &str| {
        let spec = json!({"spec": {"hostnames": [host], "rules": [{}]}});
        scene.put(&scene.stores.proxies, object("b", "three", version, spec));
        scene.asked()
    };
    assert_eq!(claim(2, "one.test"), ["a/one", "b/three"]);
    assert_eq!(
        claim(3, "free.test"),
        ["a/one", "b/three"],
        "and who lets go of it"
    );
    let other = json!({"annotations": {"networking.datumapis.com/gateway": "b/own"},
        "spec": {"hostnames": ["one.test"], "rules": [{}]}});
    scene.put(&scene.stores.proxies, object("b", "three", 4, other));
    assert_eq!(
        scene.asked(),
        ["b/three"],
        "another Gateway, another name space"
    );
}

#[test]
fn an_object_that_was_made_concerns_its_owner_unless_this_process_changed_it() {
    let scene = Scene::new();
    let labels = json!({"labels": {MANAGED_BY_LABEL: MANAGED_BY, UID_LABEL: "a-one"}});
    let route = |version| {
        let mut all = labels.clone();
        all["spec"] = json!({});
        object::<gateway_api::httproutes::HttpRoute>("a", "r", version, all)
    };
    scene.stores.routes.wrote(&route(5));
    assert_eq!(scene.asked(), NOBODY);
    scene.put(&scene.stores.routes, route(5));
    assert_eq!(scene.asked(), NOBODY, "the echo");
    scene.put(&scene.stores.routes, route(6));
    assert_eq!(scene.asked(), ["a/one"]);
}

#[test]
fn the_count_of_a_gateways_routes_concerns_nobody_its_listeners_do() {
    let scene = Scene::new();
    let gateway = |version, routes: u32, programmed: &str| {
        let condition = json!({"type": "Programmed", "status": programmed, "reason": "R",
            "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let listener = json!({"name": "http", "attachedRoutes": routes, "supportedKinds": [],
            "conditions": [condition]});
        let all = json!({"spec": {"gatewayClassName": "c", "listeners": []},
            "status": {"listeners": [listener]}});
        scene.put(
            &scene.stores.gateways,
            object("infra", "edge", version, all),
        );
        scene.asked()
    };
    let everyone = ["a/one", "a/two", "b/three"];
    assert_eq!(gateway(1, 0, "False"), everyone);
    assert_eq!(gateway(2, 900, "False"), NOBODY);
    assert_eq!(gateway(3, 900, "True"), everyone);
}

#[test]
fn a_users_policy_concerns_those_near_it() {
    let scene = Scene::new();
    let policy = |namespace, version, timeout: &str| {
        let all = json!({"spec": {"timeout": {"tcp": {"connectTimeout": timeout}}}});
        scene.put(&scene.stores.traffic, object(namespace, "p", version, all));
        scene.asked()
    };
    assert_eq!(policy("a", 1, "1s"), ["a/one", "a/two"]);
    assert_eq!(policy("a", 2, "1s"), NOBODY, "its status changed");
    assert_eq!(policy("infra", 3, "1s").len(), 3, "the Gateway's namespace");
    assert_eq!(policy("c", 4, "1s"), NOBODY);
}

#[test]
fn an_advertisement_concerns_who_uses_its_connector() {
    let scene = Scene::new();
    let lab = json!({"labels": {"kind": "lab"}});
    scene.connector("lab", 1, lab);
    let advertise = |version, name: &str, connector: &str| {
        let all = json!({"spec": {"connectorRef": {"name": connector}}});
        scene.put(
            &scene.stores.advertisements,
            object("a", name, version, all),
        );
        scene.asked()
    };
    assert_eq!(advertise(1, "x", "lab"), ["a/two"]);
    assert_eq!(advertise(2, "y", "box"), ["a/one"]);
    assert_eq!(advertise(3, "y", "box"), NOBODY);
}

#[test]
fn whatever_a_proxy_names_now_what_it_reaches_concerns_it() {
    let scene = Scene::new();
    let id = "ae58ff8833241ac82d6ff7611046ed67b5072d142c588d0063e942d9a75502b6";
    let status = json!({"status": {"connectionDetails": {"type": "PublicKey", "publicKey": {
        "id": id, "homeRelay": "https://relay.test/", "addresses": []}}}});
    scene.connector("old", 1, status);
    let advertise = |version, port: u16| {
        let services = json!([{"address": "*", "ports": [{"name": "p", "port": port}]}]);
        let all = json!({"spec": {"connectorRef": {"name": "old"},
            "layer4": [{"name": "all", "services": services}]}});
        let object = object("a", "old", version, all);
        scene.put(&scene.stores.advertisements, object);
        scene.asked()
    };
    assert_eq!(advertise(1, 80), NOBODY);
    // A policy of `a/one` leads there: its version before named it.
    let target = Target {
        connectors: vec![id.parse().unwrap()],
        service: "localhost:80".parse().unwrap(),
        protocol: adit_wire::Protocol::Tcp,
        deadline: std::time::Duration::from_secs(5),
        name: String::new(),
    };
    let patch = json!({
        "type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "name": "c",
        "operation": {"op": "add", "path": "/transport_socket", "value": {"typed_config": {
            "transport_socket_config": {"value": {"target": target.to_base64()}}}}},
    });
    let labels = json!({MANAGED_BY_LABEL: MANAGED_BY, UID_LABEL: "a-one",
        NAMESPACE_LABEL: "a", PROXY_LABEL: "one"});
    let policy = json!({"labels": labels, "spec": {"type": "JSONPatch", "jsonPatches": [patch],
        "targetRef": {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "edge"}}});
    scene
        .stores
        .patches
        .wrote(&object("infra", "one-0", 2, policy));
    assert_eq!(scene.asked(), NOBODY);
    assert_eq!(advertise(3, 81), ["a/one"], "withdrawn for port 80");
    let gone = scene.stores.connectors.get(&Key::new("a", "old")).unwrap();
    let gone = DeserializeGuard(Ok(gone.as_ref().clone()));
    scene.stores.connectors.lost(gone);
    assert_eq!(scene.asked(), ["a/one"], "its connector is gone");
}
