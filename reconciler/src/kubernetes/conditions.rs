//! Lists of conditions: what changes in them, and when.
//!
//! A writer names the types that are its own. Conditions of other types are
//! somebody else's and never appear in what it writes.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};

/// A message is for a person's screen; the API server's own limit is 32768.
const MAX_MESSAGE: usize = 2048;
/// The API server's limit of a reason.
const MAX_REASON: usize = 1024;

/// The three states of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// It holds.
    True,
    /// It does not.
    False,
    /// Nobody can tell yet.
    Unknown,
}

/// The conditions of one object as one writer makes them anew.
#[derive(Debug)]
pub struct Conditions<'a> {
    owned: &'a [&'a str],
    old: &'a [Condition],
    generation: Option<i64>,
    now: Timestamp,
    new: Vec<Condition>,
}

impl State {
    /// The word of a condition's `status`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<bool> for State {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

impl<'a> Conditions<'a> {
    /// Starts with none. `owned`: the types that this writer may set, in the
    /// order in which they are written; `old`: what the object has now, with
    /// those of other writers; `generation`: the object's.
    pub fn new(
        owned: &'a [&'a str],
        old: &'a [Condition],
        generation: Option<i64>,
        now: Timestamp,
    ) -> Self {
        Self {
            owned,
            old,
            generation,
            now,
            new: Vec::new(),
        }
    }

    /// Sets one; the last word for a type counts. The transition time stays
    /// the old one unless the status is another.
    pub fn set(&mut self, type_: &str, state: State, reason: &str, message: &str) {
        debug_assert!(self.owned.contains(&type_), "{type_} is not owned");
        let unchanged = find(self.old, type_).filter(|c| c.status == state.as_str());
        let since = unchanged.map_or_else(|| self.now(), |c| c.last_transition_time.clone());
        self.new.retain(|c| c.type_ != type_);
        self.new.push(Condition {
            last_transition_time: since,
            message: readable(message),
            observed_generation: self.generation,
            reason: word(reason),
            status: state.as_str().into(),
            type_: type_.into(),
        });
    }

    /// The owned conditions in their order, and whether they differ from the
    /// object's. A type of ours that was not set is to be removed.
    pub fn finish(mut self) -> (Vec<Condition>, bool) {
        let owned = self.owned;
        let place = |c: &Condition| owned.iter().position(|t| *t == c.type_);
        self.new.sort_by_key(place);
        let changed = owned
            .iter()
            .any(|type_| find(self.old, type_) != find(&self.new, type_));
        (self.new, changed)
    }

    /// Whole seconds: the API server keeps no more, and a status that is read
    /// back must equal the one written.
    fn now(&self) -> Time {
        Time(Timestamp::from_second(self.now.as_second()).unwrap_or(self.now))
    }
}

/// The condition of a type.
pub fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|c| c.type_ == type_)
}

/// Whether a condition is `True`, for any generation.
pub fn holds(conditions: &[Condition], type_: &str) -> bool {
    find(conditions, type_).is_some_and(|c| c.status == State::True.as_str())
}

/// A text, maybe written by others, as one line of bounded length.
pub fn readable(text: &str) -> String {
    bounded(text, MAX_MESSAGE)
}

/// [`readable`], for a part of a message: at most `max` bytes.
pub fn bounded(text: &str, max: usize) -> String {
    let mut line = String::new();
    for word in text.split(|c: char| c.is_control() || c == ' ') {
        if word.is_empty() {
            continue;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
        if line.len() > max {
            break;
        }
    }
    if line.len() > max {
        let end = line.floor_char_boundary(max.saturating_sub('…'.len_utf8()));
        line.truncate(end);
        line.push('…');
    }
    line
}

/// A reason that the API server takes: `^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$`.
fn word(reason: &str) -> String {
    let kept = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '_' | ',' | ':');
    let word: String = reason.chars().filter(kept).take(MAX_REASON).collect();
    let word = word
        .trim_start_matches(|c: char| !c.is_ascii_alphabetic())
        .trim_end_matches([',', ':']);
    if word.is_empty() {
        "Unknown".into()
    } else {
        word.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNED: &[&str] = &["Accepted", "Ready"];

    fn at(second: i64) -> Timestamp {
        Timestamp::new(second, 5_000).expect("in range")
    }

    fn first() -> Vec<Condition> {
        let mut conditions = Conditions::new(OWNED, &[], Some(1), at(100));
        conditions.set("Ready", State::False, "ConnectorNotReady", "No Lease yet.");
        conditions.set("Accepted", State::True, "Accepted", "Resolved.");
        let (list, changed) = conditions.finish();
        assert!(changed);
        list
    }

    #[test]
    fn conditions_stand_in_the_order_of_their_types() {
        let list = first();
        let types: Vec<_> = list.iter().map(|c| c.type_.as_str()).collect();
        assert_eq!(types, OWNED);
        assert_eq!(
            list[0].last_transition_time,
            Time(Timestamp::from_second(100).expect("in range"))
        );
        assert!(holds(&list, "Accepted") && !holds(&list, "Ready"));
    }

    #[test]
    fn the_same_again_changes_nothing_and_keeps_the_times() {
        let old = first();
        let mut again = Conditions::new(OWNED, &old, Some(1), at(200));
        again.set("Accepted", State::True, "Accepted", "Resolved.");
        again.set("Ready", State::False, "ConnectorNotReady", "No Lease yet.");
        assert_eq!(again.finish(), (old.clone(), false));
    }

    #[test]
    fn a_new_message_is_a_change_but_no_transition() {
        let old = first();
        let mut again = Conditions::new(OWNED, &old, Some(2), at(200));
        again.set("Accepted", State::True, "Accepted", "Resolved.");
        again.set("Ready", State::False, "ConnectorNotReady", "Lease expired.");
        let (list, changed) = again.finish();
        assert!(changed);
        assert_eq!(list[1].last_transition_time, old[1].last_transition_time);
        assert_eq!(list[1].observed_generation, Some(2));
    }

    #[test]
    fn another_status_is_a_transition() {
        let old = first();
        let mut again = Conditions::new(OWNED, &old, Some(1), at(200));
        again.set("Accepted", State::True, "Accepted", "Resolved.");
        again.set("Ready", State::True, "ConnectorReady", "Ready.");
        let (list, changed) = again.finish();
        assert!(changed);
        assert_eq!(list[0].last_transition_time.0.as_second(), 100);
        assert_eq!(list[1].last_transition_time.0.as_second(), 200);
    }

    #[test]
    fn a_condition_of_ours_that_is_no_longer_set_goes() {
        let old = first();
        let mut again = Conditions::new(OWNED, &old, Some(1), at(200));
        again.set("Accepted", State::True, "Accepted", "Resolved.");
        let (list, changed) = again.finish();
        assert!(changed);
        assert_eq!(list.len(), 1);
    }

    #[test]
    fn conditions_of_others_are_neither_written_nor_a_change() {
        let mut old = first();
        let foreign = Condition {
            type_: "Foreign".into(),
            ..old[0].clone()
        };
        old.insert(0, foreign);
        let mut again = Conditions::new(OWNED, &old, Some(1), at(200));
        again.set("Accepted", State::True, "Accepted", "Resolved.");
        again.set("Ready", State::False, "ConnectorNotReady", "No Lease yet.");
        let (list, changed) = again.finish();
        assert!(!changed);
        assert_eq!(list, old[1..]);
    }

    #[test]
    fn texts_of_others_are_one_bounded_line() {
        assert_eq!(readable("a\n\tb\u{1b}[31m  c"), "a b [31m c");
        let long = readable(&"ä".repeat(5000));
        assert!(long.len() <= MAX_MESSAGE && long.ends_with('…'));
        assert_eq!(bounded("äää", 5), "ä…");
        assert_eq!(readable(""), "");
    }

    #[test]
    fn a_reason_is_what_the_api_server_takes() {
        assert_eq!(word("Resource Not-Found!"), "ResourceNotFound");
        assert_eq!(word("9a:"), "a");
        assert_eq!(word("…"), "Unknown");
        assert_eq!(word(&"a".repeat(5000)).len(), MAX_REASON);
    }
}
