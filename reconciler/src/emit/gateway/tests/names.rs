//! What is in a route's name, and what is not.

use super::*;

#[test]
fn names_fit_into_a_label_and_are_one_each() {
    let mut seen = BTreeSet::new();
    let long = "a".repeat(63);
    let mut snapshot = snapshot(MANIFESTS);
    for proxy in &mut snapshot.proxies {
        proxy.metadata.name = Some(format!("{}{}", &long[..62], proxy.name_any().len() % 10));
        for (i, rule) in proxy.spec.rules.iter_mut().enumerate() {
            rule.name = Some(format!("{i}.{long}"));
        }
    }
    let model = compiled(&snapshot).model;
    for proxy in &snapshot.proxies {
        for bundle in bundles(proxy, &model, &setting()) {
            let name = bundle.route.name_any();
            assert!(name.len() <= 63 && !name.contains('.'), "{name}");
            assert!(seen.insert(name.clone()), "{name} twice");
            for value in bundle.route.labels().values() {
                assert!(value.len() <= 63, "{value}");
            }
        }
    }
    assert!(seen.len() >= 10);
}

#[test]
fn a_rule_on_top_renames_nothing() {
    let rule = |path: &str| {
        json!({"matches": [{"path": {"value": path}}],
            "backends": [{"endpoint": "http://127.0.0.1:8080", "connector": {"name": "north"}}]})
    };
    let before = of_rules(json!({"hostnames": ["a.example"], "rules": [rule("/a"), rule("/b")]}));
    let after = of_rules(
        json!({"hostnames": ["a.example"], "rules": [rule("/new"), rule("/b"), rule("/a")]}),
    );
    assert_eq!((before.len(), after.len()), (2, 3));
    assert!(names(&before).is_subset(&names(&after)));
}

#[test]
fn whatever_decides_where_a_request_goes_is_in_the_name() {
    let spec = json!({"hostnames": ["a.example"], "rules": [{
        "name": "all",
        "matches": [{"path": {"value": "/a"}}],
        "filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": ["x-a"]}}],
        "backends": [
            {"endpoint": "http://127.0.0.1:8080", "connector": {"name": "north"}, "weight": 1},
            {"endpoint": "http://plain.example", "weight": 1},
        ],
    }]});
    let name = |change: (&str, Value)| {
        let mut spec = spec.clone();
        if !change.0.is_empty() {
            *spec.pointer_mut(change.0).expect("there") = change.1;
        }
        of_rules(spec)[0].route.name_any()
    };
    let first = name(("", Value::Null));
    for (path, value) in [
        ("/hostnames", json!(["b.example"])),
        ("/rules/0/matches/0/path/value", json!("/b")),
        (
            "/rules/0/backends/0/endpoint",
            json!("h2c://127.0.0.1:8080"),
        ),
        ("/rules/0/backends/0/connector/name", json!("south")),
        (
            "/rules/0/backends/1/endpoint",
            json!("http://other.example"),
        ),
        (
            "/rules/0/backends/1/endpoint",
            json!("https://plain.example"),
        ),
    ] {
        assert_ne!(name((path, value.clone())), first, "{path}: {value}");
    }
    // These change the route in one step, where it is.
    for (path, value) in [
        ("/rules/0/backends/0/weight", json!(9)),
        (
            "/rules/0/filters/0/requestHeaderModifier/remove",
            json!(["x-b"]),
        ),
    ] {
        assert_eq!(name((path, value.clone())), first, "{path}: {value}");
    }
    let elsewhere = Setting {
        gateway: Place {
            namespace: "infra".into(),
            name: "public".into(),
        },
        ..setting()
    };
    assert_ne!(
        names(&all(&elsewhere)["shop"]),
        names(&all(&setting())["shop"])
    );
}

#[test]
fn an_http_proxy_that_is_made_again_has_other_names() {
    let mut snapshot = snapshot(MANIFESTS);
    let model = compiled(&snapshot).model;
    let first = names(&bundles(&snapshot.proxies[0], &model, &setting()));
    snapshot.proxies[0].metadata.uid = Some("another".into());
    let second = names(&bundles(&snapshot.proxies[0], &model, &setting()));
    assert!(first.is_disjoint(&second));
}

/// Where another HTTPProxy was first, a rule has no effect, and only there.
#[test]
fn a_rule_is_split_where_others_have_some_of_its_requests() {
    let mut snapshot = snapshot(MANIFESTS);
    let mut first = snapshot.proxies[0].clone();
    let backend = json!([{"endpoint": "http://127.0.0.1:8080", "connector": {"name": "north"}}]);
    let mut second = first.clone();
    first.spec = serde_json::from_value(json!({"hostnames": ["a.example"], "rules": [
        {"matches": [{"path": {"value": "/x"}}], "backends": backend}]}))
    .expect("well formed");
    second.metadata.name = Some("second".into());
    second.metadata.uid = Some("uid-of-second".into());
    second.spec = serde_json::from_value(json!({"hostnames": ["a.example", "b.example", "c.example"], "rules": [
        {"name": "both", "matches": [{"path": {"value": "/x"}}, {"path": {"value": "/y"}}], "backends": backend}]}))
    .expect("well formed");
    snapshot.proxies = vec![first, second];
    let compiled = compiled(&snapshot);
    assert_eq!(compiled.problems.len(), 1, "{:?}", compiled.problems);
    let found = bundles(&snapshot.proxies[1], &compiled.model, &setting());
    let shown: BTreeSet<_> = found
        .iter()
        .map(|b| {
            let rule = &b.route.spec.rules.as_ref().expect("rules")[0];
            let matches = rule.matches.iter().flatten();
            let paths = matches.filter_map(|m| m.path.as_ref()?.value.clone());
            (
                b.route.spec.hostnames.clone().unwrap_or_default(),
                paths.collect::<Vec<_>>(),
            )
        })
        .collect();
    let texts = |list: &[&str]| list.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
    assert_eq!(
        shown,
        BTreeSet::from([
            (texts(&["a.example"]), texts(&["/y"])),
            (texts(&["b.example", "c.example"]), texts(&["/x", "/y"])),
        ])
    );
    assert_eq!(names(&found).len(), 2);
}
