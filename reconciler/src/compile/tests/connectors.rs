//! Which connectors serve, and why the others do not.

use serde_json::{Value, json};

use super::*;

#[test]
fn an_advertised_endpoint_becomes_a_route_and_others_answer_misconfigured() {
    for (endpoint, address, port, protocol, ok) in [
        ("http://127.0.0.1:80", "127.0.0.1", 80, "TCP", true),
        ("http://127.0.0.1:80", "::ffff:127.0.0.1", 80, "tcp", true),
        ("http://Web.Internal:80", "web.internal.", 80, "TCP", true),
        ("http://web.internal:80", "*", 80, "TCP", true),
        ("http://10.0.0.1:80", "*", 80, "TCP", true),
        ("http://a.b.internal:80", "*.internal", 80, "TCP", true),
        ("http://a.internal:80", "*.INTERNAL", 80, "TCP", true),
        ("http://internal:80", "*.internal", 80, "TCP", false),
        ("http://notinternal:80", "*.internal", 80, "TCP", false),
        ("http://x.notinternal:80", "*.internal", 80, "TCP", false),
        ("http://127.0.0.1:81", "127.0.0.1", 80, "TCP", false),
        ("http://127.0.0.1:80", "127.0.0.1", 80, "UDP", false),
        ("http://127.0.0.2:80", "127.0.0.1", 80, "TCP", false),
        ("http://localhost:80", "127.0.0.1", 80, "TCP", false),
    ] {
        let compiled = one(
            endpoint,
            connector("c", 7, json!({})),
            advertises("c", address, port, protocol),
        );
        let misconfigured = routes(&compiled)[0].ends_with("misconfigured");
        assert_eq!(misconfigured, !ok, "{endpoint} {address}:{port}/{protocol}");
        let expected: &[_] = if ok {
            &[]
        } else {
            &[("NotAdvertised", "spec.rules[0].backends[0].connector")]
        };
        assert_eq!(reasons(&compiled), expected, "{endpoint} {address}");
    }
}

#[test]
fn a_connector_that_cannot_serve_says_why() {
    let condition = json!({"type": "Ready", "status": "False", "reason": "Denied", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    for (change, reason) in [
        (
            json!({"spec": {"capabilities": [{"type": "ConnectTCP", "connectTCP": {"disabled": true}}]}}),
            "CapabilityDisabled",
        ),
        (
            json!({"status": {"capabilities": [{"type": "ConnectTCP", "conditions": [condition]}]}}),
            "CapabilityDisabled",
        ),
        (json!({"status": null}), "ConnectorNotReady"),
    ] {
        let compiled = one(
            "http://127.0.0.1:80",
            connector("c", 7, change),
            advertises("c", "*", 80, "TCP"),
        );
        assert_eq!(
            reasons(&compiled),
            [(reason, "spec.rules[0].backends[0].connector")]
        );
        assert_eq!(routes(&compiled), ["shop.example path /* -> misconfigured"]);
    }
    let compiled = one(
        "http://127.0.0.1:80",
        connector("other", 7, json!({})),
        advertises("c", "*", 80, "TCP"),
    );
    assert_eq!(
        reasons(&compiled),
        [
            ("ConnectorNotFound", "spec.connectorRef.name"),
            ("ConnectorNotFound", "spec.rules[0].backends[0].connector")
        ]
    );
}

#[test]
fn a_class_must_exist_once_classes_are_used() {
    let mut snapshot = Snapshot {
        proxies: vec![simple("http://127.0.0.1:80")],
        connectors: vec![connector("c", 7, json!({}))],
        advertisements: vec![advertises("c", "*", 80, "TCP")],
        classes: vec![read(Kind::ConnectorClass, "other", json!({"spec": {}}))],
    };
    assert_eq!(
        reasons(&compile(&snapshot, &options()))[0].0,
        "ConnectorClassNotFound"
    );
    snapshot.classes.push(read(
        Kind::ConnectorClass,
        "datum-connect",
        json!({"spec": {}}),
    ));
    assert_eq!(reasons(&compile(&snapshot, &options())), []);
    snapshot.classes.clear();
    let strict = Options {
        classes: Classes::Required,
        ..options()
    };
    assert_eq!(
        reasons(&compile(&snapshot, &strict))[0].0,
        "ConnectorClassNotFound"
    );
}

#[test]
fn a_selector_takes_all_matches_the_oldest_first_then_by_name() {
    let dated = |time: &str| json!({"metadata": {"creationTimestamp": time}});
    let by = |selector: Value| {
        let spec = json!({"rules": [{"backends": [{"endpoint": "http://a:80", "connector": {"selector": selector}}]}]});
        let connectors = vec![
            connector("young", 1, dated("2026-03-01T00:00:00Z")),
            connector("b", 2, json!({})),
            connector("a", 3, json!({})),
            connector("old", 4, dated("2026-01-01T00:00:00Z")),
            connector(
                "elsewhere",
                5,
                json!({"metadata": {"labels": {"site": "south"}}}),
            ),
            connector("silent", 6, json!({})),
        ];
        let names = ["young", "a", "b", "old", "elsewhere"];
        let snapshot = Snapshot {
            proxies: vec![proxy("shop", spec)],
            advertisements: names.map(|n| advertises(n, "a", 80, "TCP")).into(),
            connectors,
            classes: vec![],
        };
        compile(&snapshot, &options())
    };
    let compiled = by(json!({"matchLabels": {"site": "north"}}));
    assert_eq!(
        routes(&compiled),
        ["* path /* -> 1xa:80@0404040404+0101010101+0303030303+0202020202"]
    );
    assert_eq!(
        reasons(&compiled),
        [("NotAdvertised", "spec.rules[0].backends[0].connector")]
    );
    assert_eq!(compiled.problems[0].1.severity, adit_api::Severity::Warning);
    let hints: Vec<_> = compiled
        .model
        .connectors
        .iter()
        .map(|c| c.endpoint_id.short())
        .collect();
    assert_eq!(
        hints,
        ["0101010101", "0202020202", "0303030303", "0404040404"]
    );

    let expression = |operator: &str, values: Value| json!({"matchExpressions": [{"key": "site", "operator": operator, "values": values}]});
    for (selector, expected) in [
        (expression("In", json!(["south"])), "1xa:80@0505050505"),
        (expression("NotIn", json!(["north"])), "1xa:80@0505050505"),
        (expression("DoesNotExist", json!([])), "misconfigured"),
        (json!({"matchLabels": {"site": "west"}}), "misconfigured"),
    ] {
        assert_eq!(
            routes(&by(selector.clone())),
            [format!("* path /* -> {expected}")],
            "{selector}"
        );
    }
}

#[test]
fn the_same_objects_in_another_order_give_the_same_model() {
    let snapshot = Snapshot {
        proxies: vec![simple("http://127.0.0.1:80")],
        connectors: vec![connector("c", 7, json!({})), connector("d", 8, json!({}))],
        advertisements: vec![
            advertises("c", "*", 80, "TCP"),
            advertises("d", "*", 80, "TCP"),
        ],
        classes: vec![],
    };
    let mut turned = snapshot.clone();
    turned.connectors.reverse();
    turned.advertisements.reverse();
    assert_eq!(
        compile(&snapshot, &options()).model,
        compile(&turned, &options()).model
    );
}

#[test]
fn two_connectors_with_one_key_give_the_dialer_one_hint() {
    let at = |address: &str| json!({"status": {"connectionDetails": {"publicKey": {"addresses": [{"address": address, "port": 7}]}}}});
    let spec = json!({"rules": [{"backends": [{"endpoint": "http://a:80", "connector": {"selector": {"matchLabels": {"site": "north"}}}}]},
        {"matches": [{"path": {"value": "/b"}}], "backends": [{"endpoint": "http://a:80", "connector": {"name": "d"}}]}]});
    let snapshot = Snapshot {
        proxies: vec![proxy("p", spec)],
        connectors: vec![
            connector("c", 7, at("10.0.0.1")),
            connector("d", 7, at("10.0.0.2")),
        ],
        advertisements: vec![
            advertises("c", "*", 80, "TCP"),
            advertises("d", "*", 80, "TCP"),
        ],
        classes: vec![],
    };
    let compiled = compile(&snapshot, &options());
    assert_eq!(routes(&compiled)[1], "* path /* -> 1xa:80@0707070707");
    let [hint] = compiled.model.connectors.as_slice() else {
        panic!("one hint")
    };
    let addresses: Vec<_> = hint.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["10.0.0.1:7", "10.0.0.2:7"]);
}
