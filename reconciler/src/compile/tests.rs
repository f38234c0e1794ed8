//! Objects in, routes and problems out: one table for each concern.

use serde_json::{Value, json};

use super::*;
use crate::model::{Transport, UpstreamProtocol};

fn options() -> Options {
    Options {
        listen: "127.0.0.1:0".parse().expect("valid"),
        deadline: Duration::from_secs(5),
        ca_file: None,
        classes: Classes::IfAny,
    }
}

fn read<T: serde::de::DeserializeOwned>(kind: Kind, name: &str, mut value: Value) -> T {
    value["apiVersion"] = kind.api_version().into();
    value["kind"] = kind.as_str().into();
    value["metadata"]["name"] = name.into();
    value["metadata"]["namespace"] = "default".into();
    serde_json::from_value(value).expect("well formed")
}

/// A connector whose key is `byte` repeated.
fn connector(name: &str, byte: u8, change: Value) -> adit_api::networking::Connector {
    let mut value = json!({
        "metadata": {"labels": {"site": "north"}},
        "spec": {"connectorClassName": "datum-connect"},
        "status": {"connectionDetails": {"type": "PublicKey", "publicKey": {"id": format!("{byte:02x}").repeat(32)}}},
    });
    merge(&mut value, change);
    read(Kind::Connector, name, value)
}

fn merge(into: &mut Value, change: Value) {
    match (into, change) {
        (Value::Object(into), Value::Object(change)) => {
            for (key, value) in change {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, change) => *into = change,
    }
}

fn advertises(
    connector: &str,
    address: &str,
    port: u16,
    protocol: &str,
) -> adit_api::networking::ConnectorAdvertisement {
    read(
        Kind::ConnectorAdvertisement,
        connector,
        json!({"spec": {
            "connectorRef": {"name": connector},
            "layer4": [{"name": "a", "services": [{"address": address, "ports": [{"name": "p", "port": port, "protocol": protocol}]}]}],
        }}),
    )
}

fn proxy(name: &str, spec: Value) -> HttpProxy {
    read(Kind::HttpProxy, name, json!({"spec": spec}))
}

/// One rule to one endpoint behind the connector `c`.
fn simple(endpoint: &str) -> HttpProxy {
    proxy(
        "shop",
        json!({"hostnames": ["shop.example"], "rules": [
        {"backends": [{"endpoint": endpoint, "connector": {"name": "c"}}]}]}),
    )
}

fn reasons(compiled: &Compiled) -> Vec<(&'static str, &str)> {
    compiled
        .problems
        .iter()
        .map(|(_, p)| (p.reason.as_str(), p.path.as_str()))
        .collect()
}

fn routes(compiled: &Compiled) -> Vec<String> {
    let ListenerKind::Http(hosts) = &compiled.model.listeners[0].kind;
    let mut shown = Vec::new();
    for host in hosts {
        for route in &host.routes {
            let action = match &route.action {
                Action::Forward { backends, .. } => {
                    let shares = backends.iter().map(|b| {
                        let cluster = &compiled.model.clusters[&b.cluster];
                        let to = match &cluster.transport {
                            Transport::Adit(t) => format!(
                                "{}@{}",
                                t.service,
                                t.connectors
                                    .iter()
                                    .map(|c| c.short())
                                    .collect::<Vec<_>>()
                                    .join("+")
                            ),
                            Transport::Raw(a) => a.to_string(),
                            Transport::Tls { address, .. } => format!("tls {address}"),
                        };
                        format!("{}x{to}", b.weight)
                    });
                    shares.collect::<Vec<_>>().join(" ")
                }
                Action::Redirect(r) => format!("redirect {}", r.status),
                Action::Misconfigured => "misconfigured".into(),
            };
            let host = host.hostname.as_deref().unwrap_or("*");
            shown.push(format!("{host} {} -> {action}", show_match(&route.matches)));
        }
    }
    shown
}

fn one(
    endpoint: &str,
    connector: adit_api::networking::Connector,
    ad: adit_api::networking::ConnectorAdvertisement,
) -> Compiled {
    let snapshot = Snapshot {
        proxies: vec![simple(endpoint)],
        connectors: vec![connector],
        advertisements: vec![ad],
        classes: vec![],
    };
    compile(&snapshot, &options())
}

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
fn schemes_decide_what_envoy_and_the_dialer_speak() {
    for (endpoint, upstream, tls) in [
        ("http://a:80", UpstreamProtocol::Http1, false),
        ("https://a:80", UpstreamProtocol::Http1, true),
        ("h2c://a:80", UpstreamProtocol::Http2, false),
        ("grpc://a:80", UpstreamProtocol::Http2, false),
        ("tcp://a:80", UpstreamProtocol::Bytes, false),
    ] {
        let compiled = one(
            endpoint,
            connector("c", 7, json!({})),
            advertises("c", "a", 80, "TCP"),
        );
        let cluster = compiled.model.clusters.values().next().expect("a cluster");
        assert_eq!(cluster.protocol, upstream, "{endpoint}");
        let Transport::Adit(target) = &cluster.transport else {
            panic!("{endpoint}")
        };
        assert_eq!(
            matches!(target.protocol, adit_wire::Protocol::Tls(_)),
            tls,
            "{endpoint}"
        );
        assert_eq!(target.validate(), Ok(()));
        assert_eq!(
            routes(&compiled)[0].contains("CONNECT"),
            endpoint.starts_with("tcp")
        );
    }
    let compiled = one(
        "udp://a:80",
        connector("c", 7, json!({})),
        advertises("c", "a", 80, "UDP"),
    );
    assert_eq!(
        reasons(&compiled),
        [("UnsupportedProtocol", "spec.rules[0].backends[0].endpoint")]
    );
    assert!(
        compiled.problems[0]
            .1
            .message
            .contains("UDP is not carried yet")
    );
}

#[test]
fn a_backend_without_a_connector_is_a_plain_cluster() {
    let plain = |endpoint: &str, ca: Option<&str>| {
        let snapshot = Snapshot {
            proxies: vec![proxy(
                "p",
                json!({"rules": [{"backends": [{"endpoint": endpoint}]}]}),
            )],
            ..Snapshot::default()
        };
        compile(
            &snapshot,
            &Options {
                ca_file: ca.map(PathBuf::from),
                ..options()
            },
        )
    };
    assert_eq!(
        routes(&plain("http://web:81", None)),
        ["* path /* -> 1xweb:81"]
    );
    assert_eq!(
        routes(&plain("https://web", Some("/ca.pem"))),
        ["* path /* -> 1xtls web:443"]
    );
    assert_eq!(
        routes(&plain("https://web", None)),
        ["* path /* -> misconfigured"]
    );
}

#[test]
fn weights_share_requests_and_a_backend_that_cannot_serve_leaves_its_share_to_the_others() {
    let spec = json!({"rules": [{"backends": [
        {"endpoint": "http://a:1", "weight": 3}, {"endpoint": "http://b:1"},
        {"endpoint": "http://c:1", "weight": 0}, {"endpoint": "http://d:1", "connector": {"name": "none"}},
        {"endpoint": "http://a:1", "weight": 2},
    ]}]});
    let snapshot = Snapshot {
        proxies: vec![proxy("p", spec)],
        ..Snapshot::default()
    };
    let compiled = compile(&snapshot, &options());
    assert_eq!(routes(&compiled), ["* path /* -> 5xa:1 1xb:1"]);
    assert_eq!(
        reasons(&compiled),
        [("ConnectorNotFound", "spec.rules[0].backends[3].connector")]
    );
}

#[test]
fn the_most_specific_match_stands_first() {
    let rule =
        |matches: Value| json!({"matches": matches, "backends": [{"endpoint": "http://a:1"}]});
    let spec = json!({"rules": [
        rule(json!([{"path": {"value": "/"}}, {"path": {"value": "/api/"}, "method": "GET"}])),
        rule(json!([{"path": {"value": "/api"}}, {"path": {"type": "Exact", "value": "/api"}}])),
        rule(json!([{"path": {"type": "RegularExpression", "value": "/a.*"}}])),
        rule(json!([{"path": {"value": "/api"}, "headers": [{"name": "X-B", "value": "1"}, {"name": "x-b", "value": "2"}]}])),
        {"backends": [{"endpoint": "tcp://a:1"}]},
    ]});
    let snapshot = Snapshot {
        proxies: vec![proxy("p", spec)],
        ..Snapshot::default()
    };
    let compiled = compile(&snapshot, &options());
    let shown: Vec<_> = routes(&compiled)
        .iter()
        .map(|r| r.split(" -> ").next().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(
        shown,
        [
            "* CONNECT",
            "* path /api",
            "* path ~ /a.*",
            "* GET path /api/*",
            "* path /api/*, header x-b=1",
            "* path /api/*",
            "* path /*"
        ]
    );
    assert_eq!(reasons(&compiled), []);
}

#[test]
fn the_same_requests_twice_belong_to_the_first_and_the_second_is_told() {
    let spec = |endpoint: &str| json!({"hostnames": ["a.example", "b.example"], "rules": [{"backends": [{"endpoint": endpoint}]}]});
    let mut second = spec("http://second:1");
    second["hostnames"] = json!(["b.example", "c.example"]);
    let snapshot = Snapshot {
        proxies: vec![proxy("one", spec("http://first:1")), proxy("two", second)],
        ..Snapshot::default()
    };
    let compiled = compile(&snapshot, &options());
    assert_eq!(
        routes(&compiled),
        [
            "a.example path /* -> 1xfirst:1",
            "b.example path /* -> 1xfirst:1",
            "c.example path /* -> 1xsecond:1"
        ]
    );
    assert_eq!(reasons(&compiled), [("Conflict", "spec.rules[0]")]);
    assert!(compiled.problems[0].1.message.contains("default/one"));
    assert_eq!(compiled.problems[0].0.name, "two");
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
fn a_clusters_name_says_what_it_reaches_and_nothing_else() {
    let name = |endpoint: &str, change: Value, deadline: u64| {
        let snapshot = Snapshot {
            proxies: vec![simple(endpoint)],
            connectors: vec![connector("c", 7, change)],
            advertisements: vec![advertises("c", "*", 80, "TCP")],
            classes: vec![],
        };
        let options = Options {
            deadline: Duration::from_secs(deadline),
            ..options()
        };
        let model = compile(&snapshot, &options).model;
        model.clusters.into_keys().next().expect("a cluster")
    };
    let base = name("http://a:80", json!({}), 5);
    assert!(base.as_str().starts_with("default/shop/"), "{base}");
    // Where the connector is changes nothing in Envoy.
    let moved = json!({"status": {"connectionDetails": {"publicKey": {"addresses": [{"address": "10.0.0.1", "port": 7}], "homeRelay": "https://r.example"}}}});
    assert_eq!(name("http://a:80", moved, 5), base);
    for other in [
        name("http://b:80", json!({}), 5),
        name("h2c://a:80", json!({}), 5),
        name("tcp://a:80", json!({}), 5),
        name("https://a:80", json!({}), 5),
        name("http://a:80", json!({}), 6),
    ] {
        assert_ne!(other, base);
    }
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

#[test]
fn redirects_and_rewrites_are_taken_over() {
    let spec = json!({"rules": [
        {"matches": [{"path": {"value": "/old"}}], "filters": [{"type": "RequestRedirect", "requestRedirect": {"statusCode": 308, "path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/new/"}}}]},
        {"filters": [{"type": "URLRewrite", "urlRewrite": {"hostname": "in.example", "path": {"type": "ReplaceFullPath", "replaceFullPath": "/x"}}}], "backends": [{"endpoint": "http://a:1"}]},
    ]});
    let snapshot = Snapshot {
        proxies: vec![proxy("p", spec)],
        ..Snapshot::default()
    };
    let compiled = compile(&snapshot, &options());
    let ListenerKind::Http(hosts) = &compiled.model.listeners[0].kind;
    let Action::Redirect(redirect) = &hosts[0].routes[0].action else {
        panic!("a redirect")
    };
    assert_eq!(
        (redirect.status, &redirect.path),
        (308, &Some(crate::model::PathChange::Prefix("/new".into())))
    );
    let Action::Forward { rewrite, .. } = &hosts[0].routes[1].action else {
        panic!("forwarded")
    };
    assert_eq!(rewrite.hostname.as_deref(), Some("in.example"));
    assert_eq!(
        rewrite.path,
        Some(crate::model::PathChange::Full("/x".into()))
    );
}
