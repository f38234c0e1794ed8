//! Which of a target's connectors serves a stream: a state machine without
//! clock or I/O.
//!
//! A connector that is known to be live is taken at once, the first such in
//! the target's order. Otherwise they are dialled in order, each a small head
//! start after the one before, and the first link wins. Whatever fails is
//! crossed off, and only when all are is the stream refused.

use std::time::{Duration, Instant};

use adit_wire::ErrorClass;

/// How long the preferred connector may take before the next is dialled too
/// (RFC 8305 section 5 recommends the same for addresses).
pub const HEAD_START: Duration = Duration::from_millis(250);

/// The candidates of one stream.
#[derive(Debug)]
pub struct Choice {
    candidates: Vec<Candidate>,
    /// When the next dial may start although others are under way.
    next_start: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Candidate {
    Waiting { live: bool },
    Started,
    Failed(ErrorClass),
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Dial (or take the link of) this candidate, by its index, and ask again.
    Start(usize),
    /// Wait for one that was started, at most until then.
    Wait(Option<Instant>),
    /// All have failed: this is why.
    Refuse(ErrorClass),
}

impl Choice {
    /// Candidates in the target's order; `live` says for each whether it is
    /// connected now.
    pub fn new(live: impl IntoIterator<Item = bool>) -> Self {
        Self {
            candidates: live
                .into_iter()
                .map(|live| Candidate::Waiting { live })
                .collect(),
            next_start: None,
        }
    }

    /// What to do at `now`.
    pub fn step(&mut self, now: Instant) -> Step {
        let started = self.candidates.contains(&Candidate::Started);
        let Some(next) = self.next() else {
            return if started {
                Step::Wait(None)
            } else {
                Step::Refuse(self.verdict())
            };
        };
        if started && let Some(at) = self.next_start.filter(|at| now < *at) {
            return Step::Wait(Some(at));
        }
        self.candidates[next] = Candidate::Started;
        self.next_start = Some(now + HEAD_START);
        Step::Start(next)
    }

    /// A started candidate failed.
    pub fn failed(&mut self, index: usize, class: ErrorClass) {
        self.candidates[index] = Candidate::Failed(class);
        // Its successor waits for nobody.
        self.next_start = None;
    }

    /// A started candidate's link broke before the answer: it may be tried
    /// again, after the others.
    pub fn again(&mut self, index: usize) {
        self.candidates[index] = Candidate::Waiting { live: false };
        self.next_start = None;
    }

    /// How many have not failed yet.
    pub fn left(&self) -> usize {
        let failed = |c: &&Candidate| !matches!(c, Candidate::Failed(_));
        self.candidates.iter().filter(failed).count()
    }

    fn next(&self) -> Option<usize> {
        let find = |wanted: bool| {
            let is = |c: &Candidate| matches!(c, Candidate::Waiting { live } if *live == wanted);
            self.candidates.iter().position(is)
        };
        find(true).or_else(|| find(false))
    }

    /// `offline` only if all are: a connector that answered says more.
    fn verdict(&self) -> ErrorClass {
        let answered = self.candidates.iter().find_map(|c| match c {
            Candidate::Failed(class) if *class != ErrorClass::Offline => Some(*class),
            _ => None,
        });
        answered.unwrap_or(ErrorClass::Offline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_live_connector_is_taken_before_a_preferred_one_that_is_not() {
        let now = Instant::now();
        let mut choice = Choice::new([false, true, true]);
        assert_eq!(choice.step(now), Step::Start(1));
        assert_eq!(choice.step(now), Step::Wait(Some(now + HEAD_START)));
        choice.failed(1, ErrorClass::Refused);
        assert_eq!(choice.step(now), Step::Start(2));
        choice.failed(2, ErrorClass::Offline);
        assert_eq!(choice.step(now), Step::Start(0));
        assert_eq!(choice.step(now), Step::Wait(None));
        choice.failed(0, ErrorClass::Offline);
        assert_eq!(choice.step(now), Step::Refuse(ErrorClass::Refused));
    }

    #[test]
    fn cold_connectors_race_with_head_starts_in_order() {
        let mut now = Instant::now();
        let mut choice = Choice::new([false, false, false]);
        assert_eq!(choice.step(now), Step::Start(0));
        assert_eq!(choice.step(now), Step::Wait(Some(now + HEAD_START)));
        now += HEAD_START;
        assert_eq!(choice.step(now), Step::Start(1));
        choice.failed(0, ErrorClass::Offline);
        assert_eq!(choice.step(now), Step::Start(2), "a failure frees the next");
        assert_eq!(choice.step(now), Step::Wait(None));
    }

    #[test]
    fn offline_only_if_all_are() {
        let now = Instant::now();
        let mut choice = Choice::new([false, false]);
        for class in [ErrorClass::Offline, ErrorClass::Offline] {
            let Step::Start(i) = choice.step(now) else {
                panic!("a candidate is left");
            };
            choice.failed(i, class);
        }
        assert_eq!(choice.step(now), Step::Refuse(ErrorClass::Offline));
    }

    #[test]
    fn a_broken_link_is_tried_again_after_the_others() {
        let now = Instant::now();
        let mut choice = Choice::new([true, true]);
        assert_eq!(choice.step(now), Step::Start(0));
        choice.again(0);
        assert_eq!(choice.left(), 2);
        assert_eq!(choice.step(now), Step::Start(1));
        choice.failed(1, ErrorClass::Denied);
        assert_eq!(choice.step(now), Step::Start(0));
        assert_eq!(choice.left(), 1);
    }
}
