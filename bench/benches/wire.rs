//! The codecs on the path of every new connection. They run once a connection,
//! so microseconds here are nothing; this is to notice when one becomes many.

#![allow(clippy::unwrap_used, missing_docs)]

use std::{hint::black_box, time::Duration};

use adit_wire::{
    Connected, EndpointId, ErrorClass, Path, Protocol, Refusal, Target, Verdict, connect,
    preface::Preface,
};
use criterion::{Criterion, criterion_group, criterion_main};

fn target() -> Target {
    Target {
        connectors: vec![EndpointId::from_bytes([7; 32]); 1],
        service: "shop.internal:8080".parse().unwrap(),
        protocol: Protocol::Tcp,
        deadline: Duration::from_secs(10),
        name: "default/shop".into(),
    }
}

fn preface(c: &mut Criterion) {
    let preface = Preface {
        target: target(),
        wants_verdict: true,
    };
    let bytes = preface.encode().unwrap();
    c.bench_function("preface/encode", |b| {
        b.iter(|| black_box(&preface).encode())
    });
    c.bench_function("preface/decode", |b| {
        b.iter(|| Preface::decode(black_box(&bytes)))
    });
}

fn verdict(c: &mut Criterion) {
    let verdicts = [
        (
            "connected",
            Verdict::Connected(Connected {
                connector: EndpointId::from_bytes([7; 32]),
                path: Path::Direct,
                rtt: Duration::from_millis(20),
            }),
        ),
        (
            "refused",
            Verdict::Refused(Refusal {
                class: ErrorClass::Offline,
                text: "no connector of 1 could be reached within 10 s".into(),
            }),
        ),
    ];
    for (name, verdict) in verdicts {
        let bytes = verdict.encode();
        c.bench_function(&format!("verdict/encode/{name}"), |b| {
            b.iter(|| black_box(&verdict).encode())
        });
        c.bench_function(&format!("verdict/decode/{name}"), |b| {
            b.iter(|| Verdict::decode(black_box(&bytes)))
        });
    }
}

/// From what stands in a cluster's configuration to what is to be reached, and
/// back: once a cluster in Envoy, once a stream in the dialer.
fn lookup(c: &mut Criterion) {
    let text = target().to_base64();
    c.bench_function("target/from_base64", |b| {
        b.iter(|| Target::from_base64(black_box(&text)))
    });
    let bytes = target().encode();
    c.bench_function("target/decode", |b| {
        b.iter(|| Target::decode(black_box(&bytes)))
    });
}

fn connect(c: &mut Criterion) {
    let request = connect::encode_request(&target().service);
    c.bench_function("connect/decode_request", |b| {
        b.iter(|| connect::decode_request(black_box(&request)))
    });
    let answer = connect::encode_answer(Ok(()));
    c.bench_function("connect/decode_answer", |b| {
        b.iter(|| connect::decode_answer(black_box(&answer)))
    });
}

criterion_group!(benches, preface, verdict, lookup, connect);
criterion_main!(benches);
