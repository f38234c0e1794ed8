//! An iroh EndpointId: the Ed25519 public key that names a connector or a dialer.

use std::{fmt, str::FromStr};

use data_encoding::{Encoding, HEXLOWER, HEXLOWER_PERMISSIVE, Specification};

/// 32 bytes of an Ed25519 public key. Shown as 64 lowercase hex digits.
///
/// This crate carries keys, it does not use them: whether the bytes are a
/// point on the curve is checked where a connection is made.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointId([u8; 32]);

/// Why a text is not an EndpointId.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "an EndpointId is 64 hex digits or 52 characters of z-base-32, and this is neither ({0} characters)"
)]
pub struct ParseEndpointIdError(usize);

impl EndpointId {
    /// The key of these bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The key's bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The z-base-32 form that discovery records use: 52 characters.
    pub fn to_z32(&self) -> String {
        z32().encode(&self.0)
    }

    /// The first ten hex digits: enough for a log line or a table.
    pub fn short(&self) -> String {
        HEXLOWER.encode(&self.0[..5])
    }
}

/// z-base-32 as iroh and pkarr use it: most significant bit first, no padding.
fn z32() -> Encoding {
    let mut spec = Specification::new();
    spec.symbols.push_str("ybndrfg8ejkmcpqxot1uwisza345h769");
    spec.encoding()
        .expect("the z-base-32 alphabet is a valid specification")
}

impl FromStr for EndpointId {
    type Err = ParseEndpointIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ParseEndpointIdError(text.chars().count());
        let bytes = match text.len() {
            64 => HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok(),
            52 => z32().decode(text.to_ascii_lowercase().as_bytes()).ok(),
            _ => None,
        };
        bytes
            .and_then(|bytes| bytes.try_into().ok())
            .map(Self)
            .ok_or_else(wrong)
    }
}

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EndpointId({})", self.short())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_and_z32_name_the_same_key() {
        let id = EndpointId::from_bytes(std::array::from_fn(|i| i as u8 * 7));
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.to_z32().len(), 52);
        assert_eq!(id.to_z32().parse(), Ok(id));
    }

    #[test]
    fn a_text_that_is_no_key_is_refused() {
        for text in ["", "abc", &"g".repeat(64), &"0".repeat(63), &"l".repeat(52)] {
            assert!(text.parse::<EndpointId>().is_err(), "{text}");
        }
    }
}
