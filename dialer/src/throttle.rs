//! Keeps one kind of trouble from filling the log.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Lets `BURST` lines through in each `PERIOD`.
const PERIOD: Duration = Duration::from_secs(10);
const BURST: u32 = 10;

/// Counts what was said lately.
#[derive(Debug, Default)]
pub struct Throttle(Mutex<Option<(Instant, u32)>>);

impl Throttle {
    /// Whether another line may be written now.
    pub fn allows(&self) -> bool {
        self.allows_at(Instant::now())
    }

    fn allows_at(&self, now: Instant) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, said) = state
            .filter(|(since, _)| now - *since < PERIOD)
            .unwrap_or((now, 0));
        *state = Some((since, said.saturating_add(1)));
        said < BURST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_let_through_and_then_nothing_until_the_period_is_over() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        let lines = (0..100).filter(|_| throttle.allows_at(now)).count();
        assert_eq!(lines, BURST as usize);
        assert!(throttle.allows_at(now + PERIOD));
    }
}
