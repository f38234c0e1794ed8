//! Discovery records: what a connector says about where it is, in DNS.
//!
//! ```text
//! Connector ──► records (exact, sorted) ──► rfc2136: UPDATE + TSIG ──► a DNS server
//!                                      └──► endpoint: DNSEndpoint ───► external-dns
//! ```
//!
//! * [`records`]: the names and texts; pure.
//! * [`claim`]: may this Connector write that name? Pure.
//! * [`rfc2136`]: a server that takes signed updates; [`key`] is what signs.
//! * [`endpoint`]: the object that external-dns reads.

pub mod claim;
pub mod endpoint;
pub mod key;
mod message;
pub mod records;
pub mod rfc2136;
mod transport;

pub use key::Key;
pub use records::{Layout, RecordSet};
pub use rfc2136::Server;
