//! Is the agent there? A state machine without a clock of its own.
//!
//! ```text
//!        heartbeat                 duration                 + half of it
//! Never ─────────► Fresh ────────────────────► Late ───────────────────► Expired
//!                    ▲  └── released ──► Released   (as it was before)       │
//!                    └───────────────────────────────────────────────────────┘
//! ```
//!
//! A heartbeat is a change of the Lease's `renewTime` or holder. When it
//! counts from is measured by this process's own steady clock: the agent's
//! clock may be wrong, and its device may be a laptop. `renewTime` itself is
//! believed only as far as it is older than now, never newer.
//!
//! In `Late`, readiness stays what it was: one late heartbeat changes nothing.
//! A Lease that has expired by the day's time when this process first sees it
//! is `Late` too, for as long: the agent's clock may be behind, and then its
//! next heartbeat is near. So a restart of this process changes nothing either.

use std::time::Duration;

use k8s_openapi::{api::coordination::v1::LeaseSpec, jiff::Timestamp};

/// For a Lease that says none, and what it is kept within: a Lease of a second
/// would flap for ever, one of a day says nothing.
const DEFAULT_DURATION: Duration = Duration::from_secs(30);
const MIN_DURATION: Duration = Duration::from_secs(5);
const MAX_DURATION: Duration = Duration::from_secs(3600);
/// So many changes of the holder within five durations are two agents that
/// renew one Lease in turn.
const CONTEST: u32 = 3;

/// Two clocks, read at the same moment.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// The time of day: it may jump.
    pub wall: Timestamp,
    /// Since some moment: it never goes back.
    pub steady: Duration,
}

/// What a Lease says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    renewed: Option<Timestamp>,
    duration: Duration,
    holder: Option<String>,
}

/// What is known of one Lease.
#[derive(Debug, Clone)]
pub struct Liveness {
    heartbeat: Heartbeat,
    /// When the last heartbeat was; it may have been before this process.
    last: Option<Since>,
    /// No heartbeat has been seen, only what one before this process left.
    unconfirmed: bool,
    changes: u32,
    changes_since: Duration,
    released: bool,
}

/// A moment by its age at another.
#[derive(Debug, Clone, Copy)]
struct Since {
    seen: Duration,
    age: Duration,
}

/// Whether the agent is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The Lease has not been renewed yet.
    Never,
    /// It is renewed; the state is `Late` after this time.
    Fresh(Duration),
    /// It is overdue; the state is `Expired` after this time.
    Late(Duration),
    /// It is long overdue.
    Expired,
    /// The agent said that it ends.
    Released,
}

impl Heartbeat {
    /// Reads a Lease.
    pub fn of(spec: Option<&LeaseSpec>) -> Self {
        let seconds = spec.and_then(|s| s.lease_duration_seconds);
        let seconds = seconds.and_then(|s| u64::try_from(s).ok());
        let duration = seconds.map_or(DEFAULT_DURATION, Duration::from_secs);
        Self {
            renewed: spec.and_then(|s| s.renew_time.as_ref()).map(|t| t.0),
            duration: duration.clamp(MIN_DURATION, MAX_DURATION),
            holder: spec.and_then(|s| s.holder_identity.clone()),
        }
    }

    /// For how long a renewal counts.
    pub fn duration(&self) -> Duration {
        self.duration
    }
}

impl Liveness {
    /// At the first sight of a Lease.
    pub fn first(heartbeat: Heartbeat, now: Now) -> Self {
        let last = heartbeat.renewed.map(|renewed| Since {
            seen: now.steady,
            age: age(renewed, now.wall),
        });
        Self {
            released: heartbeat.holder.as_deref() == Some(""),
            heartbeat,
            last,
            unconfirmed: true,
            changes: 0,
            changes_since: now.steady,
        }
    }

    /// At every further sight of it. Whether the holder is another one.
    pub fn look(&mut self, heartbeat: Heartbeat, now: Now) -> bool {
        let named = |h: &Heartbeat| h.holder.clone().filter(|h| !h.is_empty());
        let (before, after) = (named(&self.heartbeat), named(&heartbeat));
        let other_holder = before.is_some() && after.is_some() && before != after;
        let renewed = heartbeat.renewed != self.heartbeat.renewed;
        if renewed || other_holder {
            self.unconfirmed = false;
            self.last = heartbeat.renewed.map(|renewed| {
                let age = age(renewed, now.wall);
                // It came just now, so it is not old: the agent's clock is wrong.
                let age = if age > heartbeat.duration {
                    Duration::ZERO
                } else {
                    age
                };
                Since {
                    seen: now.steady,
                    age,
                }
            });
        }
        // An agent that ends leaves no holder; one that never names itself is
        // not an agent that ends.
        if heartbeat.holder.as_deref() == Some("") || (before.is_some() && after.is_none()) {
            self.released = true;
        } else if after.is_some() || renewed {
            self.released = false;
        }
        if other_holder {
            if now.steady.saturating_sub(self.changes_since) > heartbeat.duration * 5 {
                self.changes = 0;
                self.changes_since = now.steady;
            }
            self.changes = self.changes.saturating_add(1);
        }
        self.heartbeat = heartbeat;
        other_holder
    }

    /// The state now.
    pub fn state(&self, now: Now) -> State {
        if self.released {
            return State::Released;
        }
        let Some(last) = self.last else {
            return State::Never;
        };
        let duration = self.heartbeat.duration;
        let at_sight = if self.unconfirmed {
            last.age.min(duration)
        } else {
            last.age
        };
        let age = at_sight + now.steady.saturating_sub(last.seen);
        let limit = duration + duration / 2;
        if age < duration {
            State::Fresh(duration - age)
        } else if age < limit {
            State::Late(limit - age)
        } else {
            State::Expired
        }
    }

    /// How long ago the last heartbeat was; `None` when there was none.
    pub fn age(&self, now: Now) -> Option<Duration> {
        let last = self.last?;
        Some(last.age + now.steady.saturating_sub(last.seen))
    }

    /// For how long a renewal counts.
    pub fn duration(&self) -> Duration {
        self.heartbeat.duration
    }

    /// Whether several agents renew the Lease in turn.
    pub fn is_contested(&self, now: Now) -> bool {
        self.changes >= CONTEST
            && now.steady.saturating_sub(self.changes_since) <= self.heartbeat.duration * 10
    }
}

impl State {
    /// Whether the agent counts as there, when it did `before` or not.
    pub fn is_alive(self, before: bool) -> bool {
        match self {
            Self::Fresh(_) => true,
            Self::Late(_) => before,
            Self::Never | Self::Expired | Self::Released => false,
        }
    }

    /// When an agent that is alive stops being so without a heartbeat.
    pub fn ends(self, duration: Duration) -> Option<Duration> {
        match self {
            Self::Fresh(left) => Some(left + duration / 2),
            Self::Late(left) => Some(left),
            Self::Never | Self::Expired | Self::Released => None,
        }
    }
}

/// Nothing is from the future, and nothing so old that it overflows.
fn age(renewed: Timestamp, wall: Timestamp) -> Duration {
    let age = Duration::try_from(wall.duration_since(renewed)).unwrap_or_default();
    age.min(MAX_DURATION * 100)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

    use super::*;

    const NOON: i64 = 1_800_000_000;

    /// A clock that is moved by hand.
    #[derive(Clone, Copy)]
    struct Clock {
        wall: i64,
        steady: u64,
    }

    impl Clock {
        fn now(self) -> Now {
            Now {
                wall: Timestamp::from_second(self.wall).expect("in range"),
                steady: Duration::from_secs(self.steady),
            }
        }

        fn pass(&mut self, seconds: u64) -> Now {
            self.wall += i64::try_from(seconds).expect("small");
            self.steady += seconds;
            self.now()
        }
    }

    fn clock() -> Clock {
        Clock {
            wall: NOON,
            steady: 1000,
        }
    }

    fn lease(renewed: i64, holder: Option<&str>) -> Heartbeat {
        Heartbeat::of(Some(&LeaseSpec {
            renew_time: Some(MicroTime(
                Timestamp::from_second(renewed).expect("in range"),
            )),
            lease_duration_seconds: Some(30),
            holder_identity: holder.map(Into::into),
            ..LeaseSpec::default()
        }))
    }

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_lease_that_nobody_renews_says_nothing_yet() {
        let live = Liveness::first(Heartbeat::of(None), clock().now());
        assert_eq!(live.state(clock().now()), State::Never);
        assert_eq!(live.duration(), seconds(30));
    }

    #[test]
    fn one_late_heartbeat_changes_nothing() {
        let mut clock = clock();
        let mut live = Liveness::first(lease(NOON, Some("a")), clock.now());
        assert_eq!(live.state(clock.pass(10)), State::Fresh(seconds(20)));
        let late = live.state(clock.pass(30));
        assert_eq!(late, State::Late(seconds(5)));
        assert!(late.is_alive(true) && !late.is_alive(false));
        let now = clock.pass(1);
        live.look(lease(clock.wall, Some("a")), now);
        assert_eq!(live.state(now), State::Fresh(seconds(30)));
        let now = clock.pass(45);
        assert_eq!(live.state(now), State::Expired);
        live.look(lease(clock.wall, Some("a")), now);
        assert!(live.state(now).is_alive(false));
    }

    #[test]
    fn a_restarted_reconciler_goes_by_the_renew_time() {
        let now = clock().now();
        let fresh = Liveness::first(lease(NOON - 20, None), now);
        assert_eq!(fresh.state(now), State::Fresh(seconds(10)));
    }

    #[test]
    fn a_restarted_reconciler_waits_for_an_agent_whose_clock_is_behind() {
        for renewed in [NOON - 40, NOON - 3600, 0] {
            let mut clock = clock();
            let live = Liveness::first(lease(renewed, None), clock.now());
            let state = live.state(clock.now());
            assert_eq!(state, State::Late(seconds(15)));
            assert!(state.is_alive(true) && !state.is_alive(false));
            assert!(live.age(clock.now()) >= Some(seconds(40)));
            assert_eq!(live.state(clock.pass(15)), State::Expired);
        }
    }

    #[test]
    fn an_agent_whose_clock_is_wrong_is_alive_while_it_renews() {
        for offset in [-86_400, -40, 40, 86_400, 3_000_000_000] {
            let mut clock = clock();
            let mut live = Liveness::first(lease(clock.wall + offset, Some("a")), clock.now());
            for _ in 0..5 {
                let now = clock.pass(10);
                live.look(lease(clock.wall + offset, Some("a")), now);
                assert!(matches!(live.state(now), State::Fresh(_)), "{offset}");
            }
            assert_eq!(live.state(clock.pass(45)), State::Expired, "{offset}");
        }
    }

    #[test]
    fn a_renew_time_of_the_future_counts_from_now() {
        let mut clock = clock();
        let live = Liveness::first(lease(NOON + 1_000_000, Some("a")), clock.now());
        assert_eq!(live.state(clock.now()), State::Fresh(seconds(30)));
        assert_eq!(live.state(clock.pass(45)), State::Expired);
    }

    #[test]
    fn a_jump_of_our_own_clock_changes_nothing() {
        for jump in [-7200, 7200] {
            let mut clock = clock();
            let mut live = Liveness::first(lease(NOON, Some("a")), clock.now());
            clock.wall += jump;
            assert_eq!(
                live.state(clock.pass(10)),
                State::Fresh(seconds(20)),
                "{jump}"
            );
            // The agent's clock has not jumped.
            let now = clock.pass(0);
            live.look(lease(NOON + 10, Some("a")), now);
            assert_eq!(live.state(now), State::Fresh(seconds(30)), "{jump}");
        }
    }

    #[test]
    fn what_is_seen_again_unchanged_is_no_heartbeat() {
        let mut clock = clock();
        let mut live = Liveness::first(lease(NOON, Some("a")), clock.now());
        for _ in 0..9 {
            let now = clock.pass(5);
            live.look(lease(NOON, Some("a")), now);
        }
        assert_eq!(live.state(clock.now()), State::Expired);
    }

    #[test]
    fn a_released_lease_is_not_alive_and_a_renewal_ends_that() {
        let mut emptied = lease(NOON, None);
        emptied.renewed = None;
        for left in [lease(NOON, Some("")), lease(NOON, None), emptied] {
            let mut clock = clock();
            let mut live = Liveness::first(lease(NOON, Some("a")), clock.now());
            live.look(left.clone(), clock.pass(1));
            assert_eq!(live.state(clock.now()), State::Released, "{left:?}");
            let now = clock.pass(60);
            live.look(lease(clock.wall, Some("a")), now);
            assert!(live.state(now).is_alive(false));
        }
        // An agent that never names itself has not ended.
        let mut clock = clock();
        let mut live = Liveness::first(lease(NOON, None), clock.now());
        live.look(lease(NOON, None), clock.pass(1));
        assert_eq!(live.state(clock.now()), State::Fresh(seconds(29)));
        let ended = Liveness::first(lease(NOON, Some("")), clock.now());
        assert_eq!(ended.state(clock.now()), State::Released);
    }

    #[test]
    fn two_agents_on_one_lease_are_noticed_and_a_move_is_not() {
        let mut clock = clock();
        let mut live = Liveness::first(lease(NOON, Some("a")), clock.now());
        for holder in ["b", "a", "b"] {
            assert!(!live.is_contested(clock.now()));
            let now = clock.pass(5);
            assert!(live.look(lease(clock.wall, Some(holder)), now));
        }
        assert!(live.is_contested(clock.now()));
        assert!(!live.is_contested(clock.pass(600)));
    }

    #[test]
    fn a_duration_has_bounds() {
        for (given, used) in [
            (Some(1), 5),
            (Some(-3), 30),
            (None, 30),
            (Some(i32::MAX), 3600),
        ] {
            let spec = LeaseSpec {
                lease_duration_seconds: given,
                ..LeaseSpec::default()
            };
            assert_eq!(Heartbeat::of(Some(&spec)).duration(), seconds(used));
        }
    }
}
