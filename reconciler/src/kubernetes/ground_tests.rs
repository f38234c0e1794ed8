//! Tests of what ground an HTTPProxy stands on.

use adit_api::ObjectMeta;
use k8s_openapi::api::core::v1::Namespace;
use kube::core::DeserializeGuard;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;
use crate::kubernetes::kept::Kept;

fn config(gateway: Option<(&str, &str)>) -> Config {
    let options = crate::kubernetes::options::Options {
        control: adit_control::Options {
            in_cluster: Some(true),
            ..Default::default()
        },
        gateway: gateway.map(|(namespace, name)| format!("{namespace}/{name}")),
        ..Default::default()
    };
    options.resolve().unwrap()
}

fn proxy(annotation: Option<&str>) -> HttpProxy {
    let mut proxy = HttpProxy::new("web", Default::default());
    proxy.metadata.namespace = Some("shop".into());
    if let Some(text) = annotation {
        let annotations = proxy.annotations_mut();
        annotations.insert(GATEWAY_ANNOTATION.into(), text.into());
    }
    proxy
}

fn put<K: kube::Resource<DynamicType = ()> + Clone + DeserializeOwned>(
    kept: &Kept<K>,
    namespace: &str,
    name: &str,
    mut object: Value,
) {
    object["apiVersion"] = json!(K::api_version(&()));
    object["kind"] = json!(K::kind(&()));
    object["metadata"] = json!({"name": name, "namespace": namespace, "uid": name});
    let object = serde_json::from_value(object).unwrap();
    kept.seen(DeserializeGuard(Ok(object)));
}

fn synced<K: kube::Resource + Clone>(kept: &Kept<K>) {
    kept.set_health(kept.scope(), Health::Synced);
}

/// A Gateway `infra/edge` of class `adit`, whose EnvoyProxy lists the module.
fn stores(allowed: Value) -> Stores {
    let stores = Stores::default();
    synced(&stores.namespaces);
    synced(&stores.gateways);
    synced(&stores.gateway_classes);
    synced(&stores.routes);
    synced(&stores.grants);
    synced(&stores.envoy_proxies);
    synced(&stores.backends);
    synced(&stores.patches);
    synced(&stores.extensions);
    synced(&stores.traffic);
    let mut listener = json!({"name": "http", "port": 80, "protocol": "HTTP"});
    if !allowed.is_null() {
        listener["allowedRoutes"] = json!({ "namespaces": allowed });
    }
    let gateway = json!({"spec": {"gatewayClassName": "adit", "listeners": [listener]}});
    put(&stores.gateways, "infra", "edge", gateway);
    let parameters = json!({
        "group": GROUP, "kind": "EnvoyProxy", "name": "shared", "namespace": "system",
    });
    let class = json!({"spec": {"controllerName": "c/c", "parametersRef": parameters}});
    put(&stores.gateway_classes, "", "adit", class);
    put(
        &stores.envoy_proxies,
        "system",
        "shared",
        lists("/lib/adit.so"),
    );
    stores
}

fn lists(path: &str) -> Value {
    let source = json!({"type": "Local", "local": {"path": path}});
    json!({"spec": {"dynamicModules": [{"name": "adit", "source": source}]}})
}

fn edge() -> Wanted {
    Wanted {
        place: Key::new("infra", "edge"),
        made: false,
    }
}

fn found(stores: &Stores) -> Result<Ground, Missing> {
    find(stores, &config(None), "shop", &edge())
}

#[test]
fn the_annotation_comes_before_the_option_and_the_option_before_an_own_gateway() {
    let place = |gateway, annotation| wanted(&proxy(annotation), &config(gateway)).unwrap();
    let own = place(None, None);
    assert_eq!(
        (own.place.to_string().as_str(), own.made),
        ("shop/web", true)
    );
    let option = place(Some(("infra", "edge")), None);
    assert_eq!(
        (option.place.to_string().as_str(), option.made),
        ("infra/edge", false)
    );
    let near = place(Some(("infra", "edge")), Some("near"));
    assert_eq!(
        (near.place.to_string().as_str(), near.made),
        ("shop/near", false)
    );
    let far = place(None, Some("far/away"));
    assert_eq!(
        (far.place.to_string().as_str(), far.made),
        ("far/away", false)
    );
}

#[test]
fn an_annotation_that_names_nothing_is_a_problem_and_no_gateway() {
    for text in ["", "/", "a/", "/b", "a/b/c"] {
        let problem = wanted(&proxy(Some(text)), &config(None)).unwrap_err();
        assert_eq!(problem.reason, Reason::Invalid, "{text:?}");
    }
}

#[test]
fn a_listener_decides_by_namespace_who_may_attach() {
    let cases = [
        (Value::Null, false),
        (json!({"from": "Same"}), false),
        (json!({"from": "All"}), true),
        (
            json!({"from": "Selector", "selector": {"matchLabels": {"team": "a"}}}),
            true,
        ),
        (
            json!({"from": "Selector", "selector": {"matchLabels": {"team": "b"}}}),
            false,
        ),
        (json!({"from": "Selector"}), false),
    ];
    for (allowed, may) in cases {
        let stores = stores(allowed.clone());
        let namespace = Namespace {
            metadata: ObjectMeta {
                name: Some("shop".into()),
                labels: Some([("team".to_owned(), "a".to_owned())].into()),
                ..ObjectMeta::default()
            },
            ..Namespace::default()
        };
        stores.namespaces.seen(DeserializeGuard(Ok(namespace)));
        let found = found(&stores);
        assert_eq!(found.is_ok(), may, "{allowed}");
        if let Err(missing) = found {
            assert_eq!(missing.reason, "NotAllowedByListeners");
            assert!(missing.withdraw, "what is there already has to go");
        }
    }
}

#[test]
fn the_modules_path_comes_from_the_class_or_the_gateways_own_envoy_proxy() {
    let stores = stores(json!({"from": "All"}));
    assert_eq!(found(&stores).unwrap().module, Ok("/lib/adit.so".into()));
    assert_eq!(found(&stores).unwrap().patch_target.kind, "Gateway");
    let own = json!({"parametersRef": {"group": GROUP, "kind": "EnvoyProxy", "name": "own"}});
    let listener = json!({"name": "http", "port": 80, "protocol": "HTTP",
        "allowedRoutes": {"namespaces": {"from": "All"}}});
    let spec = json!({"gatewayClassName": "adit", "infrastructure": own, "listeners": [listener]});
    stores.gateways.lost(DeserializeGuard(Ok(stores
        .gateways
        .any()
        .unwrap()
        .as_ref()
        .clone())));
    put(&stores.gateways, "infra", "edge", json!({ "spec": spec }));
    let missing = found(&stores).unwrap_err();
    assert_eq!(missing.reason, "GatewayNotReady");
    assert!(missing.message.contains("infra/own"), "{}", missing.message);
    // Its own stands instead of its class's…
    put(&stores.envoy_proxies, "infra", "own", json!({"spec": {}}));
    let why = found(&stores).unwrap().module.unwrap_err();
    assert!(
        why.contains("dynamicModules of EnvoyProxy infra/own"),
        "{why}"
    );
    // … unless it says that it is laid over it.
    let own = stores.envoy_proxies.get(&Key::new("infra", "own")).unwrap();
    stores
        .envoy_proxies
        .lost(DeserializeGuard(Ok(own.as_ref().clone())));
    let merged = json!({"spec": {"mergeType": "StrategicMerge"}});
    put(&stores.envoy_proxies, "infra", "own", merged);
    assert_eq!(found(&stores).unwrap().module, Ok("/lib/adit.so".into()));
}

#[test]
fn a_module_without_an_absolute_path_is_none() {
    for path in ["", "adit.so"] {
        let stores = stores(json!({"from": "All"}));
        let proxies = &stores.envoy_proxies;
        proxies.lost(DeserializeGuard(Ok(proxies
            .any()
            .unwrap()
            .as_ref()
            .clone())));
        put(proxies, "system", "shared", lists(path));
        assert!(found(&stores).unwrap().module.is_err(), "{path:?}");
    }
}

#[test]
fn merged_gateways_are_patched_by_their_class() {
    let stores = stores(json!({"from": "All"}));
    let proxies = &stores.envoy_proxies;
    proxies.lost(DeserializeGuard(Ok(proxies
        .any()
        .unwrap()
        .as_ref()
        .clone())));
    let mut merged = lists("/lib/adit.so");
    merged["spec"]["mergeGateways"] = json!(true);
    put(proxies, "system", "shared", merged);
    let target = found(&stores).unwrap().patch_target;
    assert_eq!(
        (target.kind.as_str(), target.name.as_str()),
        ("GatewayClass", "adit")
    );
}

#[test]
fn a_kind_that_the_api_server_does_not_have_is_named() {
    let stores = stores(json!({"from": "All"}));
    stores.patches.set_health(0, Health::Absent);
    let missing = found(&stores).unwrap_err();
    assert!(
        missing.message.contains("EnvoyPatchPolicy"),
        "{}",
        missing.message
    );
    assert!(!missing.withdraw);
}
