//! The HTTP filter `adit`: which target a request may go to, and what a client
//! is told when it cannot be reached. Bytes are the transport socket's.
//!
//! * [`policy`]: from metadata and request line to "yes" or a [`fault::Fault`].
//! * [`fault`]: what a client is told; [`accept`], [`page`] and
//!   [`reply`]: in which form.
//! * [`filter`]: the hooks of one stream, in Envoy's order.

mod accept;
pub mod fault;
pub mod filter;
pub mod page;
mod policy;
pub mod reply;
