//! EnvoyExtensionPolicy: extensions in Envoy's HTTP filter chain.

use std::collections::BTreeMap;

use kube::CustomResource;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{PolicyStatus, Targets};

/// Extensions for some routes.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "gateway.envoyproxy.io",
    version = "v1alpha1",
    kind = "EnvoyExtensionPolicy",
    plural = "envoyextensionpolicies",
    namespaced,
    status = "PolicyStatus",
    schema = "disabled",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct EnvoyExtensionPolicySpec {
    /// Which routes.
    #[serde(flatten)]
    pub targets: Targets,
    /// `StrategicMerge`: together with the policy of the Gateway. Without it
    /// the most specific policy replaces the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merge_type: Option<String>,
    /// Dynamic modules, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dynamic_module: Vec<DynamicModule>,
    /// Other fields.
    #[serde(flatten)]
    pub rest: BTreeMap<String, Value>,
}

/// An HTTP filter of a dynamic module.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DynamicModule {
    /// The module's name in the EnvoyProxy's list.
    pub name: String,
    /// The filter in the module.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter_name: Option<String>,
    /// The filter's configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Value>,
}
