//! From manifests to a model and on to Envoy's configuration: what happens on
//! every change of any object. It must stay proportional to the number of
//! proxies.

#![allow(clippy::unwrap_used, missing_docs)]

use std::{fs, hint::black_box, time::Duration};

use adit_reconciler::{
    Snapshot,
    compile::{Classes, Options, Output, compile},
    source::dir::Directory,
};
use adit_tests::manifests::{self, Backend};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

fn options() -> Options {
    Options {
        listen: "127.0.0.1:8080".parse().unwrap(),
        deadline: Duration::from_secs(10),
        output: Output::Files { ca_file: None },
        classes: Classes::IfAny,
    }
}

/// So many proxies, each with a hostname of its own, over a tenth as many
/// connectors.
fn write(dir: &std::path::Path, proxies: usize) {
    let connectors = proxies.div_ceil(10);
    for i in 0..connectors {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&(i as u64).to_le_bytes());
        let id = iroh::SecretKey::from_bytes(&seed).public().to_string();
        let name = format!("edge-{i}");
        let text = manifests::connector(&name, "north", &id, None, &[]);
        fs::write(dir.join(format!("{name}.yaml")), text).unwrap();
        let text = manifests::advertisement(&name, &name, &[("127.0.0.1", 8080)]);
        fs::write(dir.join(format!("{name}-advertisement.yaml")), text).unwrap();
    }
    for i in 0..proxies {
        let connector = format!("edge-{}", i % connectors);
        let backend = Backend::through(&connector, "http://127.0.0.1:8080".into());
        let name = format!("shop-{i}");
        let text = manifests::proxy(&name, &format!("{name}.example"), &[backend]);
        fs::write(dir.join(format!("{name}.yaml")), text).unwrap();
    }
}

fn manifests_to_model(c: &mut Criterion) {
    let mut group = c.benchmark_group("compile");
    for proxies in [10, 100, 1000] {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), proxies);
        let scan = Directory::new(dir.path()).scan();
        let snapshot: Snapshot = scan.snapshot;
        assert_eq!(snapshot.proxies.len(), proxies, "{:?}", scan.diagnostics);
        let options = options();
        let compiled = compile(&snapshot, &options);
        assert!(compiled.problems.is_empty(), "{:?}", compiled.problems);
        assert_eq!(compiled.model.clusters.len(), proxies);
        group.throughput(Throughput::Elements(proxies as u64));
        group.bench_function(BenchmarkId::from_parameter(proxies), |b| {
            b.iter(|| compile(black_box(&snapshot), &options))
        });
    }
    group.finish();
}

criterion_group!(benches, manifests_to_model);
criterion_main!(benches);
