//! EnvoyProxy: how Envoy itself is run.

use std::collections::BTreeMap;

use kube::CustomResource;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The Envoys of a GatewayClass or Gateway. Read, never written.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "gateway.envoyproxy.io",
    version = "v1alpha1",
    kind = "EnvoyProxy",
    plural = "envoyproxies",
    namespaced,
    schema = "disabled",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct EnvoyProxySpec {
    /// The modules that policies may use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dynamic_modules: Vec<DynamicModuleEntry>,
    /// All Gateways of the class share one Envoy; patches then target the class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merge_gateways: Option<bool>,
    /// Other fields.
    #[serde(flatten)]
    pub rest: BTreeMap<String, Value>,
}

/// A module that policies may use.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DynamicModuleEntry {
    /// The name that policies use.
    pub name: String,
    /// Where it is loaded from.
    pub source: DynamicModuleSource,
    /// It stays loaded while Envoy runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub do_not_close: Option<bool>,
}

/// Where a module is loaded from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DynamicModuleSource {
    /// `Local` (also without it) or `Remote`.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub type_: Option<String>,
    /// A file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<LocalModule>,
}

/// A file of the machine (or pod) that Envoy runs on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalModule {
    /// Its absolute path.
    pub path: String,
}
