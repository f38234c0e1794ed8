//! The dialer as one whole, with real iroh endpoints on loopback.
//!
//! Each test runs [`adit_dialer::run`] on a Unix socket in a temporary
//! directory, plays Envoy's module on that socket, and plays connectors that
//! behave well or badly:
//!
//! | file | what it covers |
//! |---|---|
//! | `tunnels.rs` | bytes, half-closes, aborts, the verdict, early data, TLS |
//! | `answers.rs` | every way in which a connector can fail to answer |
//! | `links.rs` | one connection each; death, restart and failover of connectors |
//! | `limits.rs` | queues, stream limits, clients that leave, stalled siblings |
//! | `front.rs` | prefaces, backlog, descriptors, the socket file |
//! | `lives.rs` | revoked targets, shutdown, the admin server |

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "dialer/support.rs"]
mod support;

#[path = "dialer/answers.rs"]
mod answers;
#[path = "dialer/front.rs"]
mod front;
#[path = "dialer/limits.rs"]
mod limits;
#[path = "dialer/links.rs"]
mod links;
#[path = "dialer/lives.rs"]
mod lives;
#[path = "dialer/tunnels.rs"]
mod tunnels;
