//! A connector in this process against dialers in this process, over real
//! iroh connections on loopback.
//!
//! | module | what meets what |
//! |---|---|
//! | `doors` | keys, ALPNs, connection limits |
//! | `heads` | every way to begin a stream wrongly |
//! | `targets` | spellings, wildcards, names that rebind |
//! | `ends` | half-close, aborts, stalls, each side first |
//! | `services` | Unix sockets, full backlogs, silent and absent ones |
//! | `places` | stream limits and the queue |
//! | `revoke` | lists that change, by call and by file |
//! | `leave` | draining; a relay that goes away and comes back |
//! | `pages` | what the admin server tells |
//! | `book` | the options and metrics in docs/ against the real ones |

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod book;
mod doors;
mod ends;
mod heads;
mod leave;
mod pages;
mod places;
mod revoke;
mod services;
mod support;
mod targets;
