//! How the end of an HTTP/1 response that only the connection's end delimits is
//! told from a cut one.
//!
//! Envoy takes any close of the upstream connection for the end of such a
//! response, an abort too: then half a download would look whole. It does so
//! inside the `do_read` or `do_write` that reported the abort, on the same
//! thread and before any other connection is served. So the transport socket
//! notes here what its last call reported, and the HTTP filter looks when a
//! body ends. A call that reports an abort delivers no bytes, so nothing else
//! can end a body within it.

use std::cell::Cell;

thread_local! {
    static LAST: Cell<bool> = const { Cell::new(false) };
}

/// Notes whether the connection served now is being cut.
pub fn note(cut: bool) {
    LAST.set(cut);
}

/// Whether a body that ends now ends by a cut.
pub fn is_cut() -> bool {
    LAST.get()
}
