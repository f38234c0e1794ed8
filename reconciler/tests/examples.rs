//! The examples that are shipped are right.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::{net::SocketAddr, path::Path, time::Duration};

use adit_reconciler::{
    compile::{Classes, Options, Output, compile},
    model::{Model, Transport},
    source::Directory,
};
use adit_wire::Target;

fn model() -> Model {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../envoy/manifests");
    let scan = Directory::new(folder).scan();
    assert_eq!(scan.diagnostics, []);
    let options = Options {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        deadline: Duration::from_secs(5),
        output: Output::Files { ca_file: None },
        classes: Classes::IfAny,
    };
    let compiled = compile(&scan.snapshot, &options);
    assert_eq!(compiled.problems, []);
    compiled.model
}

#[test]
fn the_example_manifests_compile_without_a_word() {
    assert_eq!(model().clusters.len(), 2);
}

#[test]
fn the_bootstrap_by_hand_names_the_target_of_the_manifests() {
    let text = include_str!("../../envoy/standalone.yaml");
    let target = text.lines().find_map(|l| l.trim().strip_prefix("target: "));
    let target = Target::from_base64(target.unwrap()).unwrap();
    let model = model();
    let mut targets = model.clusters.values().filter_map(|c| match &c.transport {
        Transport::Adit(target) => Some(target),
        _ => None,
    });
    assert!(targets.any(|t| *t == target), "{target:?}");
}
