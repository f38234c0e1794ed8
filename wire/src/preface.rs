//! What the filter writes first on a Unix socket to the dialer: a PROXY
//! protocol v2 header whose TLVs carry a [`Target`].
//!
//! ```text
//! 0d0a0d0a000d0a515549540a  20       00      len   e0 len Target  e1 0001 flags
//! signature                 v2 LOCAL UNSPEC  u16   TLV            TLV
//! ```
//!
//! The dialer also takes what Envoy's built-in upstream PROXY protocol
//! transport socket sends (command PROXY and a TCP or Unix address, which are
//! ignored), for an Envoy that may load no module: then no verdict is wanted.
//!
//! Source: haproxy `doc/proxy-protocol.txt`, section 2.2. The TLV types 0xE0
//! to 0xEF are its "custom" range.

use crate::{Progress, Target, TargetError};

/// The longest header accepted, signature included: a whole [`Target`] with
/// sixteen connectors needs less than 2 KiB.
pub const MAX_LEN: usize = 8 * 1024;

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
const FIXED_LEN: usize = 16;
const TLV_TARGET: u8 = 0xE0;
const TLV_FLAGS: u8 = 0xE1;
const FLAG_VERDICT: u8 = 1;

/// A stream's opening message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preface {
    /// What the stream is for.
    pub target: Target,
    /// Whether the sender waits for a [`crate::Verdict`] before its first byte.
    pub wants_verdict: bool,
}

/// Why bytes are no preface. None of these can be cured by more bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PrefaceError {
    /// Another protocol.
    #[error("this is not a PROXY protocol v2 header")]
    Signature,
    /// Another version or an unknown command.
    #[error("PROXY protocol version and command {0:#04x} are not 0x20 (LOCAL) or 0x21 (PROXY)")]
    Command(u8),
    /// An address family that is not UNSPEC, TCP or Unix stream.
    #[error("the PROXY protocol address family {0:#04x} is not one for a stream")]
    Family(u8),
    /// Longer than [`MAX_LEN`].
    #[error("the header is {0} bytes long, over the limit of {MAX_LEN}")]
    TooLong(usize),
    /// Address block or TLVs do not fit the stated length.
    #[error("the header ends within its address or a TLV")]
    Truncated,
    /// No TLV 0xE0.
    #[error("the header carries no Target (TLV 0xE0): this is not from an adit cluster")]
    NoTarget,
    /// Two TLVs of one of our types.
    #[error("the header carries TLV {0:#04x} twice")]
    Repeated(u8),
    /// TLV 0xE1 without a byte.
    #[error("the header's flags (TLV 0xE1) are empty")]
    Flags,
    /// TLV 0xE0 does not hold a valid Target.
    #[error(transparent)]
    Target(#[from] TargetError),
}

impl Preface {
    /// The bytes on the wire.
    ///
    /// # Errors
    /// When the target is not valid, or its encoding is over [`MAX_LEN`].
    pub fn encode(&self) -> Result<Vec<u8>, PrefaceError> {
        self.target.validate()?;
        let target = self.target.encode();
        let flags = if self.wants_verdict { FLAG_VERDICT } else { 0 };
        let body_len = 3 + target.len() + 3 + 1;
        let total = FIXED_LEN + body_len;
        if total > MAX_LEN {
            return Err(PrefaceError::TooLong(total));
        }
        let mut out = Vec::with_capacity(total);
        out.extend_from_slice(&SIGNATURE);
        out.extend_from_slice(&[0x20, 0x00]);
        // Both lengths are below MAX_LEN, so they fit their two bytes.
        out.extend_from_slice(&(body_len as u16).to_be_bytes());
        out.push(TLV_TARGET);
        out.extend_from_slice(&(target.len() as u16).to_be_bytes());
        out.extend_from_slice(&target);
        out.extend_from_slice(&[TLV_FLAGS, 0, 1, flags]);
        Ok(out)
    }

    /// Reads a preface from the start of `buf`. What follows it is the first
    /// of the stream's bytes. A wrong beginning is refused at its first wrong
    /// byte, an announced length over the limit before it arrives.
    pub fn decode(buf: &[u8]) -> Result<Progress<Self>, PrefaceError> {
        let seen = buf.len().min(SIGNATURE.len());
        if buf[..seen] != SIGNATURE[..seen] {
            return Err(PrefaceError::Signature);
        }
        if let Some(&command) = buf.get(12)
            && command != 0x20
            && command != 0x21
        {
            return Err(PrefaceError::Command(command));
        }
        let Some(fixed) = buf.first_chunk::<FIXED_LEN>() else {
            return Ok(None);
        };
        let address_len = match fixed[13] {
            0x00 => 0,
            0x11 => 12,
            0x21 => 36,
            0x31 => 216,
            other => return Err(PrefaceError::Family(other)),
        };
        let body_len = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
        let total = FIXED_LEN + body_len;
        if total > MAX_LEN {
            return Err(PrefaceError::TooLong(total));
        }
        let Some(body) = buf.get(FIXED_LEN..total) else {
            return Ok(None);
        };
        let tlvs = body.get(address_len..).ok_or(PrefaceError::Truncated)?;
        Ok(Some((Self::from_tlvs(tlvs)?, total)))
    }

    fn from_tlvs(mut rest: &[u8]) -> Result<Self, PrefaceError> {
        let (mut target, mut flags) = (None, None);
        while !rest.is_empty() {
            let (&[kind, hi, lo], after) = rest
                .split_first_chunk::<3>()
                .ok_or(PrefaceError::Truncated)?;
            let len = usize::from(u16::from_be_bytes([hi, lo]));
            let (value, after) = after.split_at_checked(len).ok_or(PrefaceError::Truncated)?;
            let slot = match kind {
                TLV_TARGET => &mut target,
                TLV_FLAGS => &mut flags,
                _ => &mut None,
            };
            if slot.replace(value).is_some() {
                return Err(PrefaceError::Repeated(kind));
            }
            rest = after;
        }
        let target = Target::decode(target.ok_or(PrefaceError::NoTarget)?)?;
        let flags = match flags {
            None => 0,
            Some(bytes) => *bytes.first().ok_or(PrefaceError::Flags)?,
        };
        Ok(Self {
            target,
            wants_verdict: flags & FLAG_VERDICT != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::tests::example;

    fn header(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let mut out = SIGNATURE.to_vec();
        out.extend_from_slice(&[command, family]);
        out.extend_from_slice(&(body.len() as u16).to_be_bytes());
        out.extend_from_slice(body);
        out
    }

    fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
        let mut out = vec![kind];
        out.extend_from_slice(&(value.len() as u16).to_be_bytes());
        out.extend_from_slice(value);
        out
    }

    #[test]
    fn a_preface_reads_back_and_leaves_what_follows() {
        let preface = Preface {
            target: example(),
            wants_verdict: true,
        };
        let mut bytes = preface.encode().expect("fits");
        let len = bytes.len();
        bytes.extend_from_slice(b"GET / HTTP/1.1");
        assert_eq!(Preface::decode(&bytes), Ok(Some((preface, len))));
    }

    #[test]
    fn every_prefix_of_a_preface_asks_for_more() {
        let bytes = Preface {
            target: example(),
            wants_verdict: true,
        }
        .encode()
        .expect("fits");
        for end in 0..bytes.len() {
            assert_eq!(Preface::decode(&bytes[..end]), Ok(None), "{end} bytes");
        }
    }

    #[test]
    fn envoys_own_proxy_protocol_header_is_taken_without_a_verdict() {
        let target = tlv(TLV_TARGET, &example().encode());
        for (family, address) in [(0x00, 0), (0x11, 12), (0x21, 36), (0x31, 216)] {
            let body = [&vec![1; address], &tlv(0x04, b"noop")[..], &target].concat();
            let bytes = header(0x21, family, &body);
            let Ok(Some((preface, len))) = Preface::decode(&bytes) else {
                panic!("family {family:#x}");
            };
            assert_eq!(
                (preface.target, preface.wants_verdict, len),
                (example(), false, bytes.len())
            );
        }
    }

    #[test]
    fn each_kind_of_nonsense_has_its_own_error() {
        let target = tlv(TLV_TARGET, &example().encode());
        let decode = |command, family, body: &[u8]| Preface::decode(&header(command, family, body));
        assert_eq!(Preface::decode(b"GET /"), Err(PrefaceError::Signature));
        assert_eq!(decode(0x11, 0, &target), Err(PrefaceError::Command(0x11)));
        assert_eq!(decode(0x22, 0, &target), Err(PrefaceError::Command(0x22)));
        assert_eq!(decode(0x20, 0x12, &target), Err(PrefaceError::Family(0x12)));
        assert_eq!(decode(0x20, 0, &[]), Err(PrefaceError::NoTarget));
        assert_eq!(
            decode(0x20, 0, &tlv(0x04, &[])),
            Err(PrefaceError::NoTarget)
        );
        assert_eq!(
            decode(0x20, 0, &[TLV_TARGET, 0, 9, 1]),
            Err(PrefaceError::Truncated)
        );
        assert_eq!(decode(0x21, 0x11, &[0; 11]), Err(PrefaceError::Truncated));
        assert_eq!(
            decode(0x20, 0, &[&target[..], &target].concat()),
            Err(PrefaceError::Repeated(0xE0))
        );
        assert_eq!(
            decode(0x20, 0, &[&target[..], &tlv(TLV_FLAGS, &[])].concat()),
            Err(PrefaceError::Flags)
        );
        assert!(matches!(
            decode(0x20, 0, &tlv(TLV_TARGET, &[])),
            Err(PrefaceError::Target(_))
        ));
        let mut long = header(0x20, 0, &[]);
        long[14..16].copy_from_slice(&[0xff, 0xff]);
        assert_eq!(Preface::decode(&long), Err(PrefaceError::TooLong(65551)));
    }
}
