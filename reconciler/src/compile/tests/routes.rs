//! What rules become.

use serde_json::{Value, json};

use super::*;
use crate::model::{Transport, UpstreamProtocol};

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
                output: Output::Files {
                    ca_file: ca.map(PathBuf::from),
                },
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
