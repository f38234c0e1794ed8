//! Why a tunnel could not be made, as the one word that may leave towards a client.

use std::{fmt, str::FromStr};

/// The closed list of reasons. Each maps to one HTTP and one gRPC status, so
/// that a client learns what it may do next and nothing about the inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorClass {
    /// No connector of the target could be reached.
    Offline,
    /// Dialling, or the connector's connect to the service, took too long.
    Timeout,
    /// The service refused or nothing listens there.
    Refused,
    /// TLS to the service failed.
    Tls,
    /// The connector does not accept this dialer or this target.
    Denied,
    /// The queue of waiting streams is full.
    Overloaded,
    /// No, an invalid or a contradictory target for this route.
    Misconfigured,
    /// A fault of Adit's own, or the dialer is down.
    Internal,
}

/// A word that is no [`ErrorClass`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown error class")]
pub struct ParseErrorClassError;

impl ErrorClass {
    /// Every class, in the order of the documentation's table.
    pub const ALL: [Self; 8] = [
        Self::Offline,
        Self::Timeout,
        Self::Refused,
        Self::Tls,
        Self::Denied,
        Self::Overloaded,
        Self::Misconfigured,
        Self::Internal,
    ];

    /// The word: lowercase ASCII letters.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Offline => "offline",
            Self::Timeout => "timeout",
            Self::Refused => "refused",
            Self::Tls => "tls",
            Self::Denied => "denied",
            Self::Overloaded => "overloaded",
            Self::Misconfigured => "misconfigured",
            Self::Internal => "internal",
        }
    }

    /// The HTTP status a client gets.
    pub const fn http_status(self) -> u16 {
        match self {
            Self::Offline | Self::Overloaded | Self::Internal => 503,
            Self::Timeout => 504,
            // `Denied` is the operator's allow-list, not the client's
            // permissions: 502, not 403.
            Self::Refused | Self::Tls | Self::Denied => 502,
            Self::Misconfigured => 500,
        }
    }

    /// The gRPC status code a client gets (google.rpc.Code).
    pub const fn grpc_status(self) -> u32 {
        match self {
            Self::Offline | Self::Refused | Self::Tls | Self::Overloaded => 14, // UNAVAILABLE
            Self::Timeout => 4,                                                 // DEADLINE_EXCEEDED
            Self::Denied => 7,                                                  // PERMISSION_DENIED
            Self::Misconfigured | Self::Internal => 13,                         // INTERNAL
        }
    }

    /// Seconds for `Retry-After`, where waiting may help.
    pub const fn retry_after(self) -> Option<u32> {
        match self {
            Self::Offline => Some(5),
            Self::Overloaded => Some(1),
            _ => None,
        }
    }
}

impl fmt::Display for ErrorClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ErrorClass {
    type Err = ParseErrorClassError;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|class| class.as_str() == word)
            .ok_or(ParseErrorClassError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_reads_back_from_its_word() {
        for class in ErrorClass::ALL {
            assert_eq!(class.as_str().parse(), Ok(class));
        }
        assert!("offline ".parse::<ErrorClass>().is_err());
    }
}
