//! Connections and streams under hooks in an order that chance decides: nothing
//! is lost, doubled or read after it was freed.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    rc::Rc,
};

use adit_wire::preface::Preface;

use super::{
    Connection, Factory, FilterConfig, Inside, Stream, Value,
    connection_tests::{target, verdict},
    load,
};

/// Rounds of each test; ten times as many where everything is tested.
fn rounds() -> u64 {
    match std::env::var_os("ADIT_TEST_ALL") {
        Some(_) => 3000,
        None => 300,
    }
}

/// xorshift64* (Vigna, "An experimental exploration of Marsaglia's xorshift
/// generators, scrambled").
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize) % end
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// One connection, what each side has sent and what the other has got.
struct Pair {
    connection: Rc<Connection>,
    dialer: Option<UnixStream>,
    to_dialer: Vec<u8>,
    at_dialer: Vec<u8>,
    to_envoy: Vec<u8>,
    /// What the dialer has still to send.
    unsent: Vec<u8>,
    destroyed: bool,
}

impl Pair {
    fn new(factory: &Factory, random: &mut Random) -> Self {
        let (connection, dialer) = Connection::new(factory);
        *connection.inside.borrow_mut() = Inside {
            ask: random.one_in(2),
            read: random.one_in(4),
            close: random.one_in(12),
            destroy: random.one_in(12),
            other: None,
            close_in_drain: random.one_in(30),
            write_in_drain: Vec::new(),
        };
        if random.one_in(3) {
            connection.read_limit.set(random.below(100_000));
        }
        connection.on_connected();
        let destroyed = false;
        Self {
            connection,
            dialer: Some(dialer),
            to_dialer: Vec::new(),
            at_dialer: Vec::new(),
            to_envoy: Vec::new(),
            unsent: verdict(),
            destroyed,
        }
    }

    fn step(&mut self, random: &mut Random) {
        match random.below(12) {
            0 => {
                // Envoy has bytes; each is told by its place.
                let len = random.below(40_000);
                let from = self.to_dialer.len();
                let bytes: Vec<u8> = (from..from + len).map(|i| i as u8).collect();
                if self.connection.is_open() {
                    self.to_dialer.extend(&bytes);
                    self.connection.write(&bytes, false);
                }
            }
            1 | 2 => {
                let len = random.below(60_000);
                let from = self.to_envoy.len();
                let bytes: Vec<u8> = (from..from + len).map(|i| (i * 7) as u8).collect();
                self.to_envoy.extend(&bytes);
                self.unsent.extend(bytes);
            }
            3..=5 => self.send(1 + random.below(80_000)),
            6 | 7 => self.connection.readable(),
            8 => self.connection.flush(),
            9 | 10 => self.receive(),
            _ if random.one_in(40) => self.dialer = None,
            _ if random.one_in(40) => self.connection.close(),
            _ if random.one_in(80) => {
                self.connection.close();
                self.connection.destroy();
                self.destroyed = true;
            }
            _ => {
                let _ =
                    (!self.destroyed && self.connection.is_open()).then(|| self.connection.ask());
            }
        }
    }

    fn send(&mut self, most: usize) {
        if let Some(dialer) = &mut self.dialer {
            let len = most.min(self.unsent.len());
            if let Ok(n) = dialer.write(&self.unsent[..len]) {
                self.unsent.drain(..n);
            }
        }
    }

    fn receive(&mut self) {
        let mut buffer = [0; 30_000];
        if let Some(dialer) = &mut self.dialer
            && let Ok(n) = dialer.read(&mut buffer)
        {
            self.at_dialer.extend(&buffer[..n]);
        }
    }

    /// Everything that can still move, moves.
    fn settle(&mut self) {
        if self.connection.is_open() && self.dialer.is_some() {
            for _ in 0..10_000 {
                let moved = |pair: &Self| {
                    let received = pair.connection.received.borrow().len();
                    (pair.unsent.len(), pair.at_dialer.len(), received)
                };
                let before = moved(self);
                self.send(usize::MAX);
                self.connection.readable();
                self.connection.flush();
                self.receive();
                if before == moved(self) {
                    break;
                }
            }
        }
    }

    fn judge(&self) {
        let received = self.connection.received.borrow();
        assert!(self.to_envoy.starts_with(&received), "bytes for Envoy");
        if let Some((_, len)) = Preface::decode(&self.at_dialer).expect("a preface") {
            let stream = &self.at_dialer[len..];
            assert!(self.to_dialer.starts_with(stream), "bytes for the dialer");
            if self.connection.is_open() && self.dialer.is_some() {
                assert_eq!(received.len(), self.to_envoy.len(), "all for Envoy");
                assert_eq!(stream.len(), self.to_dialer.len(), "all for the dialer");
            }
        }
    }
}

#[test]
fn whatever_the_order_bytes_arrive_in_order_and_once() {
    load();
    let factory = Factory::new(&target());
    let mut opened = 0;
    for seed in 1..=rounds() {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut pairs: Vec<_> = (0..3).map(|_| Pair::new(&factory, &mut random)).collect();
        for _ in 0..60 + random.below(100) {
            let at = random.below(pairs.len());
            // Now and then another connection is served inside this one's read.
            if random.one_in(10) && at > 0 {
                let other = pairs[at - 1].connection.clone();
                pairs[at].connection.inside.borrow_mut().other = Some(other);
            }
            pairs[at].step(&mut random);
        }
        for pair in &mut pairs {
            // No circle of connections stays behind.
            pair.connection.inside.borrow_mut().other = None;
            pair.settle();
            pair.judge();
            opened += pair.connection.connected.get();
        }
    }
    assert!(u64::from(opened) > rounds(), "{opened} were opened");
}

#[test]
fn whatever_the_order_a_stream_ends_once_and_is_counted_once() {
    load();
    let config = FilterConfig::new("").expect("taken");
    let node = adit_wire::EndpointId::from_bytes([1; 32]).to_string();
    let mut answered = 0;
    for seed in 1..=rounds() * 4 {
        let mut random = Random(seed.wrapping_mul(0xd134_2543_de82_ef95));
        let methods = ["GET", "CONNECT", "POST"];
        let headers = [
            (":method", methods[random.below(3)]),
            (":authority", "shop.example:8080"),
            (
                "accept",
                ["*/*", "text/html", "application/json, x", ",;q="][random.below(4)],
            ),
            (
                "content-type",
                ["application/grpc", "text/plain"][random.below(2)],
            ),
            ("x-adit-forged", "1"),
        ];
        let stream = Stream::new(&config, &headers);
        stream.destroy_inside.set(random.one_in(2));
        let ours = !random.one_in(8);
        if ours {
            stream.declare_target(1 + random.below(2) as u32, &node);
        }
        let connect = random.one_in(3);
        if connect {
            stream.declare(1, "connect", Value::Bool(true));
        }
        let has_namespace = ours || connect;
        stream.request_headers();
        for _ in 0..random.below(12) {
            match random.below(7) {
                0 => drop(stream.request_body()),
                1 => drop(stream.request_trailers()),
                2 => {
                    let reasons = [
                        "remote_connection_failure|adit.offline",
                        "remote_connection_failure|adit.tls",
                        "connection_timeout",
                        "/run/x",
                    ];
                    let reason = reasons[random.below(4)];
                    let details = format!("upstream_reset_before_response_started{{{reason}}}");
                    stream.local_reply(&details);
                }
                3 => {
                    stream.fill(2, &[(":status", "503")]);
                    stream.response_headers(random.one_in(3));
                }
                4 | 5 => {
                    crate::cut::note(random.one_in(4));
                    stream.response_body(&[b'x'; 3000], random.one_in(3));
                }
                _ => drop(stream.response_trailers()),
            }
        }
        crate::cut::note(false);
        stream.end();
        let counted: u64 = stream.counted.borrow().values().sum();
        assert_eq!(counted, u64::from(has_namespace), "seed {seed}");
        answered += stream.replies.borrow().len();
    }
    assert!(answered > 0);
}
