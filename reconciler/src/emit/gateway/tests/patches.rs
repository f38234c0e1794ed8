//! The policies: what they patch, and what they leave alone.

use std::collections::BTreeSet;

use adit_api::envoy_gateway::{CLUSTER_TYPE, LOAD_ASSIGNMENT_TYPE};
use serde_json::json;

use super::*;

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
                        // Else the placeholder would stay beside it.
                        assert_eq!(patch.operation.op, "replace");
                        assert_eq!(path, "/endpoints/0/lb_endpoints/0");
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
            let endpoint = value("/endpoints/0/lb_endpoints/0");
            assert_eq!(
                endpoint["endpoint"],
                json!({"address": {"pipe": {"path": "/run/adit/dialer.sock"}}})
            );
            assert_eq!(endpoint["load_balancing_weight"], 1);
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

/// Each costs Envoy Gateway about a tenth of a millisecond in every translation.
#[test]
fn a_tunnel_takes_six_patches_and_the_large_ones_come_last() {
    for bundle in &all(&setting())["shared"] {
        let patches = &bundle.patch.as_ref().expect("a policy").spec.json_patches;
        assert_eq!(patches.len() % 6, 0);
        for tunnel in patches.chunks(6) {
            assert!(tunnel.iter().all(|p| p.name == tunnel[0].name));
            let paths = tunnel.iter().filter_map(|p| p.operation.path.as_deref());
            let fields: Vec<_> = paths.filter_map(|p| p.split('/').nth(1)).collect();
            let expected = [
                "connect_timeout",
                "circuit_breakers",
                "metadata",
                "typed_extension_protocol_options",
                "transport_socket",
                "endpoints",
            ];
            assert_eq!(fields, expected);
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
        let found = patches.find(|p| p.type_ == LOAD_ASSIGNMENT_TYPE);
        let endpoint = found.and_then(|p| p.operation.value).expect("an endpoint");
        let fingerprint = endpoint.pointer("/metadata/filter_metadata/adit/cluster");
        fingerprint.cloned().expect("a fingerprint")
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
