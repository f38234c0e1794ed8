//! The bytes that are emitted: stable, and what the design asks for.

use std::{path::PathBuf, time::Duration};

use serde_json::{Value, json};

use super::*;
use crate::{
    compile::{Classes, Options, Output, compile},
    source::Directory,
};

/// A directory with every kind of route.
const MANIFESTS: &str = include_str!("../../testdata/all.yaml");

fn setting() -> Setting {
    Setting {
        module: "/opt/adit/libadit.so".into(),
        dialer_socket: "/run/adit/dialer.sock".into(),
        routes_file: "/run/adit/rds.json".into(),
        html_page: None,
        access_log: Some("/dev/stdout".into()),
    }
}

fn all() -> Resources {
    let folder = tempfile::TempDir::new().expect("a folder");
    std::fs::write(folder.path().join("all.yaml"), MANIFESTS).expect("written");
    let scan = Directory::new(folder.path()).scan();
    assert_eq!(scan.diagnostics, [], "the test's manifests are good");
    let options = Options {
        listen: "127.0.0.1:10080".parse().expect("valid"),
        deadline: Duration::from_millis(2500),
        output: Output::Files {
            ca_file: Some(PathBuf::from("/etc/ssl/certs/ca-certificates.crt")),
        },
        classes: Classes::IfAny,
    };
    let compiled = compile(&scan.snapshot, &options);
    resources(&compiled.model, &setting())
}

fn json(resources: &Resources) -> Value {
    json!({
        "listeners": resources.listeners, "routes": resources.routes,
        "clusters": resources.clusters, "dialer": resources.dialer,
    })
}

/// The golden file is written anew with `UPDATE_GOLDEN=1 cargo test -p adit-reconciler`.
#[test]
fn the_bytes_are_those_of_the_golden_file() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/all.json");
    let text = serde_json::to_string_pretty(&json(&all())).expect("serializes") + "\n";
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, &text).expect("written");
    }
    let golden = std::fs::read_to_string(path).expect("the golden file");
    assert!(
        text == golden,
        "testdata/all.json differs; look at `UPDATE_GOLDEN=1 …` and `git diff`"
    );
}

#[test]
fn every_adit_cluster_carries_what_a_tunnel_needs() {
    let all = json(&all());
    let clusters = all["clusters"].as_array().expect("a list");
    let tunnels: Vec<_> = clusters
        .iter()
        .filter(|c| c["transport_socket"]["name"] == "envoy.transport_sockets.dynamic_modules")
        .collect();
    assert!(tunnels.len() >= 4);
    for cluster in tunnels {
        assert_eq!(cluster["connect_timeout"], "3.500s", "deadline + 1 s");
        let address =
            &cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"];
        assert_eq!(address["pipe"]["path"], "/run/adit/dialer.sock");
        let socket = &cluster["transport_socket"]["typed_config"];
        let target = socket["transport_socket_config"]["value"]["target"]
            .as_str()
            .expect("a target");
        let target = adit_wire::Target::from_base64(target).expect("valid");
        let keys = &cluster["metadata"]["filter_metadata"]["adit"];
        assert_eq!(keys["datum-target-host"], target.service.host.to_string());
        assert_eq!(keys["datum-target-port"], target.service.port);
        assert!(cluster.get("outlier_detection").is_none());
        let thresholds = &cluster["circuit_breakers"]["thresholds"][0];
        assert!(thresholds["max_connections"].as_u64() > Some(1024));
    }
    assert!(
        !all["clusters"].to_string().contains("192.0.2.7"),
        "an address of a connector is in Envoy's configuration"
    );
    assert!(!all["clusters"].to_string().contains("relay.example"));
}

#[test]
fn connect_is_allowed_by_tcp_routes_only() {
    let all = json(&all());
    let hosts = all["routes"][0]["virtual_hosts"]
        .as_array()
        .expect("a list");
    let mut tunnels = 0;
    for route in hosts
        .iter()
        .flat_map(|h| h["routes"].as_array().expect("a list"))
    {
        let connects = route["match"].get("connect_matcher").is_some();
        let upgrades = route["route"]["upgrade_configs"]
            == json!([{"upgrade_type": "CONNECT", "connect_config": {}}]);
        let allowed = route["metadata"]["filter_metadata"]["adit"]["connect"] == true;
        if route.get("direct_response").is_none() {
            assert_eq!((upgrades, allowed), (connects, connects), "{route}");
        }
        tunnels += usize::from(connects);
    }
    assert_eq!(tunnels, 1);
}

#[test]
fn a_rule_that_cannot_be_programmed_answers_by_the_module() {
    let all = json(&all());
    let text = all["routes"].to_string();
    assert!(
        text.contains(r#""direct_response":{"status":500}"#),
        "{text}"
    );
    let hosts = all["routes"][0]["virtual_hosts"]
        .as_array()
        .expect("a list");
    let broken = hosts
        .iter()
        .find(|h| h["name"] == "broken.example")
        .expect("a host");
    assert_eq!(
        broken["routes"][0]["metadata"]["filter_metadata"]["adit"],
        json!({"name": "default/broken"})
    );
}

#[test]
fn a_weighted_route_leaves_the_target_to_its_clusters() {
    let all = json(&all());
    let hosts = all["routes"][0]["virtual_hosts"]
        .as_array()
        .expect("a list");
    let shared = hosts
        .iter()
        .find(|h| h["name"] == "shared.example")
        .expect("a host");
    assert!(shared["routes"][0].get("metadata").is_none());
    assert_eq!(
        shared["routes"][0]["route"]["weighted_clusters"]["clusters"][0]["weight"],
        9
    );
}
