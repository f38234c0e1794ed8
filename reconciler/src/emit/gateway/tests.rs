//! The objects that are made: stable, and what the design asks for.

mod names;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use adit_api::envoy_gateway::{CLUSTER_TYPE, LOAD_ASSIGNMENT_TYPE};
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

/// A bad patch on a listener or a route table would freeze it for everybody.
#[test]
fn nothing_but_clusters_and_their_endpoints_is_ever_patched() {
    let mut seen = BTreeSet::new();
    for users in every_user() {
        let setting = Setting { users, ..setting() };
        for bundle in all(&setting).values().flatten() {
            for patch in bundle.patch.iter().flat_map(|p| &p.spec.json_patches) {
                let path = patch.operation.path.clone().expect("a path");
                match patch.type_.as_str() {
                    CLUSTER_TYPE => assert_eq!(patch.operation.op, "add"),
                    LOAD_ASSIGNMENT_TYPE => {
                        assert!(path.starts_with("/endpoints/0/lb_endpoints/0/"))
                    }
                    other => panic!("{other} is patched"),
                }
                assert!(path.len() > 1, "a whole resource is replaced");
                let own = format!(
                    "httproute/default/{}/rule/0/backend/",
                    bundle.route.name_any()
                );
                assert!(patch.name.starts_with(&own), "{} is not ours", patch.name);
                seen.insert(path.split('/').nth(1).expect("a field").to_owned());
            }
        }
    }
    let expected = [
        "circuit_breakers",
        "connect_timeout",
        "endpoints",
        "metadata",
        "transport_socket",
        "typed_extension_protocol_options",
    ];
    assert_eq!(seen, expected.map(str::to_owned).into());
}

fn every_user() -> impl Iterator<Item = Users> {
    (0..8).map(|bits| Users {
        request_timeout: bits & 1 != 0,
        circuit_breakers: bits & 2 != 0,
        http: bits & 4 != 0,
    })
}

#[test]
fn what_a_users_policy_decides_is_left_to_it() {
    let first = |users: Users| {
        let setting = Setting { users, ..setting() };
        let bundles = all(&setting);
        let bundle = &bundles["shared"][0];
        let rule = &bundle.route.spec.rules.as_ref().expect("rules")[0];
        let timeout = rule.timeouts.as_ref().and_then(|t| t.request.clone());
        let patches = &bundle.patch.as_ref().expect("a patch").spec.json_patches;
        let has = |field: &str| {
            let mut paths = patches.iter().filter_map(|p| p.operation.path.as_deref());
            paths.any(|p| p.starts_with(field))
        };
        let options = has("/typed_extension_protocol_options");
        (timeout, has("/circuit_breakers"), options)
    };
    let users = Users::default();
    assert_eq!(first(users), (Some("0s".into()), true, true));
    let decided = Users {
        request_timeout: true,
        circuit_breakers: true,
        http: true,
    };
    assert_eq!(first(decided), (None, false, false));
}

#[test]
fn every_tunnel_is_patched_whole_and_every_plain_backend_not() {
    for bundle in all(&setting()).values().flatten() {
        let patches = bundle.patch.iter().flat_map(|p| &p.spec.json_patches);
        let patches: Vec<_> = patches.collect();
        for (k, backend) in bundle.backends.iter().enumerate() {
            let own = format!("/backend/{k}");
            let of_backend: Vec<_> = patches.iter().filter(|p| p.name.ends_with(&own)).collect();
            let placeholder = backend.spec.endpoints[0]
                .ip
                .as_ref()
                .is_some_and(|ip| ip.address == format!("233.252.0.{}", k + 1));
            assert_eq!(
                of_backend.is_empty(),
                !placeholder,
                "{}",
                backend.name_any()
            );
            if !placeholder {
                continue;
            }
            let value = |field: &str| {
                let found = of_backend
                    .iter()
                    .find(|p| p.operation.path.as_deref() == Some(field));
                found.and_then(|p| p.operation.value.clone()).expect(field)
            };
            assert_eq!(value("/connect_timeout"), "3.500s", "deadline + 1 s");
            assert_eq!(
                value("/endpoints/0/lb_endpoints/0/endpoint/address"),
                json!({"pipe": {"path": "/run/adit/dialer.sock"}})
            );
            let socket = value("/transport_socket");
            assert_eq!(
                socket["typed_config"]["dynamic_module_config"]["module"]["local"]["filename"],
                "/opt/adit/libadit.so"
            );
            let metadata = value("/metadata/filter_metadata/adit");
            assert_eq!(metadata["datum-target-host"], "127.0.0.1");
            assert_eq!(
                metadata["connect"] == true,
                bundle.traffic.is_some(),
                "only a tcp rule serves CONNECT"
            );
        }
    }
}

/// Or Envoy waits 15 s for endpoints that nobody sends.
#[test]
fn a_change_of_the_cluster_is_a_change_of_its_endpoints_too() {
    let endpoints = |setting: &Setting| {
        let bundles = all(setting);
        let policy = bundles["shared"][0].patch.clone().expect("a policy");
        let mut patches = policy.spec.json_patches.into_iter();
        let found = patches.find(|p| {
            let path = p.operation.path.as_deref();
            p.type_ == LOAD_ASSIGNMENT_TYPE && path.is_some_and(|p| p.contains("/metadata/"))
        });
        found
            .and_then(|p| p.operation.value)
            .expect("a fingerprint")
    };
    let moved = Setting {
        module: "/elsewhere/libadit.so".into(),
        ..setting()
    };
    assert_ne!(endpoints(&setting()), endpoints(&moved));
    assert_eq!(endpoints(&setting()), endpoints(&setting()));
}

#[test]
fn a_policy_says_its_targets_twice_and_the_same() {
    let mut tunnels = 0;
    for patch in all(&setting())
        .values()
        .flatten()
        .filter_map(|b| b.patch.as_ref())
    {
        let told = patched_targets(patch).expect("readable");
        assert_eq!(annotated_targets(patch), told);
        assert!(!told.is_empty());
        tunnels += told.len();
    }
    assert!(tunnels >= 7, "{tunnels}");
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
