//! Resources in, Envoy configuration out.
//!
//! ```text
//! source ──► Snapshot ──► compile ──► Model ──► emit ──► Envoy, dialer
//!  (a directory)        (pure)                 (files)
//!     └──────────── Diagnostic: file, line, object, field, reason ──► a person
//! ```
//!
//! * [`source`] reads objects and keeps the last good version of each.
//! * [`compile`](compile::compile) is a function: the same snapshot gives the
//!   same [`Model`](model::Model) and the same problems. One bad object never
//!   stops the others.
//! * [`emit`] turns the model into bytes, the same bytes for the same model,
//!   and brings them to Envoy in an order that loses no request.
//! * [`follow`] does all of it again and again, and leaves out what Envoy
//!   refuses.
//! * [`explain`](explain::explain) says which route a request would take.

pub mod compile;
pub mod diagnostic;
pub mod dns;
pub mod emit;
pub mod explain;
pub mod follow;
pub mod kubernetes;
pub mod model;
pub mod snapshot;
pub mod source;

pub use diagnostic::{Diagnostic, Place};
pub use snapshot::{Kind, ObjectKey, Snapshot};
