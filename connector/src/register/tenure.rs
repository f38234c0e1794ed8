//! Whose Connector is it? Two agents may have one name, or one key. Decided
//! from what the Lease says, without comparing two machines' clocks.
//!
//! * **The same key twice** (a device that was cloned, or that moved): the
//!   agent that started last takes over at once, so that a device which comes
//!   up elsewhere is reachable in seconds. The other one stands back.
//! * **Another key under the same name** (two devices called `laptop`): who
//!   holds the Lease keeps it for as long as it renews it.

use std::time::Duration;

use tokio::time::Instant;

/// What one agent knows of the Lease's other holders.
#[derive(Debug)]
pub(crate) struct Tenure {
    /// This process's name in the Lease.
    identity: String,
    /// Whether this process has held the Lease.
    held: bool,
    /// The other holder as it was seen last, and since when it looks like that.
    other: Option<(Mark, Instant)>,
    /// The mark that an agent which stands back leaves, likewise.
    contender: Option<(String, Instant)>,
    /// When that mark last changed before our eyes.
    contended: Option<(String, Instant)>,
}

/// What changes whenever a holder renews.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mark {
    holder: String,
    renewed: String,
}

/// The Lease as it is now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen<'a> {
    /// Who holds it.
    pub(crate) holder: Option<&'a str>,
    /// When it was renewed, in the holder's words.
    pub(crate) renewed: &'a str,
    /// Its duration.
    pub(crate) duration: Duration,
    /// The mark of an agent that stands back.
    pub(crate) contender: Option<&'a str>,
    /// Whether the Connector names another key than ours.
    pub(crate) other_key: bool,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Renew the Lease: the Connector is ours.
    Hold {
        /// Who held it until now.
        displaced: Option<String>,
        /// Who would like to.
        contender: Option<String>,
    },
    /// Write nothing but a mark: the Connector is this holder's.
    StandBack {
        /// Who it is.
        holder: String,
    },
}

impl Tenure {
    pub(crate) fn new(identity: String) -> Self {
        Self {
            identity,
            held: false,
            other: None,
            contender: None,
            contended: None,
        }
    }

    /// This process's name in the Lease.
    pub(crate) fn identity(&self) -> &str {
        &self.identity
    }

    /// Whose turn it is.
    pub(crate) fn turn(&mut self, seen: Seen<'_>, now: Instant) -> Turn {
        let contender = self.contended_by(seen, now);
        let Some(holder) = seen.holder.filter(|h| *h != self.identity) else {
            self.other = None;
            self.held = true;
            return Turn::Hold {
                displaced: None,
                contender,
            };
        };
        let mark = Mark {
            holder: holder.to_owned(),
            renewed: seen.renewed.to_owned(),
        };
        let since = match &self.other {
            Some((old, since)) if *old == mark => *since,
            _ => now,
        };
        self.other = Some((mark, since));
        let silent = now - since >= seen.duration;
        let takes_over = !self.held && !seen.other_key;
        if silent || takes_over {
            self.other = None;
            self.held = true;
            return Turn::Hold {
                displaced: Some(holder.to_owned()),
                contender,
            };
        }
        Turn::StandBack {
            holder: holder.to_owned(),
        }
    }

    /// The agent that stands back, if its mark moves: one that was left behind
    /// counts for nothing.
    fn contended_by(&mut self, seen: Seen<'_>, now: Instant) -> Option<String> {
        let mark = seen.contender.unwrap_or_default().to_owned();
        let moved = match &self.contender {
            Some((old, _)) => *old != mark,
            None => false,
        };
        if moved || self.contender.is_none() {
            self.contender = Some((mark.clone(), now));
        }
        if moved && !mark.is_empty() {
            self.contended = Some((mark, now));
        }
        // It leaves a mark every third of the duration.
        self.contended.take_if(|(_, at)| now - *at >= seen.duration);
        let (mark, _) = self.contended.as_ref()?;
        let name = mark.split_whitespace().next().unwrap_or_default();
        Some(name.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: Duration = Duration::from_secs(30);

    fn seen<'a>(holder: &'a str, renewed: &'a str, other_key: bool) -> Seen<'a> {
        Seen {
            holder: (!holder.is_empty()).then_some(holder),
            renewed,
            duration: D,
            contender: None,
            other_key,
        }
    }

    fn hold(displaced: Option<&str>) -> Turn {
        Turn::Hold {
            displaced: displaced.map(str::to_owned),
            contender: None,
        }
    }

    fn back(holder: &str) -> Turn {
        Turn::StandBack {
            holder: holder.into(),
        }
    }

    #[test]
    fn of_two_agents_with_one_key_the_later_one_takes_over_and_the_earlier_one_stands_back() {
        let now = Instant::now();
        let (mut first, mut second) = (Tenure::new("a".into()), Tenure::new("b".into()));
        assert_eq!(first.turn(seen("", "", false), now), hold(None));
        assert_eq!(second.turn(seen("a", "1", false), now), hold(Some("a")));
        // The second one goes on renewing: nobody fights.
        for i in 1..20 {
            let now = now + D / 3 * i;
            let renewed = i.to_string();
            assert_eq!(first.turn(seen("b", &renewed, false), now), back("b"));
            assert_eq!(second.turn(seen("b", &renewed, false), now), hold(None));
        }
    }

    #[test]
    fn a_name_stays_with_the_key_that_renews_it() {
        let now = Instant::now();
        let mut intruder = Tenure::new("b".into());
        for i in 0..20 {
            let turn = intruder.turn(seen("a", &i.to_string(), true), now + D / 3 * i);
            assert_eq!(turn, back("a"));
        }
    }

    #[test]
    fn a_holder_that_is_silent_for_the_whole_duration_is_replaced() {
        let now = Instant::now();
        let mut next = Tenure::new("b".into());
        assert_eq!(next.turn(seen("a", "1", true), now), back("a"));
        let almost = now + D - Duration::from_millis(1);
        assert_eq!(next.turn(seen("a", "1", true), almost), back("a"));
        assert_eq!(next.turn(seen("a", "1", true), now + D), hold(Some("a")));
    }

    #[test]
    fn a_clock_that_is_wrong_by_years_decides_nothing() {
        let now = Instant::now();
        let mut next = Tenure::new("b".into());
        for (i, renewed) in ["1970-01-01T00:00:00Z", "2970-01-01T00:00:00Z"]
            .iter()
            .enumerate()
        {
            let now = now + D / 2 * i as u32;
            assert_eq!(next.turn(seen("a", renewed, true), now), back("a"));
        }
    }

    #[test]
    fn a_lease_that_was_released_is_taken_at_once() {
        let mut next = Tenure::new("b".into());
        assert_eq!(next.turn(seen("", "", true), Instant::now()), hold(None));
    }

    #[test]
    fn a_contender_is_known_by_a_mark_that_moves() {
        let start = Instant::now();
        let mut holder = Tenure::new("a".into());
        let mut look = |mark: &str, after: Duration| {
            let seen = Seen {
                contender: (!mark.is_empty()).then_some(mark),
                ..seen("a", "1", false)
            };
            match holder.turn(seen, start + after) {
                Turn::Hold { contender, .. } => contender,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(look("b 1", Duration::ZERO), None, "left behind by somebody");
        assert_eq!(look("b 1", D / 3), None);
        assert_eq!(look("b 2", D / 2), Some("b".to_owned()));
        assert_eq!(look("b 2", D), Some("b".to_owned()));
        assert_eq!(look("b 2", D * 2), None, "it has gone");
        assert_eq!(look("", D * 3), None);
    }
}
