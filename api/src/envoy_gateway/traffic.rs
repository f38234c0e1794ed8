//! BackendTrafficPolicy: how Envoy talks to backends.

use std::collections::BTreeMap;

use kube::CustomResource;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{PolicyStatus, Targets};

/// Traffic from Envoy to the backends of some routes.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "gateway.envoyproxy.io",
    version = "v1alpha1",
    kind = "BackendTrafficPolicy",
    plural = "backendtrafficpolicies",
    namespaced,
    status = "PolicyStatus",
    schema = "disabled",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct BackendTrafficPolicySpec {
    /// Which routes.
    #[serde(flatten)]
    pub targets: Targets,
    /// `StrategicMerge`: together with the policy of the Gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merge_type: Option<String>,
    /// Upgrades that are let through.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub http_upgrade: Vec<Upgrade>,
    /// Other fields.
    #[serde(flatten)]
    pub rest: BTreeMap<String, Value>,
}

/// An upgrade.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Upgrade {
    /// `websocket`, or `CONNECT` spelled exactly so.
    #[serde(rename = "type")]
    pub type_: String,
    /// For CONNECT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect: Option<ConnectUpgrade>,
}

/// What becomes of a CONNECT.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ConnectUpgrade {
    /// Envoy answers it, and the backend gets the bytes in it alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminate: Option<bool>,
}
