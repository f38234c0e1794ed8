//! What Envoy Gateway says of a policy, for each Gateway it applies to
//! (Gateway API's PolicyStatus).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde::{Deserialize, Serialize};

/// The status of any policy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyStatus {
    /// One for each ancestor.
    #[serde(default)]
    pub ancestors: Vec<AncestorStatus>,
}

/// The status with one ancestor.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AncestorStatus {
    /// The Gateway or GatewayClass.
    pub ancestor_ref: AncestorRef,
    /// Who says so.
    pub controller_name: String,
    /// Accepted, Programmed, Overridden, …
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

/// A Gateway or GatewayClass.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AncestorRef {
    /// Its group; Gateway API's without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Its kind; Gateway without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Its namespace; the policy's own without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// A listener of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub section_name: Option<String>,
}

impl AncestorStatus {
    /// The condition of a type.
    pub fn condition(&self, type_: &str) -> Option<&Condition> {
        self.conditions.iter().find(|c| c.type_ == type_)
    }
}
