//! The Kubernetes API, as reconciler, connector and dialer use it.
//!
//! * [`Options`] → [`Access`]: which API server, as whom, which namespace.
//! * [`apply`]: server-side apply, the only way anything is written.
//! * [`Class`]: what an error of the API server means for the caller.
//! * [`lease`]: a Lease that says "I am alive", and when to renew it.
//! * [`Contact`]: how the process stands with the API server, for people.
//! * [`pace`]: how long to wait for it, and between attempts.
//!
//! Nothing here knows a kind of Adit's own.

mod access;
pub mod apply;
mod class;
mod contact;
pub mod lease;
pub mod pace;

pub use access::{Access, AccessError, Meaningless, Options};
pub use class::Class;
pub use contact::{Contact, Failure};
