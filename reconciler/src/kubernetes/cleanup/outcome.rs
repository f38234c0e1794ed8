//! What a clean-up came to.

use std::{collections::BTreeMap, fmt, time::Duration};

use adit_control::{AccessError, Class};

use super::OptionError;

/// What was removed (or, in a dry run, would be), by kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed(pub BTreeMap<String, usize>);

/// Why something may be left.
#[derive(Debug, thiserror::Error)]
pub enum CleanupError {
    /// There is no way to an API server.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// An option that cannot be used.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// A request failed.
    #[error("{what}: {source}; nothing of another owner was touched, try again")]
    Api {
        /// What was tried, on what.
        what: String,
        /// The answer.
        source: Box<kube::Error>,
    },
    /// No answer in time.
    #[error("{what}: the API server did not answer within {} s; try again", time.as_secs())]
    Silent {
        /// What was tried, on what.
        what: String,
        /// How long it was waited for.
        time: Duration,
    },
    /// Another one writes.
    #[error(
        "the lease {lease} is still held after {} s: stop the reconciler first, else it makes again what goes",
        after.as_secs()
    )]
    Led {
        /// The Lease.
        lease: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// Another one took over meanwhile.
    #[error("the lease {0} was lost on the way: a reconciler runs again; stop it and try again")]
    Lost(String),
    /// Something does not go.
    #[error(
        "{count} of {kind} are still there after {} s, the first is {first}; does a finalizer hold it?",
        after.as_secs()
    )]
    Left {
        /// Which kind.
        kind: String,
        /// How many.
        count: usize,
        /// One of them.
        first: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// Told to end.
    #[error("told to end before all was removed; try again")]
    Interrupted,
}

impl CleanupError {
    fn class(&self) -> Option<Class> {
        match self {
            Self::Api { source, .. } => Some(Class::of(source)),
            _ => None,
        }
    }

    pub(super) fn is_not_found(&self) -> bool {
        self.class() == Some(Class::NotFound)
    }

    pub(super) fn is_conflict(&self) -> bool {
        self.class() == Some(Class::Conflict)
    }
}

impl fmt::Display for Removed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("nothing");
        }
        let each = self.0.iter().map(|(kind, n)| format!("{n} {kind}"));
        f.write_str(&each.collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_removed_is_said_in_one_line() {
        let removed = Removed(BTreeMap::from([
            ("HTTPRoute".into(), 2),
            ("Lease".into(), 1),
        ]));
        assert_eq!(removed.to_string(), "2 HTTPRoute, 1 Lease");
        assert_eq!(Removed::default().to_string(), "nothing");
    }
}
