//! The HTTP filter's hooks, for a whole stream each, with the unit tests' stub in
//! Envoy's place. The stub copies and moves every text to catch pointers that
//! are kept too long, so its own time is most of these figures: compare them
//! with a baseline, not with Envoy.

#![allow(missing_docs)]

use std::{hint::black_box, time::Duration};

use adit_hosted::stub_host::{FilterConfig, Stream, Value, load};
use adit_wire::EndpointId;
use criterion::{Criterion, criterion_group, criterion_main};

const REQUEST: [(&str, &str); 6] = [
    (":method", "GET"),
    (":scheme", "http"),
    (":path", "/"),
    (":authority", "shop.example"),
    ("user-agent", "bench"),
    ("accept", "text/html"),
];
const OFFLINE: &str =
    "upstream_reset_before_response_started{remote_connection_failure|adit.offline}";

fn hooks(c: &mut Criterion) {
    load();
    let Some(config) = FilterConfig::new("") else {
        return eprintln!("the module takes no empty configuration");
    };
    let node = EndpointId::from_bytes([1; 32]).to_string();
    let ours = || {
        let stream = Stream::new(&config, &REQUEST);
        stream.declare_target(1, &node);
        stream.declare_target(2, &node);
        stream.declare(1, "retry", Value::Bool(true));
        stream
    };
    c.bench_function("hooks/elsewhere", |b| {
        b.iter(|| {
            let stream = Stream::new(&config, &REQUEST);
            black_box(stream.request_headers());
            black_box(stream.response_headers(true));
        })
    });
    c.bench_function("hooks/answered", |b| {
        b.iter(|| {
            let stream = ours();
            black_box(stream.request_headers());
            stream.fill(2, &[(":status", "200")]);
            black_box(stream.response_headers(false));
            black_box(stream.response_body(b"body", true));
        })
    });
    c.bench_function("hooks/offline", |b| {
        b.iter(|| {
            let stream = ours();
            black_box(stream.request_headers());
            black_box(stream.local_reply(OFFLINE));
            stream.fill(2, &[(":status", "503")]);
            black_box(stream.response_headers(false));
            black_box(stream.response_body(b"body", true));
        })
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().measurement_time(Duration::from_secs(3));
    targets = hooks
}
criterion_main!(benches);
