//! The fuzz targets' bodies on mutations of valid messages: the same inputs in
//! every run, for a second each, or for `ADIT_FUZZ_SECONDS`.
//!
//! A failure names the body, the seed and the input.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    time::{Duration, Instant},
};

use adit_wire::{
    Connected, EndpointId, ErrorClass, Path, Protocol, Refusal, Target, Tls, Verdict, connect,
    preface::Preface,
};

#[path = "../../fuzz/bodies.rs"]
mod bodies;

/// xorshift64* (Vigna, "An experimental exploration of Marsaglia's xorshift
/// generators, scrambled"): enough to choose mutations by.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    fn byte(&mut self) -> u8 {
        (self.next() >> 32) as u8
    }
}

/// Bytes that mean something to one of the parsers.
const TELLING: [u8; 12] = [
    0, 1, 0x7f, 0x80, 0xff, b'\r', b'\n', b' ', b':', b'.', 0xe0, 0xe1,
];

/// One to eight edits of the kinds that parsers trip over.
fn mutate(input: &mut Vec<u8>, random: &mut Random, corpus: &[Vec<u8>]) {
    for _ in 0..=random.below(8) {
        let at = random.below(input.len() + 1);
        match random.below(9) {
            0 => input.truncate(at),
            1 => input.insert(at, random.byte()),
            2 => input.insert(at, TELLING[random.below(TELLING.len())]),
            3 if at < input.len() => drop(input.remove(at)),
            4 if at < input.len() => input[at] ^= 1 << random.below(8),
            5 if at < input.len() => input[at] = TELLING[random.below(TELLING.len())],
            6 => {
                // A piece of another message in the middle of this one.
                let other = &corpus[random.below(corpus.len())];
                let from = random.below(other.len());
                let piece = other[from..from + random.below(other.len() - from)].to_vec();
                input.splice(at..at, piece);
            }
            7 => {
                // A piece of itself again: repeated fields, long lists.
                let end = (at + random.below(64)).min(input.len());
                let piece = input[at..end].to_vec();
                for _ in 0..random.below(40) {
                    input.splice(at..at, piece.iter().copied());
                }
            }
            _ => {
                let noise = random.below(200);
                input.extend((0..noise).map(|_| random.byte()));
            }
        }
        // Beyond every limit, but not so far that a round takes long.
        input.truncate(12 * 1024);
    }
}

fn run(name: &str, seed: u64, corpus: &[Vec<u8>], body: fn(&[u8])) {
    let seconds = std::env::var("ADIT_FUZZ_SECONDS").ok();
    let seconds = seconds.map_or(1, |text| {
        text.parse().expect("ADIT_FUZZ_SECONDS is a number")
    });
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut random = Random(seed);
    let check = |input: &[u8]| {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| body(input))) {
            eprintln!("{name}, seed {seed:#x}, input: {input:?}");
            resume_unwind(panic);
        }
    };
    corpus.iter().for_each(|input| check(input));
    let mut rounds = 0u64;
    // At least so many, however slow the machine is.
    while rounds < 2000 || Instant::now() < until {
        let mut input = corpus[random.below(corpus.len())].clone();
        mutate(&mut input, &mut random, corpus);
        check(&input);
        rounds += 1;
    }
    println!("{name}: {rounds} inputs");
}

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
    run("preface", 0xad17_0001, &[local, proxy], bodies::preface);
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
    run("verdict", 0xad17_0002, &corpus, bodies::verdict);
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
    run("request", 0xad17_0003, &corpus, bodies::connect_request);
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
    run("answer", 0xad17_0004, &corpus, bodies::connect_answer);
}

#[test]
fn values_made_of_noise_read_back() {
    let mut random = Random(0xad17_0005);
    let corpus: Vec<Vec<u8>> = (1..64)
        .map(|len| (0..len * 16).map(|_| random.byte()).collect())
        .collect();
    run("roundtrip", 0xad17_0006, &corpus, bodies::roundtrip);
}
