//! What becomes of one datagram, decided without sockets and without a clock.

use std::time::Duration;

use super::Weather;

/// A seeded chance: the same seed decides the same.
#[derive(Debug, Clone)]
pub(super) struct Dice(u64);

/// What becomes of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// The path is blocked.
    Blocked,
    /// It is lost.
    Lost,
    /// It goes on after this long.
    After(Duration),
}

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Throws for one datagram.
    pub(super) fn fate(&mut self, weather: &Weather) -> Fate {
        // Always thrown twice: a change of the weather leaves the rest of the
        // sequence as it was.
        let (loss, late) = (self.throw(), self.throw());
        if weather.blocked {
            Fate::Blocked
        } else if loss < weather.loss {
            Fate::Lost
        } else {
            Fate::After(weather.delay + weather.jitter.mul_f64(late))
        }
    }

    /// At least 0, less than 1: SplitMix64 (Steele, Lea and Flood 2014).
    fn throw(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        // 53 bits are what a double holds.
        (z >> 11) as f64 / (1u64 << 53) as f64
    }
}
