//! What the pool knows of one connector: a state machine without clock or I/O.
//!
//! ```text
//!          ask               dialled
//!  Idle ───────► Dialing ──────────────► Up
//!   ▲               │ failed              │ lost
//!   │ news, or      ▼                     │
//!   └─ time ─── Resting ◄─────────────────┘ (as Idle: a loss is no failed dial)
//! ```
//!
//! A failed dial rests the connector for a moment (the negative cache), longer
//! with each failure in a row; news from discovery end the rest at once. A
//! connector that is known to be off is dialled again in the background:
//! streams that come meanwhile are answered with the last failure.

use std::time::{Duration, Instant};

/// The rest after the first failure: long enough that a burst of streams costs
/// one dial, short enough that nobody notices it after a restart.
const FIRST_REST: Duration = Duration::from_millis(250);
/// The longest rest. A device is to be reached about a second after it can be.
const LONGEST_REST: Duration = Duration::from_millis(1000);
/// Failed dials in a row after which a connector is known to be off. After one
/// it may have been restarting: a stream waits for the second.
const OFF: u32 = 2;
/// How long after a rest that is still known. A stream that comes later waits
/// for the dial: nobody has looked for a while.
const STALE: Duration = Duration::from_secs(2);

/// One connector's link; at first idle.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkState {
    phase: Phase,
    /// Failed dials in a row.
    failures: u32,
    /// Nobody waits for the dial that is under way.
    probing: bool,
}

/// Where it is in its life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Phase {
    /// Nothing is known against it.
    #[default]
    Idle,
    /// One dial is under way, for everybody.
    Dialing,
    /// Connected.
    Up,
    /// The last dial failed; not asked again before this moment.
    Resting(Instant),
}

/// What a stream that wants the link does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// Use it.
    Use,
    /// Start the dial, then wait for it.
    Dial,
    /// Start a dial, and take the last failure for the answer.
    Probe,
    /// Wait for the dial that is under way.
    Wait,
    /// Take the last failure for the answer.
    Resting,
}

impl LinkState {
    /// Where it is.
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// A stream wants the link.
    pub fn ask(&mut self, now: Instant) -> Ask {
        match self.phase {
            Phase::Up => Ask::Use,
            Phase::Dialing if self.probing => Ask::Resting,
            Phase::Dialing => Ask::Wait,
            Phase::Resting(until) if now < until => Ask::Resting,
            Phase::Resting(until) if self.failures >= OFF && now < until + STALE => {
                self.phase = Phase::Dialing;
                self.probing = true;
                Ask::Probe
            }
            Phase::Idle | Phase::Resting(_) => {
                self.phase = Phase::Dialing;
                Ask::Dial
            }
        }
    }

    /// The dial succeeded.
    pub fn dialled(&mut self) {
        *self = Self {
            phase: Phase::Up,
            ..Self::default()
        };
    }

    /// The dial failed. `jitter` in 0..1 spreads the rests of many dialers by
    /// a quarter either way.
    pub fn failed(&mut self, now: Instant, jitter: f64) {
        let rest = FIRST_REST * 2u32.pow(self.failures.min(2));
        let rest = rest.min(LONGEST_REST);
        let spread = 0.75 + 0.5 * jitter.clamp(0.0, 1.0);
        self.phase = Phase::Resting(now + rest.mul_f64(spread));
        self.failures = self.failures.saturating_add(1);
        self.probing = false;
    }

    /// The link broke. The next stream dials at once.
    pub fn lost(&mut self) {
        if self.phase == Phase::Up {
            self.phase = Phase::Idle;
        }
    }

    /// The peer closed a fresh link on purpose: dialling again at once would
    /// meet the same answer.
    pub fn rejected(&mut self, now: Instant, jitter: f64) {
        if self.phase == Phase::Up {
            self.failed(now, jitter);
        }
    }

    /// Discovery says something new: old failures say nothing any more.
    pub fn news(&mut self) {
        self.probing = false;
        if let Phase::Resting(_) = self.phase {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn many_streams_make_one_dial() {
        let now = Instant::now();
        let mut link = LinkState::default();
        assert_eq!(link.ask(now), Ask::Dial);
        for _ in 0..30 {
            assert_eq!(link.ask(now), Ask::Wait);
        }
        link.dialled();
        assert_eq!(link.ask(now), Ask::Use);
    }

    #[test]
    fn a_failure_rests_the_connector_longer_each_time_up_to_a_second() {
        let mut now = Instant::now();
        let mut link = LinkState::default();
        for (rest, ask) in [
            (250, Ask::Dial),
            (500, Ask::Dial),
            (1000, Ask::Probe),
            (1000, Ask::Probe),
        ] {
            assert_eq!(link.ask(now), ask);
            link.failed(now, 0.5);
            assert_eq!(link.ask(now + (rest - 1) * MS), Ask::Resting);
            now += rest * MS;
        }
        assert_eq!(link.ask(now), Ask::Probe);
        link.dialled();
        link.lost();
        assert_eq!(link.ask(now), Ask::Dial);
        link.failed(now, 0.5);
        assert_eq!(link.phase(), Phase::Resting(now + 250 * MS), "forgotten");
    }

    /// Off for two dials, and its rest is over.
    fn off(now: Instant) -> LinkState {
        let mut link = LinkState::default();
        for at in [now, now + 250 * MS] {
            assert_eq!(link.ask(at), Ask::Dial);
            link.failed(at, 0.5);
        }
        link
    }

    #[test]
    fn nobody_waits_for_a_connector_that_is_known_to_be_off() {
        let start = Instant::now();
        let now = start + 750 * MS;
        let mut link = off(start);
        assert_eq!(link.ask(now), Ask::Probe);
        assert_eq!(link.ask(now), Ask::Resting, "while it is dialled");
        link.dialled();
        assert_eq!(link.ask(now), Ask::Use);
        link.lost();
        assert_eq!(link.ask(now), Ask::Dial, "a loss is no failed dial");
        assert_eq!(link.ask(now), Ask::Wait);
    }

    #[test]
    fn what_was_known_long_ago_is_not_known_and_news_make_streams_wait() {
        let start = Instant::now();
        let late = start + 750 * MS + STALE;
        let mut link = off(start);
        assert_eq!(link.ask(late), Ask::Dial);
        assert_eq!(link.ask(late), Ask::Wait);
        let mut link = off(start);
        assert_eq!(link.ask(late - MS), Ask::Probe);
        link.news();
        assert_eq!(link.ask(late), Ask::Wait);
    }

    #[test]
    fn jitter_spreads_the_rest_by_a_quarter() {
        let now = Instant::now();
        for (jitter, rest) in [(0.0, 187_500), (1.0, 312_500), (7.0, 312_500)] {
            let mut link = LinkState::default();
            link.ask(now);
            link.failed(now, jitter);
            let until = now + Duration::from_micros(rest);
            assert_eq!(link.phase(), Phase::Resting(until));
        }
    }

    #[test]
    fn news_end_the_rest_but_not_a_dial_or_a_link() {
        let now = Instant::now();
        let mut link = LinkState::default();
        link.ask(now);
        link.news();
        assert_eq!(link.phase(), Phase::Dialing);
        link.failed(now, 0.5);
        link.news();
        assert_eq!(link.ask(now), Ask::Dial);
        link.dialled();
        link.news();
        assert_eq!(link.phase(), Phase::Up);
    }

    #[test]
    fn a_link_that_the_peer_rejects_rests_too() {
        let now = Instant::now();
        let mut link = LinkState::default();
        link.ask(now);
        link.dialled();
        link.rejected(now, 0.5);
        assert_eq!(link.ask(now), Ask::Resting);
    }

    #[test]
    fn a_loss_is_dialled_again_at_once_and_a_late_loss_is_ignored() {
        let now = Instant::now();
        let mut link = LinkState::default();
        link.ask(now);
        link.dialled();
        link.lost();
        assert_eq!(link.ask(now), Ask::Dial);
        link.lost();
        assert_eq!(link.phase(), Phase::Dialing, "the old link's loss");
    }
}
