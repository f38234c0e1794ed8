//! The codecs on the path of every new connection. They run once a connection,
//! so microseconds here are nothing; this is to notice when one becomes many.

#![allow(clippy::unwrap_used, missing_docs)]

use std::{hint::black_box, time::Duration};

use adit_wire::{
    Connected, EndpointId, Path, Protocol, Target, Verdict, connect, preface::Preface,
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

fn codecs(c: &mut Criterion) {
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
    let verdict = Verdict::Connected(Connected {
        connector: EndpointId::from_bytes([7; 32]),
        path: Path::Direct,
        rtt: Duration::from_millis(20),
    });
    let bytes = verdict.encode();
    c.bench_function("verdict/decode", |b| {
        b.iter(|| Verdict::decode(black_box(&bytes)))
    });
    let request = connect::encode_request(&target().service);
    c.bench_function("connect/decode_request", |b| {
        b.iter(|| connect::decode_request(black_box(&request)))
    });
    let answer = connect::encode_answer(Ok(()));
    c.bench_function("connect/decode_answer", |b| {
        b.iter(|| connect::decode_answer(black_box(&answer)))
    });
}

criterion_group!(benches, codecs);
criterion_main!(benches);
