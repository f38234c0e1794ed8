//! The head of a tunnel between dialer and connector: `iroh-http-proxy/1`,
//! tunnel mode only.
//!
//! ```text
//! dialer ──► CONNECT host:port HTTP/1.1\r\nHost: host:port\r\n\r\n   then bytes
//!        ◄── HTTP/1.1 200 Connection Established\r\n\r\n            then bytes
//!        ◄── HTTP/1.1 502 …\r\ncontent-length: 0\r\nadit-error: refused\r\n\r\n
//! ```
//!
//! One client-opened bidirectional QUIC stream carries one tunnel; a FIN is a
//! half-close, a reset an abort. `adit-error` is ours and optional: without it
//! the class follows from the status, so either side may be another
//! implementation of the protocol.

use crate::{ErrorClass, HostPort, ParseHostError, Progress};

/// The QUIC application protocol.
pub const ALPN: &[u8] = b"iroh-http-proxy/1";
/// The longest head, either way, in bytes (the protocol's own limit).
pub const MAX_HEAD: usize = 8192;
/// The most header fields, either way (the protocol's own limit).
pub const MAX_HEADERS: usize = 64;

/// The code with which a connector closes the connection of a dialer that it
/// does not allow, at once or when the key is taken off its list. (iroh lets
/// the dialer's handshake succeed first.) The codes follow HTTP's numbers.
pub const CLOSE_DENIED: u32 = 403;
/// The code with which a connector closes a connection over its limits.
pub const CLOSE_OVERLOADED: u32 = 503;
/// The code with which a connector or dialer that shuts down closes.
pub const CLOSE_SHUTDOWN: u32 = 410;

const ERROR_HEADER: &str = "adit-error";

/// Why bytes are no CONNECT request, or no answer to one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// No end of the head within [`MAX_HEAD`] bytes.
    #[error("the head is longer than {MAX_HEAD} bytes")]
    TooLong,
    /// Not HTTP/1.1, or more than [`MAX_HEADERS`] fields.
    #[error("not an HTTP/1.1 head: {0}")]
    Syntax(httparse::Error),
    /// Another method than CONNECT: requests are not proxied, only tunnels.
    #[error("only CONNECT is served here")]
    Method,
    /// The request target is not an authority.
    #[error("the CONNECT target: {0}")]
    Authority(#[from] ParseHostError),
}

/// The request for a tunnel to `service`.
pub fn encode_request(service: &HostPort) -> Vec<u8> {
    format!("CONNECT {service} HTTP/1.1\r\nHost: {service}\r\n\r\n").into_bytes()
}

/// Reads a request for a tunnel from the start of `buf`. Header fields are
/// ignored: they decide nothing.
pub fn decode_request(buf: &[u8]) -> Result<Progress<HostPort>, HeadError> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let head = &buf[..buf.len().min(MAX_HEAD)];
    match request.parse(head).map_err(HeadError::Syntax)? {
        httparse::Status::Partial if head.len() == MAX_HEAD => Err(HeadError::TooLong),
        httparse::Status::Partial => Ok(None),
        httparse::Status::Complete(len) => {
            if request.method != Some("CONNECT") {
                return Err(HeadError::Method);
            }
            Ok(Some((request.path.unwrap_or_default().parse()?, len)))
        }
    }
}

/// The connector's answer: the tunnel stands, or why not.
pub fn encode_answer(answer: Result<(), ErrorClass>) -> Vec<u8> {
    let class = match answer {
        Ok(()) => return b"HTTP/1.1 200 Connection Established\r\n\r\n".to_vec(),
        Err(class) => class,
    };
    let (status, reason) = match class {
        // The protocol's own answers, for dialers that know only them.
        ErrorClass::Denied => (403, "Forbidden"),
        ErrorClass::Refused | ErrorClass::Tls | ErrorClass::Offline => {
            (502, "Origin Is Unreachable")
        }
        ErrorClass::Timeout => (504, "Gateway Timeout"),
        ErrorClass::Overloaded => (503, "Service Unavailable"),
        ErrorClass::Misconfigured => (400, "Bad Request"),
        ErrorClass::Internal => (500, "Internal Server Error"),
    };
    format!("HTTP/1.1 {status} {reason}\r\ncontent-length: 0\r\n{ERROR_HEADER}: {class}\r\n\r\n")
        .into_bytes()
}

/// Reads a connector's answer from the start of `buf`. What follows it is the
/// first of the service's bytes.
pub fn decode_answer(buf: &[u8]) -> Result<Progress<Result<(), ErrorClass>>, HeadError> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let head = &buf[..buf.len().min(MAX_HEAD)];
    let len = match response.parse(head).map_err(HeadError::Syntax)? {
        httparse::Status::Partial if head.len() == MAX_HEAD => return Err(HeadError::TooLong),
        httparse::Status::Partial => return Ok(None),
        httparse::Status::Complete(len) => len,
    };
    let status = response.code.unwrap_or_default();
    if (200..300).contains(&status) {
        return Ok(Some((Ok(()), len)));
    }
    let named = response
        .headers
        .iter()
        .find(|h| h.name.eq_ignore_ascii_case(ERROR_HEADER))
        .and_then(|h| std::str::from_utf8(h.value).ok()?.trim().parse().ok());
    let class = named.unwrap_or(match status {
        401 | 403 | 407 => ErrorClass::Denied,
        502 => ErrorClass::Refused,
        503 => ErrorClass::Overloaded,
        408 | 504 => ErrorClass::Timeout,
        400 | 404 | 405 | 501 => ErrorClass::Misconfigured,
        _ => ErrorClass::Internal,
    });
    Ok(Some((Err(class), len)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_reads_back_and_leaves_early_data() {
        let service: HostPort = "[::1]:22".parse().expect("valid");
        let mut bytes = encode_request(&service);
        let len = bytes.len();
        for end in 0..len {
            assert_eq!(decode_request(&bytes[..end]), Ok(None));
        }
        bytes.extend_from_slice(b"SSH-2.0");
        assert_eq!(decode_request(&bytes), Ok(Some((service, len))));
    }

    #[test]
    fn an_answer_reads_back_with_its_class() {
        for class in ErrorClass::ALL {
            let bytes = encode_answer(Err(class));
            assert_eq!(decode_answer(&bytes), Ok(Some((Err(class), bytes.len()))));
        }
        let mut bytes = encode_answer(Ok(()));
        let len = bytes.len();
        bytes.extend_from_slice(b"banner");
        assert_eq!(decode_answer(&bytes), Ok(Some((Ok(()), len))));
    }

    #[test]
    fn another_implementations_answers_are_understood() {
        for (head, class) in [
            (
                "HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n",
                ErrorClass::Denied,
            ),
            (
                "HTTP/1.1 502 Origin Is Unreachable\r\n\r\n",
                ErrorClass::Refused,
            ),
            (
                "HTTP/1.1 418 \r\nadit-error: nonsense\r\n\r\n",
                ErrorClass::Internal,
            ),
        ] {
            assert_eq!(
                decode_answer(head.as_bytes()),
                Ok(Some((Err(class), head.len())))
            );
        }
    }

    #[test]
    fn what_is_no_tunnel_request_is_refused() {
        assert_eq!(
            decode_request(b"GET http://a:1/ HTTP/1.1\r\n\r\n"),
            Err(HeadError::Method)
        );
        assert!(matches!(
            decode_request(b"CONNECT a HTTP/1.1\r\n\r\n"),
            Err(HeadError::Authority(_))
        ));
        assert!(matches!(
            decode_request(b"\0\0\0"),
            Err(HeadError::Syntax(_))
        ));
        let endless = format!("CONNECT a:1 HTTP/1.1\r\nx: {}", "y".repeat(MAX_HEAD));
        assert_eq!(decode_request(endless.as_bytes()), Err(HeadError::TooLong));
        let many = format!(
            "CONNECT a:1 HTTP/1.1\r\n{}\r\n",
            "x: y\r\n".repeat(MAX_HEADERS + 1)
        );
        assert!(matches!(
            decode_request(many.as_bytes()),
            Err(HeadError::Syntax(_))
        ));
    }
}
