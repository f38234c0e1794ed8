//! What must hold of the wire's decoders for any bytes: shared by the fuzz targets
//! and by `wire/tests/fuzz_seeded.rs`.
//!
//! Of each decoder:
//! * it does not panic, and never claims more bytes than it got;
//! * an error is final: no further byte cures it;
//! * a value is found with its last byte and not before, whatever follows;
//! * what was read can be written, and reads back as the same value.

use std::{fmt::Debug, time::Duration};

use adit_wire::{
    Connected, EndpointId, ErrorClass, Host, HostPort, Path, Progress, Protocol, Refusal, Target,
    Tls, Verdict, connect,
    preface::{self, Preface},
};

/// filter → dialer.
pub fn preface(data: &[u8]) {
    if let Some((read, len)) = decoder(data, preface::MAX_LEN, Preface::decode) {
        let written = read.encode().expect("what was read is valid");
        assert_eq!(Preface::decode(&written), Ok(Some((read, written.len()))));
        assert!(len <= preface::MAX_LEN);
    }
}

/// dialer → filter.
pub fn verdict(data: &[u8]) {
    const MAX: usize = 2 + adit_wire::MAX_VERDICT_LEN;
    if let Some((read, _)) = decoder(data, MAX, Verdict::decode) {
        let written = read.encode();
        let Ok(Some((again, len))) = Verdict::decode(&written) else {
            panic!("{read:?} was written as {written:?}");
        };
        assert_eq!(len, written.len());
        match (&read, &again) {
            // A long text is cut when it is written.
            (Verdict::Refused(a), Verdict::Refused(b)) => {
                assert_eq!(a.class, b.class);
                assert!(a.text.starts_with(&b.text));
            }
            _ => assert_eq!(read, again),
        }
    }
}

/// dialer → connector.
pub fn connect_request(data: &[u8]) {
    if let Some((read, _)) = decoder(data, connect::MAX_HEAD, connect::decode_request) {
        let written = connect::encode_request(&read);
        let again = connect::decode_request(&written);
        assert_eq!(again, Ok(Some((read.clone(), written.len()))));
        // One canonical spelling: what a list is compared with.
        assert_eq!(read.to_string().parse(), Ok(read.clone()));
        if let Host::Name(name) = &read.host {
            assert!(!name.ends_with('.') && !name.bytes().any(|b| b.is_ascii_uppercase()));
            assert!(name.parse::<std::net::IpAddr>().is_err());
        }
        if let Host::Ip(std::net::IpAddr::V6(ip)) = read.host {
            assert!(ip.to_ipv4_mapped().is_none());
        }
    }
}

/// connector → dialer.
pub fn connect_answer(data: &[u8]) {
    if let Some((read, _)) = decoder(data, connect::MAX_HEAD, connect::decode_answer) {
        let written = connect::encode_answer(read);
        let again = connect::decode_answer(&written);
        assert_eq!(again, Ok(Some((read, written.len()))));
    }
}

/// Values made of the input, through every codec.
pub fn roundtrip(data: &[u8]) {
    let mut source = Source(data);
    let target = source.target();
    match target.validate() {
        Ok(()) => {
            assert_eq!(Target::decode(&target.encode()), Ok(target.clone()));
            assert_eq!(Target::from_base64(&target.to_base64()), Ok(target.clone()));
            let preface = Preface {
                target: target.clone(),
                wants_verdict: source.bool(),
            };
            // A valid target may still be too long for a header.
            if let Ok(bytes) = preface.encode() {
                whole(&bytes, source.0, preface, Preface::decode);
            }
        }
        Err(_) => assert!(Target::decode(&target.encode()).is_err()),
    }
    let service = target.service;
    if service.port != 0 {
        let bytes = connect::encode_request(&service);
        whole(&bytes, source.0, service, connect::decode_request);
    }
    let answer = if source.bool() {
        Ok(())
    } else {
        Err(source.class())
    };
    let bytes = connect::encode_answer(answer);
    whole(&bytes, source.0, answer, connect::decode_answer);
    let verdict = source.verdict();
    let bytes = verdict.encode();
    whole(&bytes, source.0, verdict, Verdict::decode);
}

type Decode<T, E> = fn(&[u8]) -> Result<Progress<T>, E>;

/// The promises that all decoders make about one input.
fn decoder<T: PartialEq + Debug, E: PartialEq + Debug>(
    data: &[u8],
    max: usize,
    decode: Decode<T, E>,
) -> Option<(T, usize)> {
    let with = |more: &[u8]| decode(&[data, more].concat());
    match decode(data) {
        Err(error) => {
            for more in [&b"\0"[..], b"\r\n\r\n", &[0xff; 64]] {
                assert!(with(more).is_err(), "{error:?} was cured by {more:?}");
            }
            None
        }
        Ok(None) => {
            assert!(
                data.len() < max,
                "{} bytes and still not enough",
                data.len()
            );
            None
        }
        Ok(Some((value, len))) => {
            assert!(len <= data.len() && len <= max);
            prefixes(&data[..len], decode);
            let exact = decode(&data[..len]);
            assert_eq!(exact, with(b"what follows"));
            assert_eq!(exact, Ok(Some((value, len))));
            exact.ok().flatten()
        }
    }
}

/// `bytes` read as `value`, with anything behind them and not without them.
fn whole<T: PartialEq + Debug, E: PartialEq + Debug>(
    bytes: &[u8],
    behind: &[u8],
    value: T,
    decode: Decode<T, E>,
) {
    prefixes(bytes, decode);
    let read = decode(&[bytes, behind].concat());
    assert_eq!(read, Ok(Some((value, bytes.len()))));
}

/// No prefix is a value or an error; of long inputs some are looked at.
fn prefixes<T: PartialEq + Debug, E: PartialEq + Debug>(bytes: &[u8], decode: Decode<T, E>) {
    let step = (bytes.len() / 64).max(1);
    for end in (0..bytes.len()).step_by(step) {
        assert_eq!(decode(&bytes[..end]), Ok(None), "{end} bytes");
    }
}

/// Values made of bytes; zeros when they run out.
struct Source<'a>(&'a [u8]);

impl Source<'_> {
    fn byte(&mut self) -> u8 {
        let (&first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        first
    }

    fn bool(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    fn number(&mut self) -> u32 {
        u32::from_be_bytes(std::array::from_fn(|_| self.byte()))
    }

    /// Mostly short, sometimes over every limit.
    fn text(&mut self) -> String {
        let len = match self.byte() {
            255 => 300,
            len => usize::from(len % 40),
        };
        (0..len).map(|_| char::from(self.byte())).collect()
    }

    fn host(&mut self) -> Host {
        match self.byte() % 3 {
            0 => Host::from(std::net::IpAddr::from(self.number().to_be_bytes())),
            1 => {
                let bytes: [u8; 16] = std::array::from_fn(|_| self.byte());
                Host::from(std::net::IpAddr::from(bytes))
            }
            _ => {
                let name = self.text();
                // A host is made by the parser alone; most texts are none.
                let name: String = name.chars().map(|c| ALPHABET[c as usize % 40]).collect();
                name.parse()
                    .unwrap_or(Host::Name("fallback.example".into()))
            }
        }
    }

    fn target(&mut self) -> Target {
        let connectors = (0..self.byte() % 18)
            .map(|_| EndpointId::from_bytes([self.byte(); 32]))
            .collect();
        let host = self.host();
        let port = (self.number() & 0xffff) as u16;
        let protocol = match self.bool() {
            false => Protocol::Tcp,
            true => Protocol::Tls(Tls {
                server_name: self.host(),
                ca: self.text(),
                alpn: (0..self.byte() % 10).map(|_| self.text()).collect(),
            }),
        };
        Target {
            connectors,
            service: HostPort::new(host, port),
            protocol,
            deadline: Duration::from_millis(self.number().into()),
            name: self.text(),
        }
    }

    fn class(&mut self) -> ErrorClass {
        ErrorClass::ALL[usize::from(self.byte()) % ErrorClass::ALL.len()]
    }

    fn verdict(&mut self) -> Verdict {
        match self.bool() {
            true => Verdict::Connected(Connected {
                connector: EndpointId::from_bytes([self.byte(); 32]),
                path: if self.bool() {
                    Path::Relay
                } else {
                    Path::Direct
                },
                rtt: Duration::from_micros(self.number().into()),
            }),
            false => Verdict::Refused(Refusal {
                class: self.class(),
                // Short enough not to be cut.
                text: self.text().chars().take(200).collect(),
            }),
        }
    }
}

const ALPHABET: [char; 40] = [
    'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', 'k', 'l', 'm', 'n', 'o', 'p', 'q', 'r', 's',
    't', 'u', 'v', 'w', 'x', 'y', 'z', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', '-', '_',
    '.', '.',
];
