//! A real control plane for the tests: etcd, kube-apiserver, the controllers that
//! collect garbage, Envoy Gateway, and the Envoys it starts.
//!
//! ```text
//! test ──► kube-apiserver ◄── kube-controller-manager (garbage, namespaces)
//!            │   ▲      └── etcd
//!            ▼   │ statuses
//!          envoy-gateway ──xDS──► envoy (one for each Gateway, its child)
//! ```
//!
//! [`ControlPlane`] is the upper half; [`Stack`] is all of it. Envoy Gateway's
//! ports are fixed, so a test binary that uses a [`Stack`] runs in a network
//! namespace of its own: [`enter`] sees to that. A stack differs from a cluster
//! in what [`Stack`] says.

pub mod audit;
pub mod by_hand;
pub mod certs;
pub mod control_plane;
pub mod envoy_gateway;
pub mod external_dns;
pub mod kind;
mod namespace;
pub mod objects;
mod outage;
pub mod pod;
pub mod programs;
pub mod reconciler;
pub mod site;
pub mod stack;

pub use self::{
    audit::Write,
    control_plane::ControlPlane,
    kind::Kind,
    namespace::{enter, is_inside, wrap},
    objects::Objects,
    outage::Outage,
    stack::{Class, Gateway, Stack},
};
