//! `externaldns.k8s.io/v1alpha1`: records that external-dns publishes.

use std::collections::BTreeMap;

use kube::CustomResource;
use serde::{Deserialize, Serialize};

/// Records.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "externaldns.k8s.io",
    version = "v1alpha1",
    kind = "DNSEndpoint",
    plural = "dnsendpoints",
    namespaced,
    schema = "disabled",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct DNSEndpointSpec {
    /// The record sets.
    #[serde(default)]
    pub endpoints: Vec<RecordSet>,
}

/// All records of one name and type.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordSet {
    /// The name, without a final dot.
    pub dns_name: String,
    /// `TXT`.
    pub record_type: String,
    /// Seconds.
    #[serde(rename = "recordTTL", default, skip_serializing_if = "Option::is_none")]
    pub record_ttl: Option<i64>,
    /// The records' values, one each.
    pub targets: Vec<String>,
    /// Labels for external-dns.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}
