//! The wire's fuzz bodies on the corpus and on mutations of valid messages: see
//! `fuzz/seeded.rs`.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use adit_wire::{
    Connected, EndpointId, ErrorClass, Path, Protocol, Refusal, Target, Tls, Verdict, connect,
    preface::Preface,
};

#[path = "../../fuzz/bodies/wire.rs"]
mod bodies;
#[path = "../../fuzz/seeded.rs"]
mod seeded;

use seeded::{Fuzz, Random};

fn target() -> Target {
    Target {
        connectors: vec![
            EndpointId::from_bytes([7; 32]),
            EndpointId::from_bytes([8; 32]),
        ],
        service: "shop.internal:8443".parse().unwrap(),
        protocol: Protocol::Tls(Tls {
            server_name: "shop.example".parse().unwrap(),
            ca: "internal".into(),
            alpn: vec!["h2".into(), "http/1.1".into()],
        }),
        deadline: Duration::from_secs(5),
        name: "default/shop".into(),
    }
}

#[test]
fn prefaces_keep_their_promises() {
    let preface = Preface {
        target: target(),
        wants_verdict: true,
    };
    let local = preface.encode().unwrap();
    // As Envoy's own transport socket sends it: command PROXY, TCP over IPv4.
    let mut proxy = local.clone();
    (proxy[12], proxy[13]) = (0x21, 0x11);
    proxy.splice(16..16, [1; 12]);
    let len = (proxy.len() - 16) as u16;
    proxy[14..16].copy_from_slice(&len.to_be_bytes());
    Fuzz::wire("preface", 0xad17_0001, vec![local, proxy]).run(bodies::preface);
}

#[test]
fn verdicts_keep_their_promises() {
    let connected = Verdict::Connected(Connected {
        connector: EndpointId::from_bytes([3; 32]),
        path: Path::Relay,
        rtt: Duration::from_micros(1234),
    });
    let mut corpus = vec![connected.encode()];
    for class in ErrorClass::ALL {
        let text = format!("{class} at 127.0.0.1:80: \u{e4}\u{20ac}");
        corpus.push(Verdict::Refused(Refusal { class, text }).encode());
    }
    Fuzz::wire("verdict", 0xad17_0002, corpus).run(bodies::verdict);
}

#[test]
fn connect_requests_keep_their_promises() {
    let corpus: Vec<Vec<u8>> = [
        "CONNECT shop.internal:8443 HTTP/1.1\r\nHost: shop.internal:8443\r\n\r\n",
        "CONNECT [2001:db8::1]:22 HTTP/1.1\r\nhost: x\r\nuser-agent: y\r\n\r\nSSH-2.0",
        "CONNECT 192.0.2.1:1 HTTP/1.1\r\n\r\n",
        "CONNECT [::ffff:127.0.0.1]:80 HTTP/1.1\n\n",
        "CONNECT 0177.0.0.1:80 HTTP/1.1\r\n\r\n",
        "CONNECT A.Example.:65535 HTTP/1.1\r\n\r\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into();
    Fuzz::wire("connect_request", 0xad17_0003, corpus).run(bodies::connect_request);
}

#[test]
fn connect_answers_keep_their_promises() {
    let mut corpus = vec![
        connect::encode_answer(Ok(())),
        b"HTTP/1.1 299 \r\n\r\nbanner".to_vec(),
        b"HTTP/1.0 403 Forbidden\r\nAdit-Error: tls\r\nserver: other\r\n\r\n".to_vec(),
    ];
    for class in ErrorClass::ALL {
        corpus.push(connect::encode_answer(Err(class)));
    }
    Fuzz::wire("connect_answer", 0xad17_0004, corpus).run(bodies::connect_answer);
}

#[test]
fn values_made_of_noise_read_back() {
    let mut random = Random(0xad17_0005);
    let corpus: Vec<Vec<u8>> = (1..64)
        .map(|len| (0..len * 16).map(|_| random.byte()).collect())
        .collect();
    Fuzz::wire("roundtrip", 0xad17_0006, corpus).run(bodies::roundtrip);
}
