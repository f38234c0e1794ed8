//! The objects that are made: stable, and what the design asks for.

mod names;
mod patches;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde_json::{Value, json};

use super::*;
use crate::{
    Snapshot,
    compile::{Classes, Compiled, Options, Output, compile},
    source::Directory,
};

/// A directory with every kind of route.
const MANIFESTS: &str = include_str!("../../../testdata/all.yaml");

pub(super) fn options() -> Options {
    Options {
        listen: "127.0.0.1:0".parse().expect("valid"),
        deadline: Duration::from_millis(2500),
        output: Output::EnvoyGateway,
        classes: Classes::IfAny,
    }
}

pub(super) fn setting() -> Setting {
    Setting {
        gateway: Place {
            namespace: "default".into(),
            name: "public".into(),
        },
        patch_target: TargetRef {
            group: GATEWAY_API.into(),
            kind: "Gateway".into(),
            name: "public".into(),
            section_name: None,
        },
        module: "/opt/adit/libadit.so".into(),
        dialer_socket: "/run/adit/dialer.sock".into(),
        users: Users::default(),
    }
}

/// The objects of some manifests, each proxy with a UID.
pub(super) fn snapshot(manifests: &str) -> Snapshot {
    let folder = tempfile::TempDir::new().expect("a folder");
    std::fs::write(folder.path().join("all.yaml"), manifests).expect("written");
    let scan = Directory::new(folder.path()).scan();
    assert_eq!(scan.diagnostics, [], "the test's manifests are good");
    let mut snapshot = scan.snapshot;
    for proxy in &mut snapshot.proxies {
        proxy.metadata.uid = Some(format!("uid-of-{}", proxy.name_any()));
    }
    snapshot
}

fn compiled(snapshot: &Snapshot) -> Compiled {
    compile(snapshot, &options())
}

/// The bundles of each proxy.
fn all(setting: &Setting) -> BTreeMap<String, Vec<Bundle>> {
    let snapshot = snapshot(MANIFESTS);
    let model = compiled(&snapshot).model;
    let proxies = snapshot.proxies.iter();
    proxies
        .map(|p| (p.name_any(), bundles(p, &model, setting)))
        .collect()
}

/// The bundles of one proxy with these rules, in a namespace with the
/// connector `north`.
fn of_rules(spec: Value) -> Vec<Bundle> {
    let mut snapshot = snapshot(MANIFESTS);
    let mut proxy = snapshot.proxies[0].clone();
    proxy.spec = serde_json::from_value(spec).expect("well formed");
    snapshot.proxies = vec![proxy];
    bundles(&snapshot.proxies[0], &compiled(&snapshot).model, &setting())
}

fn names(bundles: &[Bundle]) -> BTreeSet<String> {
    bundles.iter().map(|b| b.route.name_any()).collect()
}

fn json_of(bundle: &Bundle) -> Value {
    json!({
        "route": bundle.route, "backends": bundle.backends,
        "traffic": bundle.traffic, "patch": bundle.patch,
    })
}

/// The golden file is written anew with `UPDATE_GOLDEN=1 cargo test -p adit-reconciler`.
#[test]
fn the_objects_are_those_of_the_golden_file() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/gateway.json");
    let snapshot = snapshot(MANIFESTS);
    let elsewhere = BTreeSet::from(["default".to_owned(), "shops".to_owned()]);
    let (policy, grants) = extension(&setting().gateway, "adit", &elsewhere);
    let bundles: BTreeMap<_, Vec<_>> = all(&setting())
        .into_iter()
        .map(|(name, list)| (name, list.iter().map(json_of).collect()))
        .collect();
    let found = json!({
        "bundles": bundles, "extension": policy, "grants": grants,
        "gateway": made_gateway(&snapshot.proxies[0], "adit"),
    });
    let text = serde_json::to_string_pretty(&found).expect("serializes") + "\n";
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, &text).expect("written");
    }
    let golden = std::fs::read_to_string(path).expect("the golden file");
    assert!(
        text == golden,
        "testdata/gateway.json differs; look at `UPDATE_GOLDEN=1 …` and `git diff`"
    );
}

#[test]
fn each_backend_reference_removes_what_only_envoy_says() {
    for bundle in all(&setting()).values().flatten() {
        let rules = bundle.route.spec.rules.iter().flatten();
        for reference in rules.flat_map(|r| r.backend_refs.iter().flatten()) {
            let filters = reference.filters.as_ref().expect("filters");
            let modifier = filters
                .iter()
                .find_map(|f| f.request_header_modifier.as_ref());
            let removed = modifier.and_then(|m| m.remove.clone()).expect("names");
            assert!(removed.contains(&"datum-node-id".to_owned()));
            assert!(removed.len() <= 16);
        }
    }
}

#[test]
fn a_full_list_of_header_names_stays_within_gateway_apis_limit() {
    let names: Vec<_> = (0..16).map(|i| format!("x-{i}")).collect();
    let bundles = of_rules(json!({"rules": [{"backends": [{
        "endpoint": "http://127.0.0.1:8080", "connector": {"name": "north"},
        "filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": names}}],
    }]}]}));
    let rule = &bundles[0].route.spec.rules.as_ref().expect("rules")[0];
    let reference = &rule.backend_refs.as_ref().expect("a backend")[0];
    let filters = reference.filters.as_ref().expect("filters");
    let modifier = filters[0].request_header_modifier.as_ref().expect("one");
    assert_eq!(modifier.remove, Some(names));
}

#[test]
fn a_rule_that_cannot_be_programmed_keeps_its_requests_to_itself() {
    let all = all(&setting());
    let [broken] = all["broken"].as_slice() else {
        panic!("one rule")
    };
    let rule = &broken.route.spec.rules.as_ref().expect("rules")[0];
    assert_eq!(rule.backend_refs, None, "Envoy Gateway answers 500");
    assert!(broken.patch.is_none() && broken.backends.is_empty());
    assert_eq!(broken.route.labels().get(TUNNEL_LABEL), None);
}

#[test]
fn objects_in_another_namespace_have_labels_instead_of_an_owner() {
    let elsewhere = Setting {
        gateway: Place {
            namespace: "infra".into(),
            name: "public".into(),
        },
        ..setting()
    };
    let mut policies = 0;
    for bundle in all(&elsewhere).values().flatten() {
        let owner = bundle.route.owner_references();
        assert_eq!(owner.len(), 1);
        assert_eq!(
            (owner[0].controller, owner[0].block_owner_deletion),
            (Some(true), None)
        );
        let name = bundle.route.name_any();
        if let Some(patch) = &bundle.patch {
            policies += 1;
            assert_eq!(patch.namespace().as_deref(), Some("infra"));
            assert!(patch.owner_references().is_empty());
            assert!(is_ours(patch, &owner[0].uid));
            assert_eq!(patch.labels().get(ROUTE_LABEL), Some(&name));
            assert!(patch.name_any().len() <= 63, "{}", patch.name_any());
        }
    }
    assert!(policies >= 4);
}

#[test]
fn the_same_input_gives_the_same_bytes_and_any_change_another_hash() {
    let bytes = |list: &[Bundle]| list.iter().map(json_of).collect::<Vec<_>>();
    let (once, again) = (all(&setting()), all(&setting()));
    assert_eq!(bytes(&once["shop"]), bytes(&again["shop"]));
    let mut route = once["shop"][0].route.clone();
    let hash = route.annotations().get(HASH_ANNOTATION).cloned();
    assert_eq!(
        hash,
        Some(content_hash(&route)),
        "the hash leaves itself out"
    );
    route.labels_mut().insert("a".into(), "b".into());
    assert_ne!(hash, Some(content_hash(&route)));
}
