//! `gateway.envoyproxy.io/v1alpha1` (Envoy Gateway 1.9): the kinds that are
//! written, whole as far as they are written, and the fields that are read of
//! the others.
//!
//! What a kind has beyond that is kept in `rest`, so that a look at an object
//! loses nothing; nothing here is ever written back to another's object.

mod backend;
mod extension;
mod patch;
mod proxy;
mod status;
mod target;
mod traffic;

pub use backend::{
    Backend, BackendEndpoint, BackendSpec, BackendStatus, BackendTls, FqdnEndpoint, IpEndpoint,
};
pub use extension::{DynamicModule, EnvoyExtensionPolicy, EnvoyExtensionPolicySpec};
pub use patch::{
    CLUSTER_TYPE, EnvoyPatchPolicy, EnvoyPatchPolicySpec, JsonPatch, LOAD_ASSIGNMENT_TYPE,
    Operation, PatchType,
};
pub use proxy::{DynamicModuleEntry, DynamicModuleSource, EnvoyProxy, EnvoyProxySpec, LocalModule};
pub use status::{AncestorRef, AncestorStatus, PolicyStatus};
pub use target::{FromNamespaces, SelectorNamespaces, TargetRef, TargetSelector, Targets};
pub use traffic::{BackendTrafficPolicy, BackendTrafficPolicySpec, ConnectUpgrade, Upgrade};

/// The group of these kinds.
pub const GROUP: &str = "gateway.envoyproxy.io";
