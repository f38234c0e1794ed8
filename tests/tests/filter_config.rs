//! What Envoy is told about the module is checked when Envoy loads it: a wrong
//! configuration fails `envoy --mode validate` with our reason in one line.
//!
//! | where | wrong how |
//! |---|---|
//! | transport socket | no target, not base64, not a Target, unknown key, another name, on a listener |
//! | filter | unknown key, unknown place in the page, another name |
//! | filter on a route | unknown key |

use std::path::Path;

use adit_tests::{
    binaries,
    envoy::{self, validate},
    filter_stage::{self as stage, target},
};
use anyhow::{Result, ensure};
use serde_json::{Value, json};

struct Case {
    name: &'static str,
    /// In Envoy's output, on one line with "adit:".
    reason: &'static str,
    resources: Value,
}

fn resources(module: &Path) -> Value {
    let socket = Path::new("/nowhere/dialer.sock");
    json!({
        "listeners": [stage::listener(module, &[stage::host("a")])],
        "clusters": [stage::cluster(module, "a", socket, &target("a"), false)],
    })
}

fn cases(module: &Path) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |name, reason, change: &dyn Fn(&mut Value)| {
        let mut resources = resources(module);
        change(&mut resources);
        cases.push(Case {
            name,
            reason,
            resources,
        });
    };
    let socket = |config: Value| {
        let socket = stage::transport_socket(module, config);
        move |r: &mut Value| r["clusters"][0]["transport_socket"] = socket.clone()
    };
    add("no target", "missing field `target`", &socket(json!({})));
    add("no base64", "not base64", &socket(json!({"target": "%"})));
    add(
        "no Target",
        "the key target",
        &socket(json!({"target": "AAAA"})),
    );
    add(
        "unknown key",
        "unknown field `relay`",
        &socket(json!({"target": target("a").to_base64(), "relay": "x"})),
    );
    add("another name", "has only", &|r| {
        r["clusters"][0]["transport_socket"]["typed_config"]["transport_socket_name"] =
            json!("iroh");
    });
    add("on a listener", "belongs on a cluster", &|r| {
        let config = json!({"target": target("a").to_base64()});
        r["listeners"][0]["filter_chains"][0]["transport_socket"] =
            stage::transport_socket(module, config);
    });
    let http = |filter: Value| {
        move |r: &mut Value| {
            r["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
                [0] = filter.clone();
        }
    };
    add(
        "filter: unknown key",
        "unknown field `page`",
        &http(stage::filter(module, json!({"page": ""}))),
    );
    add(
        "filter: unknown place",
        "{{staus}}",
        &http(stage::filter(module, json!({"html_page": "{{staus}}"}))),
    );
    let mut other = stage::filter(module, json!({}));
    other["typed_config"]["filter_name"] = json!("datum");
    add("filter: another name", "has only", &http(other));
    add("route: unknown key", "unknown field", &|r| {
        let hosts = &mut r["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]["route_config"]
            ["virtual_hosts"];
        hosts[0]["routes"][1]["typed_per_filter_config"] =
            stage::route_filter(module, json!({"pages": 1}));
    });
    cases
}

fn check(version: &str) -> Result<()> {
    let module = binaries::module()?;
    let dir = tempfile::tempdir()?;
    let output = envoy::validate(version, dir.path(), &resources(&module), &[])?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "a good configuration: {text}");

    for case in cases(&module) {
        let output = validate(version, dir.path(), &case.resources, &[])?;
        let text = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success(), "{}: accepted", case.name);
        let lines: Vec<_> = text.lines().filter(|l| l.contains("] adit: ")).collect();
        ensure!(
            lines.len() == 1 && lines[0].contains(case.reason) && lines[0].contains("[error]"),
            "{}: not {:?} in one line: {text}",
            case.name,
            case.reason
        );
    }
    Ok(())
}

mod a_wrong_configuration_is_refused_with_a_reason_when_it_is_loaded {
    #[test]
    fn envoy_1_39() {
        super::check("1.39.3").unwrap();
    }

    #[test]
    fn envoy_1_40() {
        super::check("1.40.0").unwrap();
    }
}

#[test]
fn the_first_release_of_1_39_loads_the_module_too() {
    let module = binaries::module().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let output = validate("1.39.0", dir.path(), &resources(&module), &[]).unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
}
