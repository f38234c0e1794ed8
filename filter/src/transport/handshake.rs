//! The exchange at the start of a connection to the dialer, as a pure state
//! machine: preface out, verdict in, and nothing of what follows.

use adit_wire::{Connected, MAX_VERDICT_LEN, Refusal, Verdict, VerdictError};

/// Length prefix of a verdict, in bytes.
const PREFIX: usize = 2;

/// One connection's exchange.
#[derive(Debug, Default)]
pub struct Handshake {
    sent: usize,
    verdict: Vec<u8>,
}

/// What the bytes read so far amount to.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// More of the verdict must come.
    More,
    /// The service was reached: from here on the socket is the service's.
    Open(Connected),
    /// It was not.
    Refused(Refusal),
}

impl Handshake {
    /// What is still to be sent of `preface`.
    pub fn unsent<'a>(&self, preface: &'a [u8]) -> &'a [u8] {
        preface.get(self.sent..).unwrap_or_default()
    }

    /// Notes that `n` more bytes were sent.
    pub fn sent(&mut self, n: usize) {
        self.sent += n;
    }

    /// How many bytes to read next, at most: never one that belongs to the
    /// service's stream.
    pub fn wants(&self) -> usize {
        let have = self.verdict.len();
        match self.verdict.first_chunk::<PREFIX>() {
            None => PREFIX - have,
            // A length over the limit is refused by the decoder as soon as the
            // prefix is whole, so this stays small.
            Some(prefix) => {
                let len = usize::from(u16::from_be_bytes(*prefix)).min(MAX_VERDICT_LEN);
                (PREFIX + len).saturating_sub(have)
            }
        }
    }

    /// Takes bytes from the dialer, at most as many as [`wants`](Self::wants)
    /// said.
    pub fn received(&mut self, bytes: &[u8]) -> Result<Step, VerdictError> {
        debug_assert!(bytes.len() <= self.wants());
        self.verdict.extend_from_slice(bytes);
        let Some((verdict, len)) = Verdict::decode(&self.verdict)? else {
            return Ok(Step::More);
        };
        debug_assert_eq!(len, self.verdict.len());
        self.verdict = Vec::new();
        Ok(match verdict {
            Verdict::Connected(connected) => Step::Open(connected),
            Verdict::Refused(refusal) => Step::Refused(refusal),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use adit_wire::{EndpointId, ErrorClass, Path};

    use super::*;

    fn connected() -> Connected {
        Connected {
            connector: EndpointId::from_bytes([5; 32]),
            path: Path::Direct,
            rtt: Duration::from_millis(7),
        }
    }

    /// Reads like the socket does: never more than is wanted, at most `step`.
    fn drive(stream: &[u8], step: usize) -> (Result<Step, VerdictError>, usize) {
        let mut handshake = Handshake::default();
        let mut at = 0;
        loop {
            let n = handshake.wants().min(step).min(stream.len() - at);
            if n == 0 {
                return (Ok(Step::More), at);
            }
            let result = handshake.received(&stream[at..at + n]);
            at += n;
            if !matches!(result, Ok(Step::More)) {
                return (result, at);
            }
        }
    }

    #[test]
    fn a_verdict_is_read_to_its_last_byte_and_no_further() {
        let verdict = Verdict::Connected(connected()).encode();
        let stream = [&verdict[..], b"HTTP/1.1 200 OK\r\n"].concat();
        for step in [1, 2, 3, 7, 4096] {
            let (result, read) = drive(&stream, step);
            assert_eq!(result, Ok(Step::Open(connected())), "in steps of {step}");
            assert_eq!(read, verdict.len(), "in steps of {step}");
        }
    }

    #[test]
    fn a_refusal_carries_its_class() {
        let refusal = Refusal {
            class: ErrorClass::Offline,
            text: "no answer".into(),
        };
        let (result, _) = drive(&Verdict::Refused(refusal.clone()).encode(), 4096);
        assert_eq!(result, Ok(Step::Refused(refusal)));
    }

    #[test]
    fn every_prefix_of_a_verdict_waits_for_the_rest() {
        let verdict = Verdict::Connected(connected()).encode();
        for end in 0..verdict.len() {
            assert_eq!(drive(&verdict[..end], 4096).0, Ok(Step::More), "{end}");
        }
    }

    #[test]
    fn nonsense_is_refused_at_its_length_or_its_end() {
        assert_eq!(
            drive(b"HTTP/1.1 400 Bad Request\r\n", 4096),
            (Err(VerdictError::Length(0x4854)), PREFIX)
        );
        assert_eq!(drive(&[0, 0], 4096).0, Err(VerdictError::Length(0)));
        assert!(matches!(
            drive(&[0, 3, 0xff, 0xff, 0xff, 1, 2], 4096),
            (Err(VerdictError::Proto(_)), 5)
        ));
    }

    #[test]
    fn a_preface_goes_out_in_whatever_pieces_the_socket_takes() {
        let mut handshake = Handshake::default();
        let mut out = Vec::new();
        let preface = b"the whole preface";
        for n in [1, 0, 5, 100] {
            let rest = handshake.unsent(preface);
            let piece = &rest[..n.min(rest.len())];
            out.extend_from_slice(piece);
            handshake.sent(piece.len());
        }
        assert_eq!(out, preface);
        assert!(handshake.unsent(preface).is_empty());
    }
}
