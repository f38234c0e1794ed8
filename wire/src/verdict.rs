//! The dialer's answer to a preface: two bytes of length (big-endian), then a
//! protobuf message.

use std::time::Duration;

use prost::Message;

use crate::{EndpointId, ErrorClass, Progress, proto};

/// The longest verdict on the wire, its length prefix not counted.
pub const MAX_VERDICT_LEN: usize = 1024;
/// The longest `text` of a refusal, in bytes; the rest is cut.
const MAX_REFUSAL_TEXT: usize = 512;

/// Whether the service was reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// From here on the socket carries the service's bytes.
    Connected(Connected),
    /// Nothing was sent to the service; the socket closes.
    Refused(Refusal),
}

/// How the service was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connected {
    /// The connector that answered.
    pub connector: EndpointId,
    /// The path at this moment; it may improve later.
    pub path: Path,
    /// Round-trip time of that path.
    pub rtt: Duration,
}

/// The kind of network path to a connector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Path {
    /// Addresses of the two sides, no relay between.
    Direct,
    /// Through an iroh relay.
    Relay,
}

/// Why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What may be told to a client.
    pub class: ErrorClass,
    /// For logs only: may name addresses.
    pub text: String,
}

/// Why bytes are no verdict.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerdictError {
    /// The length prefix is zero or beyond [`MAX_VERDICT_LEN`].
    #[error("a verdict of {0} bytes; at most {MAX_VERDICT_LEN} are allowed, and not none")]
    Length(usize),
    /// Not the protobuf message, or one without an outcome.
    #[error("not a protobuf Verdict: {0}")]
    Proto(String),
}

impl Path {
    /// `direct` or `relay`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Relay => "relay",
        }
    }
}

impl std::fmt::Display for Path {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Verdict {
    /// The bytes on the wire, length prefix included.
    pub fn encode(&self) -> Vec<u8> {
        let outcome = match self {
            Self::Connected(c) => proto::Outcome::Connected(proto::Connected {
                endpoint_id: c.connector.as_bytes().to_vec(),
                relay: c.path == Path::Relay,
                rtt_us: u32::try_from(c.rtt.as_micros()).unwrap_or(u32::MAX),
            }),
            Self::Refused(r) => proto::Outcome::Refusal(proto::Refusal {
                class: r.class.as_str().into(),
                text: cut(&r.text, MAX_REFUSAL_TEXT).into(),
            }),
        };
        let body = proto::Verdict {
            outcome: Some(outcome),
        }
        .encode_to_vec();
        debug_assert!(body.len() <= MAX_VERDICT_LEN);
        let len = u16::try_from(body.len()).unwrap_or(u16::MAX).to_be_bytes();
        [&len[..], &body].concat()
    }

    /// Reads a verdict from the start of `buf`. What follows it belongs to the
    /// service's stream.
    ///
    /// A class this version does not know reads as [`ErrorClass::Internal`].
    pub fn decode(buf: &[u8]) -> Result<Progress<Self>, VerdictError> {
        let Some((prefix, rest)) = buf.split_first_chunk::<2>() else {
            return Ok(None);
        };
        let len = usize::from(u16::from_be_bytes(*prefix));
        if len == 0 || len > MAX_VERDICT_LEN {
            return Err(VerdictError::Length(len));
        }
        let Some(body) = rest.get(..len) else {
            return Ok(None);
        };
        let message =
            proto::Verdict::decode(body).map_err(|e| VerdictError::Proto(e.to_string()))?;
        let verdict = match message.outcome {
            Some(proto::Outcome::Connected(c)) => {
                let id = c.endpoint_id.as_slice().try_into();
                Self::Connected(Connected {
                    connector: id.map(EndpointId::from_bytes).map_err(|_| {
                        VerdictError::Proto("the connector is no EndpointId".into())
                    })?,
                    path: if c.relay { Path::Relay } else { Path::Direct },
                    rtt: Duration::from_micros(c.rtt_us.into()),
                })
            }
            Some(proto::Outcome::Refusal(r)) => Self::Refused(Refusal {
                class: r.class.parse().unwrap_or(ErrorClass::Internal),
                text: r.text,
            }),
            None => return Err(VerdictError::Proto("no outcome".into())),
        };
        Ok(Some((verdict, 2 + len)))
    }
}

/// The first `max` bytes of a text, or a little less: whole characters.
fn cut(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both() -> [Verdict; 2] {
        [
            Verdict::Connected(Connected {
                connector: EndpointId::from_bytes([3; 32]),
                path: Path::Relay,
                rtt: Duration::from_micros(1234),
            }),
            Verdict::Refused(Refusal {
                class: ErrorClass::Refused,
                text: "connect 127.0.0.1:1: refused".into(),
            }),
        ]
    }

    #[test]
    fn a_verdict_reads_back_and_leaves_what_follows() {
        for verdict in both() {
            let mut bytes = verdict.encode();
            let len = bytes.len();
            bytes.extend_from_slice(b"HTTP/1.1 200 OK");
            assert_eq!(Verdict::decode(&bytes), Ok(Some((verdict, len))));
        }
    }

    #[test]
    fn every_prefix_of_a_verdict_asks_for_more() {
        for verdict in both() {
            let bytes = verdict.encode();
            for end in 0..bytes.len() {
                assert_eq!(Verdict::decode(&bytes[..end]), Ok(None));
            }
        }
    }

    #[test]
    fn a_long_text_is_cut_and_an_unknown_class_is_internal() {
        let refusal = Refusal {
            class: ErrorClass::Tls,
            text: "\u{e4}".repeat(4000),
        };
        let bytes = Verdict::Refused(refusal).encode();
        assert!(bytes.len() <= 2 + MAX_VERDICT_LEN);
        assert!(matches!(Verdict::decode(&bytes), Ok(Some(_))));

        let body = proto::Verdict {
            outcome: Some(proto::Outcome::Refusal(proto::Refusal {
                class: "from-the-future".into(),
                text: String::new(),
            })),
        }
        .encode_to_vec();
        let bytes = [&(body.len() as u16).to_be_bytes()[..], &body].concat();
        let Ok(Some((Verdict::Refused(refusal), _))) = Verdict::decode(&bytes) else {
            panic!("a refusal");
        };
        assert_eq!(refusal.class, ErrorClass::Internal);
    }

    #[test]
    fn nonsense_is_an_error() {
        assert_eq!(Verdict::decode(&[0, 0]), Err(VerdictError::Length(0)));
        assert_eq!(
            Verdict::decode(&[0xff, 0xff]),
            Err(VerdictError::Length(0xffff))
        );
        assert!(matches!(
            Verdict::decode(&[0, 2, 0xff, 0xff]),
            Err(VerdictError::Proto(_))
        ));
    }
}
