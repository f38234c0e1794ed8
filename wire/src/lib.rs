//! The bytes that Adit's parts exchange, and nothing else: no sockets, no
//! clock, no async.
//!
//! ```text
//!  Envoy + libadit.so ── preface ──► dialer ── CONNECT ──► connector
//!                     ◄── verdict ──        ◄── status ──
//! ```
//!
//! * [`Target`]: what a stream is for: which connectors in which order, which
//!   host and port beside them, how.
//! * [`preface`]: filter → dialer. A PROXY protocol v2 header that carries a
//!   [`Target`].
//! * [`Verdict`]: dialer → filter. "Connected, by this path", or an
//!   [`ErrorClass`].
//! * [`connect`]: dialer → connector. The head of an `iroh-http-proxy/1`
//!   tunnel: an HTTP/1.1 CONNECT and its answer.
//!
//! Every decoder works on a growing buffer: it answers "not yet", "here it is
//! and this long", or a final error at the first byte that cannot be right.
//! Every input has a limit, stated beside its decoder.

pub mod connect;
mod endpoint_id;
mod error_class;
mod host;
mod local;
pub mod preface;
mod proto;
mod target;
mod verdict;

pub use endpoint_id::{EndpointId, ParseEndpointIdError};
pub use error_class::{ErrorClass, ParseErrorClassError};
pub use host::{Host, HostPort, ParseHostError};
pub use local::is_local;
pub use target::{MAX_CONNECTORS, MAX_DEADLINE, Protocol, Target, TargetError, Tls};
pub use verdict::{Connected, MAX_VERDICT_LEN, Path, Refusal, Verdict, VerdictError};

/// What a decoder found at the start of a buffer: a whole value and its
/// length in bytes, or `None` when more bytes are needed.
pub type Progress<T> = Option<(T, usize)>;
