//! Changes that a person makes to an HTTPProxy.

use serde_json::{Value, json};

pub(super) fn rule(path: &str, endpoint: &str) -> Value {
    json!({"matches": [{"path": {"value": path}}],
        "backends": [{"endpoint": endpoint, "connector": {"name": "north"}}]})
}

pub(super) fn on(hosts: &[&str], rules: &[Value]) -> Value {
    json!({"hostnames": hosts, "rules": rules})
}

pub(super) const A: &str = "http://127.0.0.1:8001";
pub(super) const B: &str = "http://127.0.0.1:8002";
pub(super) const C: &str = "http://127.0.0.1:8003";
/// Nobody advertises it: the rule is misconfigured.
pub(super) const BAD: &str = "http://127.0.0.1:9";

/// Changes of one HTTPProxy.
pub(super) fn scenes() -> Vec<(&'static str, Vec<Value>)> {
    let a = &["a.example"];
    let named = |name: &str, mut rule: Value| {
        rule["name"] = name.into();
        rule
    };
    let shares = |first: i32, second: i32| {
        json!({"matches": [{"path": {"value": "/"}}], "backends": [
            {"endpoint": A, "connector": {"name": "north"}, "weight": first},
            {"endpoint": "http://plain.example", "weight": second},
        ]})
    };
    let many = |list: &[&str], endpoint: &str| {
        let matches: Vec<_> = list.iter().map(|p| json!({"path": {"value": p}})).collect();
        json!({"matches": matches, "backends": [{"endpoint": endpoint, "connector": {"name": "north"}}]})
    };
    vec![
        ("nothing to something", vec![on(a, &[rule("/", A)])]),
        (
            "the endpoint changes",
            vec![on(a, &[rule("/", A)]), on(a, &[rule("/", B)])],
        ),
        (
            "a named rule's endpoint changes",
            vec![
                on(a, &[named("x", rule("/", A))]),
                on(a, &[named("x", rule("/", B))]),
            ],
        ),
        (
            "a rule is inserted on top",
            vec![
                on(a, &[rule("/", A)]),
                on(a, &[rule("/b", B), rule("/", A)]),
            ],
        ),
        (
            "a rule is removed",
            vec![
                on(a, &[rule("/b", B), rule("/", A)]),
                on(a, &[rule("/", A)]),
            ],
        ),
        (
            "two of three nested rules are removed",
            vec![
                on(a, &[rule("/b/c", A), rule("/b", B), rule("/", A)]),
                on(a, &[rule("/", A)]),
            ],
        ),
        (
            "nested rules come",
            vec![
                on(a, &[rule("/", A)]),
                on(a, &[rule("/b", B), rule("/b/c", A), rule("/", A)]),
            ],
        ),
        (
            "a plain rule comes around a tunnel",
            vec![
                on(a, &[rule("/", A)]),
                on(
                    a,
                    &[
                        rule("/b/c", B),
                        json!({"matches": [{"path": {"value": "/b"}}], "backends": [{"endpoint": "http://plain.example"}]}),
                        rule("/", A),
                    ],
                ),
            ],
        ),
        (
            "two rules change places",
            vec![
                on(a, &[named("x", rule("/a", A)), named("y", rule("/b", B))]),
                on(a, &[named("y", rule("/a", B)), named("x", rule("/b", A))]),
            ],
        ),
        (
            "the order of rules changes",
            vec![
                on(a, &[rule("/a", A), rule("/", B)]),
                on(a, &[rule("/", B), rule("/a", A)]),
            ],
        ),
        (
            "everything changes at once",
            vec![
                on(a, &[rule("/b/c", A), rule("/b", B), rule("/", C)]),
                on(a, &[rule("/b/c", B), rule("/b", C), rule("/", A)]),
            ],
        ),
        (
            "host names come and go",
            vec![
                on(&["a.example", "b.example"], &[rule("/b", B), rule("/", A)]),
                on(&["b.example", "c.example"], &[rule("/b", B), rule("/", A)]),
            ],
        ),
        (
            "weights change",
            vec![on(a, &[shares(1, 9)]), on(a, &[shares(9, 1)])],
        ),
        (
            "a tunnel becomes plain and back",
            vec![
                on(a, &[rule("/", A)]),
                on(
                    a,
                    &[json!({"backends": [{"endpoint": "http://plain.example"}]})],
                ),
                on(a, &[rule("/", A)]),
            ],
        ),
        (
            "a rule breaks and is mended",
            vec![
                on(a, &[rule("/b", B), rule("/", A)]),
                on(a, &[rule("/b", BAD), rule("/", A)]),
                on(a, &[rule("/b", C), rule("/", A)]),
            ],
        ),
        (
            "CONNECT moves beside pages",
            vec![
                on(a, &[rule("/", A), rule("/", "tcp://127.0.0.1:8004")]),
                on(a, &[rule("/", A), rule("/", "tcp://127.0.0.1:8005")]),
            ],
        ),
        (
            "a rule with several matches moves",
            vec![
                on(a, &[many(&["/x", "/y"], A), rule("/", B)]),
                on(a, &[many(&["/x", "/y"], C), rule("/", B)]),
            ],
        ),
        (
            "a change of mind, and back",
            vec![
                on(a, &[rule("/b", B), rule("/", A)]),
                on(a, &[rule("/b", C), rule("/", B)]),
                on(a, &[rule("/b", B), rule("/", A)]),
            ],
        ),
        (
            "everything goes",
            vec![on(a, &[rule("/b", B), rule("/", A)]), on(a, &[])],
        ),
    ]
}
