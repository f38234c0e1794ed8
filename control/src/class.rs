//! What an error of the API server means for the caller.

use std::fmt;

/// The kinds of errors, few enough for a metric's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Somebody else wrote at the same time: look again, soon.
    Conflict,
    /// The object or its kind does not exist.
    NotFound,
    /// RBAC: waiting does not help.
    Forbidden,
    /// The server refuses what was sent: waiting does not help.
    Invalid,
    /// The server is overloaded or asks to wait.
    Busy,
    /// The server could not be reached, or did not answer in time.
    Unreachable,
    /// Anything else.
    Other,
}

impl Class {
    /// Every class.
    pub const ALL: [Self; 7] = [
        Self::Conflict,
        Self::NotFound,
        Self::Forbidden,
        Self::Invalid,
        Self::Busy,
        Self::Unreachable,
        Self::Other,
    ];

    /// The class of an error.
    pub fn of(error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => match status.code {
                409 => Self::Conflict,
                404 => Self::NotFound,
                401 | 403 => Self::Forbidden,
                400 | 405 | 413 | 415 | 422 => Self::Invalid,
                429 | 500 | 502 | 503 | 504 => Self::Busy,
                _ => Self::Other,
            },
            kube::Error::Service(_) | kube::Error::HyperError(_) | kube::Error::ReadEvents(_) => {
                Self::Unreachable
            }
            _ => Self::Other,
        }
    }

    /// One word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Conflict => "conflict",
            Self::NotFound => "not_found",
            Self::Forbidden => "forbidden",
            Self::Invalid => "invalid",
            Self::Busy => "busy",
            Self::Unreachable => "unreachable",
            Self::Other => "other",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
