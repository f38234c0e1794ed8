//! What the two ends of a tunnel share: dialer and connector are one iroh
//! endpoint, one splice and one admin page each, and those must not drift
//! apart.
//!
//! * [`options`], [`key`], [`endpoint`]: from flags to a supervised iroh
//!   endpoint with its identity.
//! * [`stream`], [`splice`], [`meter`]: the bytes of one tunnel, with its two
//!   kinds of end: clean, and abort.
//! * [`admin`], [`status`], [`log`], [`throttle`]: what an operator sees.
//! * [`open_files`]: the process's limit of descriptors.

pub mod admin;
pub mod endpoint;
pub mod ids;
pub mod key;
mod local;
pub mod log;
pub mod meter;
pub mod open_files;
pub mod options;
pub mod splice;
mod stall;
pub mod status;
pub mod stream;
pub mod throttle;

pub use local::Local;
