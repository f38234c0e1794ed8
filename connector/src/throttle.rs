//! A log line that strangers can cause, at most once in a while.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

/// One line of a kind in this time; the next says how many were left out.
const PAUSE: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(crate) struct Throttle(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last: Option<Instant>,
    left_out: u64,
}

impl Throttle {
    /// How many lines were left out since the last one, if any, when it is time
    /// for another; `None` when this one has to be left out.
    pub(crate) fn pass(&self) -> Option<Option<u64>> {
        let left_out = self.pass_at(Instant::now())?;
        Some((left_out > 0).then_some(left_out))
    }

    fn pass_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(|e| e.into_inner());
        if state
            .last
            .is_some_and(|last| now.duration_since(last) < PAUSE)
        {
            state.left_out += 1;
            return None;
        }
        state.last = Some(now);
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
        assert_eq!(throttle.pass_at(start + PAUSE / 2), None);
        assert_eq!(throttle.pass_at(start + PAUSE), Some(2));
    }
}
