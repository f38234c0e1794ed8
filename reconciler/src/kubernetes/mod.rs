//! The reconciler in Kubernetes.

pub mod conditions;
pub mod kept;
pub mod queue;
pub mod stores;
mod watch;
