//! What a client is told when its request goes nowhere: a status, a word and a
//! sentence. Never an address, a path, a key or another program's text.

use adit_wire::ErrorClass;

/// Why a request gets an answer of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The service could not be reached.
    Class(ErrorClass),
    /// CONNECT where the route does not offer it, or to another port.
    Connect,
    /// CONNECT-UDP: tunnels carry streams only.
    Udp,
}

impl Fault {
    /// The HTTP status.
    pub const fn status(self) -> u16 {
        match self {
            Self::Class(class) => class.http_status(),
            // What Envoy itself answers to an upgrade that is not offered.
            Self::Connect => 403,
            Self::Udp => 501,
        }
    }

    /// The gRPC status code (google.rpc.Code).
    pub const fn grpc_status(self) -> u32 {
        match self {
            Self::Class(class) => class.grpc_status(),
            Self::Connect => 7, // PERMISSION_DENIED
            Self::Udp => 12,    // UNIMPLEMENTED
        }
    }

    /// Seconds for `Retry-After`.
    pub const fn retry_after(self) -> Option<u32> {
        match self {
            Self::Class(class) => class.retry_after(),
            Self::Connect | Self::Udp => None,
        }
    }

    /// One word, for programs, metrics and access logs.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Class(class) => class.as_str(),
            Self::Connect => "connect",
            Self::Udp => "udp",
        }
    }

    /// The status's name (RFC 9110, section 15).
    pub const fn title(self) -> &'static str {
        match self.status() {
            403 => "Forbidden",
            500 => "Internal Server Error",
            501 => "Not Implemented",
            502 => "Bad Gateway",
            504 => "Gateway Timeout",
            _ => "Service Unavailable",
        }
    }

    /// One sentence for people.
    pub const fn message(self) -> &'static str {
        match self {
            Self::Class(class) => match class {
                ErrorClass::Offline => "The service is not connected at the moment.",
                ErrorClass::Timeout => "The service took too long to answer.",
                ErrorClass::Refused => "The service is not accepting connections.",
                ErrorClass::Tls => "A secure connection to the service could not be made.",
                ErrorClass::Denied => "The service does not accept connections from this gateway.",
                ErrorClass::Overloaded => "The gateway is too busy for this service.",
                ErrorClass::Misconfigured => {
                    "The gateway is not set up correctly for this address."
                }
                ErrorClass::Internal => "The gateway could not reach the service.",
            },
            Self::Connect => "CONNECT is not offered for this address.",
            Self::Udp => "UDP is not carried to this address.",
        }
    }

    /// `%RESPONSE_CODE_DETAILS%` of a reply we start ourselves.
    pub const fn details(self) -> &'static str {
        match self {
            Self::Class(ErrorClass::Misconfigured) => "adit_misconfigured",
            Self::Class(_) => "adit_failed",
            Self::Connect => "adit_connect_not_offered",
            Self::Udp => "adit_udp_not_carried",
        }
    }
}

/// Reads the class of a failed connect from the details of Envoy's local
/// reply, as in `upstream_reset_before_response_started{<why>|adit.offline}`.
/// `None`: not about connecting; Envoy's reply stands.
pub fn class_of_details(details: &[u8]) -> Option<ErrorClass> {
    let inner = details
        .strip_prefix(b"upstream_reset_before_response_started{")?
        .strip_suffix(b"}")?;
    let inner = std::str::from_utf8(inner).ok()?;
    let (why, reason) = inner.split_once('|').unwrap_or((inner, ""));
    match why {
        "connection_timeout" => Some(ErrorClass::Timeout),
        // Any reason but exactly one of ours was not written by our transport
        // socket: the dialer's socket is missing, full, or not permitted.
        "remote_connection_failure" | "local_connection_failure" => {
            let word = reason.strip_prefix("adit.");
            let class = word.and_then(|word| word.parse().ok());
            Some(class.unwrap_or(ErrorClass::Internal))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(inner: &str) -> Option<ErrorClass> {
        let details = format!("upstream_reset_before_response_started{{{inner}}}");
        class_of_details(details.as_bytes())
    }

    #[test]
    fn a_class_is_read_from_the_details_of_a_failed_connect() {
        for expected in ErrorClass::ALL {
            let inner = format!("remote_connection_failure|adit.{expected}");
            assert_eq!(class(&inner), Some(expected));
        }
        assert_eq!(class("connection_timeout"), Some(ErrorClass::Timeout));
    }

    #[test]
    fn another_reason_of_a_failed_connect_is_internal() {
        for inner in [
            "remote_connection_failure",
            "remote_connection_failure|adit.offline|adit.refused",
            "remote_connection_failure|adit.Offline",
            "remote_connection_failure|adit.",
            "local_connection_failure|immediate_connect_error:_No_such_file|remote_address:/x",
        ] {
            assert_eq!(class(inner), Some(ErrorClass::Internal), "{inner}");
        }
    }

    #[test]
    fn what_is_not_about_connecting_stays_as_envoy_made_it() {
        for inner in [
            "connection_termination",
            "connection_termination|adit.offline",
            "overflow",
            "",
        ] {
            assert_eq!(class(inner), None, "{inner}");
        }
        for details in [
            "via_upstream",
            "no_healthy_upstream",
            "upstream_reset_after_response_started{remote_connection_failure|adit.offline}",
            "upstream_reset_before_response_started",
        ] {
            assert_eq!(class_of_details(details.as_bytes()), None, "{details}");
        }
        assert_eq!(class_of_details(b"\xff{"), None);
    }

    #[test]
    fn every_fault_has_a_name_and_a_sentence() {
        let classes = ErrorClass::ALL.map(Fault::Class);
        for fault in classes.into_iter().chain([Fault::Connect, Fault::Udp]) {
            assert!(fault.message().ends_with('.'), "{fault:?}");
            assert!((400..600).contains(&fault.status()), "{fault:?}");
            assert!(fault.word().bytes().all(|b| b.is_ascii_lowercase()));
        }
    }
}
