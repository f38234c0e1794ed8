//! Users' policies, by what they are for and what they ask for.

use serde_json::json;

use super::super::{
    GATEWAY_API, bundles,
    tests::{options, setting, snapshot},
};
use super::*;
use crate::compile::compile;

const RULES: &str = r#"{"hostnames": ["a.example"], "rules": [
    {"matches": [{"path": {"value": "/plain"}}], "backends": [{"endpoint": "https://plain.example"}]},
    {"matches": [{"path": {"value": "/web"}}], "backends": [{"endpoint": "http://127.0.0.1:8001", "connector": {"name": "north"}}]},
    {"backends": [{"endpoint": "tcp://127.0.0.1:8002", "connector": {"name": "north"}}]}]}"#;

fn all() -> Vec<Bundle> {
    let mut snapshot = snapshot(include_str!("../rollout/tests/connectors.yaml"));
    let spec: Value = serde_json::from_str(RULES).expect("JSON");
    let proxy = json!({
        "apiVersion": "networking.datumapis.com/v1alpha", "kind": "HTTPProxy",
        "metadata": {"name": "shop", "namespace": "default", "uid": "u"}, "spec": spec,
    });
    snapshot.proxies = vec![serde_json::from_value(proxy).expect("well formed")];
    let model = compile(&snapshot, &options()).model;
    let made = bundles(&snapshot.proxies[0], &model, &setting());
    assert_eq!(made.len(), 3);
    made
}

fn policy<K: serde::de::DeserializeOwned>(kind: &str, spec: Value) -> Arc<K> {
    let object = json!({
        "apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": kind,
        "metadata": {"name": "theirs", "namespace": "default", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": spec,
    });
    Arc::new(serde_json::from_value(object).expect("well formed"))
}

fn traffic(spec: Value) -> Arc<BackendTrafficPolicy> {
    policy("BackendTrafficPolicy", spec)
}

fn found(policies: &Policies<'_>) -> Vec<(bool, String)> {
    let gateway = setting().gateway;
    let overrides = problems(&all(), &gateway, &[], policies);
    overrides
        .into_iter()
        .map(|o| (o.displaces, o.message))
        .collect()
}

/// A BackendTrafficPolicy for the Gateway, for routes by label, for none.
fn scopes() -> [(Value, bool); 6] {
    let gateway = |name: &str| json!({"targetRefs": [{"group": GATEWAY_API, "kind": "Gateway", "name": name}]});
    let label = |value: &str| {
        json!({"targetSelectors": [{"group": GATEWAY_API, "kind": "HTTPRoute",
            "matchLabels": {"networking.datumapis.com/httpproxy": value}}]})
    };
    let name = all()[0].route.name_any();
    [
        (gateway("public"), true),
        (gateway("other"), false),
        (label("shop"), true),
        (label("other"), false),
        (
            json!({"targetRef": {"group": GATEWAY_API, "kind": "HTTPRoute", "name": name}}),
            true,
        ),
        (
            json!({"targetSelectors": [{"kind": "HTTPRoute", "matchExpressions": [
            {"key": "networking.datumapis.com/httpproxy", "operator": "DoesNotExist"}]}]}),
            false,
        ),
    ]
}

#[test]
fn a_users_policy_counts_only_for_what_it_is_for() {
    for (mut spec, covers) in scopes() {
        spec["timeout"] = json!({"http": {"requestTimeout": "5s"}});
        spec["circuitBreaker"] = json!({"maxConnections": 5});
        let list = [traffic(spec.clone())];
        let policies = Policies {
            traffic: &list,
            ..Policies::default()
        };
        let expected = Users {
            request_timeout: covers,
            circuit_breakers: covers,
            http: false,
        };
        assert_eq!(
            users(&all(), &setting().gateway, &policies),
            expected,
            "{spec}"
        );
    }
}

#[test]
fn each_setting_of_http_keeps_our_own_away() {
    for (setting_, http) in [
        (
            json!({"timeout": {"http": {"connectionIdleTimeout": "5s"}}}),
            true,
        ),
        (json!({"useClientProtocol": true}), true),
        (json!({"http2": {}}), true),
        (
            json!({"circuitBreaker": {"maxRequestsPerConnection": 1}}),
            true,
        ),
        (json!({"loadBalancer": {"type": "Random"}}), false),
    ] {
        let mut spec = setting_.clone();
        spec["targetRefs"] = json!([{"group": GATEWAY_API, "kind": "Gateway", "name": "public"}]);
        let list = [traffic(spec)];
        let policies = Policies {
            traffic: &list,
            ..Policies::default()
        };
        assert_eq!(
            users(&all(), &setting().gateway, &policies).http,
            http,
            "{setting_}"
        );
    }
}

#[test]
fn our_own_policies_are_no_users_policies() {
    let bundles = all();
    let ours = bundles
        .iter()
        .find_map(|b| b.traffic.clone())
        .expect("CONNECT");
    let list = [Arc::new(ours)];
    let policies = Policies {
        traffic: &list,
        ..Policies::default()
    };
    assert_eq!(
        users(&bundles, &setting().gateway, &policies),
        Users::default()
    );
    assert_eq!(found(&policies), []);
}

#[test]
fn the_proxy_protocol_displaces_a_tunnel() {
    for (mut spec, covers) in scopes() {
        spec["proxyProtocol"] = json!({"version": "V2"});
        let list = [traffic(spec.clone())];
        let found = found(&Policies {
            traffic: &list,
            ..Policies::default()
        });
        // The first route by name may be one without a tunnel.
        let by_name = spec.get("targetRef").is_some();
        let tunnel = all()[0].patch.is_some();
        let expected = covers && (!by_name || tunnel);
        let told = found
            .iter()
            .any(|(d, m)| *d && m.contains("PROXY protocol"));
        assert_eq!(told, expected, "{spec}: {found:?}");
    }
}

#[test]
fn a_shorter_connect_timeout_is_said_but_does_no_harm() {
    let with = |timeout: &str| {
        let list = [traffic(json!({
            "targetRefs": [{"group": GATEWAY_API, "kind": "Gateway", "name": "public"}],
            "timeout": {"tcp": {"connectTimeout": timeout}},
        }))];
        found(&Policies {
            traffic: &list,
            ..Policies::default()
        })
    };
    let said = with("500ms");
    assert!(
        matches!(said.as_slice(), [(false, m)] if m.contains("3.5s")),
        "{said:?}"
    );
    assert_eq!(with("1m"), []);
    assert_eq!(with("nonsense"), []);
}

#[test]
fn connect_for_a_whole_gateway_takes_the_pages_away() {
    let list = [traffic(json!({
        "targetRefs": [{"group": GATEWAY_API, "kind": "Gateway", "name": "public"}],
        "httpUpgrade": [{"type": "CONNECT"}],
    }))];
    let found = found(&Policies {
        traffic: &list,
        ..Policies::default()
    });
    assert!(
        found.iter().any(|(d, m)| *d && m.contains("CONNECT")),
        "{found:?}"
    );
}

/// Envoy Gateway takes the older of two for one route.
#[test]
fn an_older_policy_for_the_tcp_route_takes_connect_away() {
    let list = [traffic(json!({"targetSelectors": [{"kind": "HTTPRoute",
        "matchLabels": {"networking.datumapis.com/httpproxy": "shop"}}]}))];
    let policies = Policies {
        traffic: &list,
        ..Policies::default()
    };
    assert!(
        found(&policies)
            .iter()
            .any(|(d, m)| *d && m.contains("opens CONNECT"))
    );
}

#[test]
fn tls_around_a_tunnel_is_found_wherever_it_comes_from() {
    let bundles = all();
    let backend = |tunnel: bool| {
        let of = bundles.iter().find(|b| b.patch.is_some() == tunnel);
        of.expect("a route").backends[0].clone()
    };
    let for_backend = |name: String| -> Arc<BackendTlsPolicy> {
        Arc::new(
            serde_json::from_value(json!({
                "apiVersion": "gateway.networking.k8s.io/v1", "kind": "BackendTLSPolicy",
                "metadata": {"name": "theirs", "namespace": "default"},
                "spec": {"targetRefs": [{"group": GROUP, "kind": "Backend", "name": name}],
                    "validation": {"hostname": "a.example", "wellKnownCACertificates": "System"}},
            }))
            .expect("well formed"),
        )
    };
    for tunnel in [true, false] {
        let list = [for_backend(backend(tunnel).name_any())];
        let found = found(&Policies {
            tls: &list,
            ..Policies::default()
        });
        assert_eq!(
            found.iter().any(|(displaces, _)| *displaces),
            tunnel,
            "{found:?}"
        );
    }
    let mut edited = backend(true);
    edited.spec.tls = Some(Default::default());
    let edited = [Arc::new(edited)];
    let found = problems(&bundles, &setting().gateway, &edited, &Policies::default());
    assert!(matches!(found.as_slice(), [o] if o.displaces && o.message.contains("tls")));
}

#[test]
fn an_older_extension_policy_for_our_routes_is_found_a_younger_not() {
    let theirs: Arc<EnvoyExtensionPolicy> = policy(
        "EnvoyExtensionPolicy",
        json!({"targetSelectors": [{"kind": "HTTPRoute",
            "matchLabels": {"networking.datumapis.com/httpproxy": "shop"}}]}),
    );
    let (ours, _) = super::super::extension(&setting().gateway, "adit", &Default::default());
    let aged = |time: &str| {
        let mut ours = ours.clone();
        ours.metadata.creation_timestamp = Some(adit_api::Time(time.parse().expect("a time")));
        Arc::new(ours)
    };
    for (ours, displaced) in [
        (aged("2025-01-01T00:00:00Z"), false),
        (aged("2026-06-01T00:00:00Z"), true),
    ] {
        let list = [theirs.clone(), ours];
        let found = found(&Policies {
            extension: &list,
            ..Policies::default()
        });
        assert_eq!(!found.is_empty(), displaced, "{found:?}");
    }
}

#[test]
fn durations_are_read_as_gateway_api_writes_them() {
    for (text, millis) in [
        ("5s", 5_000),
        ("1m30s", 90_000),
        ("250ms", 250),
        ("1h", 3_600_000),
    ] {
        assert_eq!(duration(text), Some(Duration::from_millis(millis)));
    }
    for text in ["5", "s", "1d", "99999999999999999999s", "1.5s"] {
        assert_eq!(duration(text), None, "{text}");
    }
}
