//! The Kubernetes API, as reconciler, connector and dialer use it.
//!
//! * [`Options`] → [`Access`]: which API server, as whom, which namespace.
//! * [`apply`]: server-side apply, the only way anything is written.
//! * [`Class`]: what an error of the API server means for the caller.
//!
//! Nothing here knows a kind of Adit's own.

mod access;
pub mod apply;
mod class;

pub use access::{Access, AccessError, Options};
pub use class::Class;
