//! Bytes that both ends can make and check without keeping them.

use bytes::Bytes;
use sha2::{Digest, Sha256};

/// The piece size of [`Pattern::next_piece`]. A prime number of words, so that no
/// buffer size on the way divides it.
const PIECE: usize = 8 * 4099;

/// An endless, seeded, incompressible-looking run of bytes.
#[derive(Debug, Clone)]
pub struct Pattern(u64);

impl Pattern {
    /// The bytes of this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next bytes, at most `max`.
    pub fn next_piece(&mut self, max: u64) -> Bytes {
        let len = usize::try_from(max).unwrap_or(PIECE).min(PIECE);
        let mut piece = Vec::with_capacity(len + 8);
        while piece.len() < len {
            // xorshift64, Marsaglia 2003.
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            piece.extend_from_slice(&self.0.to_le_bytes());
        }
        piece.truncate(len);
        Bytes::from(piece)
    }

    /// The SHA-256 of the first `len` bytes.
    pub fn sha256(seed: u64, len: u64) -> String {
        let mut pattern = Self::new(seed);
        let mut hasher = Hasher::default();
        let mut left = len;
        while left > 0 {
            let piece = pattern.next_piece(left);
            left -= piece.len() as u64;
            hasher.update(&piece);
        }
        hasher.finish()
    }
}

/// SHA-256 and length of what went by.
#[derive(Default)]
pub struct Hasher {
    sha256: Sha256,
    len: u64,
}

impl Hasher {
    /// Takes more bytes in.
    pub fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        self.len += bytes.len() as u64;
    }

    /// How many bytes went by.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether none did.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The hash in hex.
    pub fn finish(self) -> String {
        data_encoding::HEXLOWER.encode(&self.sha256.finalize())
    }
}

/// The SHA-256 of `bytes` in hex.
pub fn sha256(bytes: &[u8]) -> String {
    let mut hasher = Hasher::default();
    hasher.update(bytes);
    hasher.finish()
}
