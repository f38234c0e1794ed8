//! What a user writes, and the rules it must keep.
//!
//! * [`networking`]: the resources of `networking.datumapis.com` (`HttpProxy`,
//!   `Connector`, `ConnectorClass`, `ConnectorAdvertisement`), as Kubernetes
//!   serves them and as a directory of manifests holds them.
//! * [`envoy_gateway`], [`external_dns`]: what is read and written of others' kinds.
//!   (Gateway API's own kinds come from the `gateway-api` crate.)
//! * [`labels`]: by which the processes find each other's objects.
//! * [`Endpoint`]: a backend's address, parsed.
//! * [`validate`]: every rule that concerns one object alone; each breach is a
//!   [`Problem`]: where, which [`Reason`], and a sentence.
//! * [`DialerState`]: what the reconciler hands to the dialer beside Envoy.
//! * [`crds`]: the CustomResourceDefinitions of all of it.
//!
//! Unknown fields are kept out of these types' business: an API server prunes
//! them, and the directory source reports them with file and line.

mod crd;
mod dialer_state;
mod endpoint;
pub mod envoy_gateway;
pub mod external_dns;
pub mod labels;
pub mod networking;
mod problem;
pub mod validate;

pub use crd::crds;
pub use dialer_state::{ConnectorHint, DialerState};
pub use endpoint::{Endpoint, ParseEndpointError, Scheme};
pub use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, Time};
pub use kube::{CustomResourceExt, Resource, ResourceExt};
pub use problem::{Problem, Reason, Severity};
