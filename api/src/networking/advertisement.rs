//! ConnectorAdvertisement: which services a connector offers.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::LocalReference;

/// The services that a connector offers; what is not listed is never routed.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "networking.datumapis.com",
    version = "v1alpha1",
    kind = "ConnectorAdvertisement",
    plural = "connectoradvertisements",
    namespaced,
    status = "ConnectorAdvertisementStatus",
    derive = "PartialEq",
    selectable = ".spec.connectorRef.name"
)]
#[serde(rename_all = "camelCase")]
pub struct ConnectorAdvertisementSpec {
    /// The connector, in the same namespace.
    pub connector_ref: LocalReference,
    /// Services by address and port.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub layer4: Vec<Layer4Advertisement>,
}

/// A named group of services.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Layer4Advertisement {
    /// The group's name.
    pub name: String,
    /// Its services.
    #[schemars(length(min = 1, max = 16))]
    pub services: Vec<AdvertisedService>,
}

/// An address and its ports.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AdvertisedService {
    /// An IP address, a DNS name, `*` for any, or `*.suffix` for any name below.
    #[schemars(length(min = 1, max = 253))]
    pub address: String,
    /// The ports.
    #[schemars(length(min = 1, max = 16))]
    pub ports: Vec<AdvertisedPort>,
}

/// A port.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AdvertisedPort {
    /// The port's name.
    pub name: String,
    /// Its number.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// `TCP` or `UDP`.
    #[serde(default = "tcp")]
    pub protocol: String,
}

fn tcp() -> String {
    "TCP".into()
}

/// What the controller reports.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConnectorAdvertisementStatus {
    /// Accepted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}
