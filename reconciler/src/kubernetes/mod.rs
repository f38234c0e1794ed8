//! The reconciler in Kubernetes.
//!
//! ```text
//! API server ──watch──► stores ──change──► queues ──► controllers ──► writer ──► API server
//!                                                     httpproxy: routes in Envoy Gateway
//!                                                     gateways: what a Gateway gets once
//!                                                     connectors: liveness, dialers, DNS
//!                                                     sweep: what is left of the gone
//! ```
//!
//! * [`kept`], [`stores`]: what is there, each kind watched once.
//! * [`queue`]: what to look at; each object by one worker at a time.
//! * [`writer`]: the only way anything is changed.
//! * [`run`]: all of it, from access to a graceful end.
//! * [`cleanup`]: removes what was made, before all of it is uninstalled.

pub mod cleanup;
pub mod conditions;
pub mod connectors;
pub mod context;
pub mod gateways;
mod ground;
pub mod health;
pub mod httpproxy;
pub mod kept;
pub mod leader;
pub mod metrics;
pub mod options;
pub mod queue;
mod run;
pub mod stores;
mod sweep;
mod watch;
pub mod writer;
pub mod written;

pub use options::Config;
pub use run::{RunError, run};
