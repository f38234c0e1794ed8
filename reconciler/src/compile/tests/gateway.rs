//! What Envoy Gateway's Envoy decides: one CONNECT rule for each name, names
//! of several labels, the system's authorities. And which old targets may
//! still be reached.

use super::*;

fn for_gateway() -> Options {
    Options {
        output: Output::EnvoyGateway,
        ..options()
    }
}

fn with_connector(proxies: Vec<HttpProxy>) -> Snapshot {
    Snapshot {
        proxies,
        connectors: vec![connector("c", 1, json!({}))],
        advertisements: vec![advertises("c", "10.0.0.1", 22, "TCP")],
        classes: vec![],
    }
}

fn tcp(name: &str, header: &str) -> HttpProxy {
    proxy(
        name,
        json!({"hostnames": ["a.example"], "rules": [{
            "matches": [{"headers": [{"name": "x-a", "value": header}]}, {"headers": [{"name": "x-b", "value": header}]}],
            "backends": [{"endpoint": "tcp://10.0.0.1:22", "connector": {"name": "c"}}]}]}),
    )
}

#[test]
fn one_rule_for_connect_has_a_host_name() {
    let snapshot = with_connector(vec![tcp("first", "1"), tcp("second", "2")]);
    let compiled = compile(&snapshot, &for_gateway());
    assert_eq!(
        reasons(&compiled),
        [
            ("Conflict", "spec.rules[0].matches[0]"),
            ("Conflict", "spec.rules[0].matches[1]"),
        ]
    );
    assert_eq!(compiled.problems[0].0.name, "second");
    assert_eq!(
        reasons(&compile(&snapshot, &options())),
        [],
        "our own Envoy tells them apart"
    );
}

#[test]
fn a_name_of_one_label_is_refused_with_what_to_write() {
    let plain = |endpoint: &str| {
        let spec = json!({"rules": [{"backends": [{"endpoint": endpoint}]}]});
        compile(&with_connector(vec![proxy("p", spec)]), &for_gateway())
    };
    let refused = plain("http://cart:8080");
    assert_eq!(
        reasons(&refused),
        [("Unsupported", "spec.rules[0].backends[0].endpoint")]
    );
    let message = &refused.problems[0].1.message;
    assert!(
        message.contains("cart.<namespace>.svc.cluster.local"),
        "{message}"
    );
    assert_eq!(routes(&refused), ["* path /* -> misconfigured"]);
    assert_eq!(reasons(&plain("http://cart.shop.svc.cluster.local")), []);
    assert_eq!(reasons(&plain("http://10.0.0.9")), []);
    assert_eq!(
        reasons(&plain("https://cart.example")),
        [],
        "verified by the system's authorities"
    );
}

/// The API server would refuse the whole route, again and again.
#[test]
fn what_gateway_api_takes_not_is_said_before_it_is_written() {
    let rule = |change: Value| {
        let mut rule =
            json!({"backends": [{"endpoint": "http://10.0.0.1:22", "connector": {"name": "c"}}]});
        merge(&mut rule, change);
        with_connector(vec![proxy("p", json!({"rules": [rule]}))])
    };
    let header = |value: &str| json!({"matches": [{"headers": [{"name": "x-a", "value": value}]}]});
    let set = |value: &str| {
        json!({"filters": [{"type": "ResponseHeaderModifier",
            "responseHeaderModifier": {"set": [{"name": "x-a", "value": value}]}}]})
    };
    let path = |value: &str| json!({"matches": [{"path": {"value": value}}]});
    let rewrite = |path: &str| {
        json!({"filters": [{"type": "URLRewrite", "urlRewrite": {"path":
            {"type": "ReplaceFullPath", "replaceFullPath": path}}}]})
    };
    let query = |name: &str| json!({"matches": [{"queryParams": [{"name": name, "value": "1"}]}]});
    for (change, at) in [
        (header("a  b"), "spec.rules[0].matches[0]"),
        (header("é"), "spec.rules[0].matches[0]"),
        (set("a  b"), "spec.rules[0]"),
        (set(&"%".repeat(2049)), "spec.rules[0]"),
        (path("/ä"), "spec.rules[0].matches[0]"),
        (path("/%2"), "spec.rules[0].matches[0]"),
        (rewrite("/a b"), "spec.rules[0]"),
        (query("a[]"), "spec.rules[0].matches[0]"),
    ] {
        let snapshot = rule(change.clone());
        let compiled = compile(&snapshot, &for_gateway());
        assert_eq!(reasons(&compiled), [("Unsupported", at)], "{change}");
        assert_eq!(reasons(&compile(&snapshot, &options())), [], "{change}");
        let mut routes = routes(&compiled).into_iter();
        assert!(routes.all(|r| r.ends_with("misconfigured")), "{change}");
    }
    for change in [
        header("a b"),
        set("a\tb"),
        set(&"%".repeat(2048)),
        path("/%C3%A4/~x"),
        rewrite("/a"),
        query("a_b"),
    ] {
        let compiled = compile(&rule(change.clone()), &for_gateway());
        assert_eq!(reasons(&compiled), [], "{change}");
    }
}

/// A connector's own names are the connector's business.
#[test]
fn a_name_of_one_label_behind_a_connector_is_fine() {
    let mut snapshot = with_connector(vec![simple("http://cart:8080")]);
    snapshot.advertisements = vec![advertises("c", "cart", 8080, "TCP")];
    assert_eq!(reasons(&compile(&snapshot, &for_gateway())), []);
}

#[test]
fn an_old_target_is_permitted_as_long_as_it_would_be_taken_now() {
    let snapshot = with_connector(vec![simple("http://10.0.0.1:22")]);
    let options = for_gateway();
    let target = compile(&snapshot, &options).model.targets()[0].clone();
    let allowed = |snapshot: &Snapshot| Permits::of(snapshot, &options).allows("default", &target);
    assert!(allowed(&snapshot));
    assert!(
        !Permits::of(&snapshot, &options).allows("other", &target),
        "another namespace"
    );
    type Change = fn(&mut Snapshot);
    let changes: [Change; 5] = [
        |s| s.connectors.clear(),
        |s| s.advertisements.clear(),
        |s| s.advertisements = vec![advertises("c", "10.0.0.1", 23, "TCP")],
        |s| s.connectors = vec![connector("c", 2, json!({}))],
        |s| {
            let disabled = json!({"spec": {"capabilities": [{"type": "ConnectTCP", "connectTCP": {"disabled": true}}]}});
            s.connectors = vec![connector("c", 1, disabled)];
        },
    ];
    for (i, change) in changes.into_iter().enumerate() {
        let mut snapshot = snapshot.clone();
        change(&mut snapshot);
        assert!(!allowed(&snapshot), "change {i}");
    }
    // An unrelated change of what is wanted takes nothing away.
    let mut other = snapshot.clone();
    other.proxies.clear();
    assert!(allowed(&other));
}

/// The same work for each object, however many there are: ten times the
/// objects make ten times the routes, and no list is searched for each.
#[test]
fn many_proxies_on_one_name_keep_their_routes_and_order() {
    let proxies = (0..2_000).map(|i| {
        proxy(
            &format!("p{i:04}"),
            json!({"hostnames": ["a.example"], "rules": [{
                "matches": [{"path": {"value": format!("/{i:04}")}}],
                "backends": [{"endpoint": "http://10.0.0.1:22", "connector": {"name": format!("c{}", i % 200)}}]}]}),
        )
    });
    let connectors = (0..200u8).map(|i| connector(&format!("c{i}"), i, json!({})));
    let advertisements = (0..200).map(|i| advertises(&format!("c{i}"), "10.0.0.1", 22, "TCP"));
    let snapshot = Snapshot {
        proxies: proxies.collect(),
        connectors: connectors.collect(),
        advertisements: advertisements.collect(),
        classes: vec![],
    };
    let compiled = compile(&snapshot, &for_gateway());
    assert_eq!(compiled.problems, []);
    assert_eq!(routes(&compiled).len(), 2_000);
}
