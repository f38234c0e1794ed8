//! The reconciler in Kubernetes.

pub mod conditions;
