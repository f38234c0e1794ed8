//! Connectors that were off a moment ago, so that a request to them is not tried
//! again.
//!
//! A retry is for a dialer that restarts or a tunnel that is cut. When the dialer
//! has just said that a target's connectors are off, another try within
//! milliseconds hears the same, and the client waits for Envoy's back-off
//! (0 to 14 ms over two retries) for nothing. The transport socket notes the
//! verdicts here, and the HTTP filter looks before it lets a request go on; all
//! workers share what they learn.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use adit_wire::EndpointId;

/// How long a verdict counts. The dialer, too, answers from memory for this long
/// after its last look (`STALE` in its `pool/state.rs`); later it dials while the
/// request waits, and a retry is worth having.
const HOLD: Duration = Duration::from_secs(2);
/// Places in the memory. Two targets on one place forget each other: they
/// get their retries, as if nothing were known.
const PLACES: usize = 256;

static KNOWN: Known = Known::new();

/// Some connectors, in order: a hash, where a collision costs a retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connectors(u64);

impl Connectors {
    /// For these.
    pub fn of(connectors: &[EndpointId]) -> Self {
        let mut hasher = DefaultHasher::new();
        connectors.hash(&mut hasher);
        Self(hasher.finish())
    }

    const fn place(self) -> usize {
        (self.0 % PLACES as u64) as usize
    }
}

/// The dialer has said of these whether one of them was reached.
pub fn note(connectors: Connectors, off: bool, now: Instant) {
    KNOWN.note(connectors, off, now);
}

/// Whether all of these were off a moment ago.
pub fn were(connectors: &[EndpointId], now: Instant) -> bool {
    KNOWN.were(connectors, now)
}

/// What is known, for all workers.
#[derive(Debug)]
struct Known {
    /// Whether there may be something in `memory`. Mostly there is not, and then a
    /// request costs this load, without a lock or a hash.
    any: AtomicBool,
    memory: Mutex<Memory>,
}

#[derive(Debug)]
struct Memory {
    /// Nothing in `places` counts from this moment on.
    until: Option<Instant>,
    places: Vec<Option<(Connectors, Instant)>>,
}

impl Known {
    const fn new() -> Self {
        Self {
            any: AtomicBool::new(false),
            memory: Mutex::new(Memory {
                until: None,
                places: Vec::new(),
            }),
        }
    }

    fn note(&self, connectors: Connectors, off: bool, now: Instant) {
        if off || self.any.load(Ordering::Relaxed) {
            let mut memory = self.memory();
            memory.note(connectors, off, now);
            self.any.store(memory.is_of_use(now), Ordering::Relaxed);
        }
    }

    fn were(&self, connectors: &[EndpointId], now: Instant) -> bool {
        if !self.any.load(Ordering::Relaxed) {
            return false;
        }
        let memory = self.memory();
        if !memory.is_of_use(now) {
            self.any.store(false, Ordering::Relaxed);
            return false;
        }
        memory.were_off(Connectors::of(connectors), now)
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    fn is_of_use(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    fn note(&mut self, connectors: Connectors, off: bool, now: Instant) {
        let place = connectors.place();
        if off {
            // An Envoy that never meets one keeps no memory for them.
            self.places.resize(PLACES, None);
            self.places[place] = Some((connectors, now + HOLD));
            self.until = Some(now + HOLD);
        } else if let Some(known) = self.places.get_mut(place)
            && known.is_some_and(|(who, _)| who == connectors)
        {
            *known = None;
        }
    }

    fn were_off(&self, connectors: Connectors, now: Instant) -> bool {
        let known = self.places.get(connectors.place()).copied().flatten();
        known.is_some_and(|(who, until)| who == connectors && now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_counts_for_its_connectors_until_another_or_for_two_seconds() {
        let ids = [1, 2].map(|byte| EndpointId::from_bytes([byte; 32]));
        let (both, one) = (Connectors::of(&ids), &ids[..1]);
        let now = Instant::now();
        let known = Known::new();
        assert!(!known.were(&ids, now));
        known.note(both, true, now);
        assert!(known.were(&ids, now));
        assert!(!known.were(one, now), "one of them alone is another target");
        known.note(both, false, now);
        assert!(!known.were(&ids, now), "it is back");
        known.note(both, true, now);
        let late = now + HOLD;
        assert!(known.were(&ids, late - Duration::from_nanos(1)));
        assert!(!known.were(&ids, late));
        assert!(!known.any.load(Ordering::Relaxed), "no lock any more");
    }

    #[test]
    fn one_place_is_for_one_target() {
        let now = Instant::now();
        let (one, other) = (Connectors(7), Connectors(7 + PLACES as u64));
        let known = Known::new();
        let were_off = |who| known.memory().were_off(who, now);
        known.note(one, true, now);
        known.note(other, false, now);
        assert!(were_off(one), "another's return is not its own");
        known.note(other, true, now);
        assert!(!were_off(one) && were_off(other));
    }
}
