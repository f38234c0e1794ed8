//! EnvoyPatchPolicy: JSON patches on what Envoy Gateway made.

use kube::CustomResource;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{PolicyStatus, TargetRef};

/// The type URL of a cluster.
pub const CLUSTER_TYPE: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
/// The type URL of a cluster's endpoints.
pub const LOAD_ASSIGNMENT_TYPE: &str =
    "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";

/// Patches on the resources of one Gateway.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "gateway.envoyproxy.io",
    version = "v1alpha1",
    kind = "EnvoyPatchPolicy",
    plural = "envoypatchpolicies",
    namespaced,
    status = "PolicyStatus",
    schema = "disabled",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct EnvoyPatchPolicySpec {
    /// The only type there is.
    #[serde(rename = "type")]
    pub type_: PatchType,
    /// The Gateway in this namespace, or the GatewayClass when its Gateways are merged.
    pub target_ref: TargetRef,
    /// Policies are applied in ascending order.
    #[serde(default)]
    pub priority: i32,
    /// Each is applied by itself: one that fails does not stop the others.
    #[serde(default)]
    pub json_patches: Vec<JsonPatch>,
}

/// The types of patches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PatchType {
    /// RFC 6902.
    #[default]
    #[serde(rename = "JSONPatch")]
    JsonPatch,
}

/// A patch on one resource.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JsonPatch {
    /// The type URL of the resource.
    #[serde(rename = "type")]
    pub type_: String,
    /// Its name in Envoy.
    pub name: String,
    /// What is changed.
    pub operation: Operation,
}

/// One RFC 6902 operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Operation {
    /// `add` or `replace`.
    pub op: String,
    /// A JSON pointer; fields have their protobuf names (`transport_socket`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The new value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
}
