//! Log lines that strangers can cause: some in a while, the others counted.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// The time in which so many lines of a kind are let through.
const PERIOD: Duration = Duration::from_secs(10);

/// Lets some lines through in ten seconds; the next one says how many were
/// left out.
#[derive(Debug)]
pub struct Throttle {
    burst: u32,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    since: Option<Instant>,
    said: u32,
    left_out: u64,
}

impl Default for Throttle {
    /// One line in ten seconds.
    fn default() -> Self {
        Self::bursts(1)
    }
}

impl Throttle {
    /// `burst` lines in ten seconds.
    pub fn bursts(burst: u32) -> Self {
        Self {
            burst,
            state: Mutex::default(),
        }
    }

    /// How many lines were left out since the last one, if any, when there may
    /// be another; `None` when this one has to be left out.
    pub fn pass(&self) -> Option<Option<u64>> {
        let left_out = self.pass_at(Instant::now())?;
        Some((left_out > 0).then_some(left_out))
    }

    fn pass_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let over = state
            .since
            .is_none_or(|since| now.duration_since(since) >= PERIOD);
        if over {
            state.since = Some(now);
            state.said = 0;
        }
        if state.said >= self.burst {
            state.left_out += 1;
            return None;
        }
        state.said += 1;
        Some(std::mem::take(&mut state.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_left_out_is_counted_by_the_next_line() {
        let throttle = Throttle::default();
        let start = Instant::now();
        assert_eq!(throttle.pass_at(start), Some(0));
        assert_eq!(throttle.pass_at(start), None);
        assert_eq!(throttle.pass_at(start + PERIOD / 2), None);
        assert_eq!(throttle.pass_at(start + PERIOD), Some(2));
    }

    #[test]
    fn a_burst_is_let_through_and_then_nothing_until_the_period_is_over() {
        let (throttle, now) = (Throttle::bursts(10), Instant::now());
        let lines = (0..100).filter_map(|_| throttle.pass_at(now)).count();
        assert_eq!(lines, 10);
        assert_eq!(throttle.pass_at(now + PERIOD), Some(90));
    }
}
