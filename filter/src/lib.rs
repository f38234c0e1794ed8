//! `libadit.so`: what Adit adds to Envoy, as a dynamic module.
//!
//! ```text
//!            route + cluster metadata                    Target (base64)
//!                      │                                       │
//! client ──► HTTP filter "adit" ──► router ──► transport socket "adit" ──► dialer
//!            may it go there? which     ◄── adit.<class> ──  preface, verdict,
//!            answer if it cannot                             then bytes
//! ```
//!
//! * [`http`]: policy, and the answers for people and programs.
//! * [`transport`]: one Envoy connection to one Unix socket of the dialer.
//! * [`config`]: what Envoy's configuration may say, refused at load time.
//! * [`cut`], [`served`], [`off`]: what the one tells the other about a
//!   connection: that it broke, whose it is, and that there is none to be had.
//! * [`log`], [`metrics`]: Envoy's log and statistics.
//! * [`abi`]: the edge to Envoy, and all `unsafe` code. A panic ends there: a
//!   request gets 500 or its connection closes; Envoy lives on.
//!
//! One library serves Envoy 1.39 and 1.40: it uses no callback that either
//! lacks.
// Its readers read the source: there are no public items to link to.
#![allow(rustdoc::private_intra_doc_links)]

mod abi;
#[cfg(feature = "stub-host")]
pub use abi::host as stub_host;
mod config;
mod cut;
mod http;
mod log;
mod metrics;
mod off;
mod served;
mod transport;
