//! ConnectorAdvertisement: which services a connector offers.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{LocalReference, rules, schema};

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
    category = "adit",
    shortname = "connad",
    selectable = ".spec.connectorRef.name",
    printcolumn = r#"{"name":"Connector","type":"string","jsonPath":".spec.connectorRef.name"}"#,
    printcolumn = r#"{"name":"Accepted","type":"string","jsonPath":".status.conditions[?(@.type=='Accepted')].status"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct ConnectorAdvertisementSpec {
    /// The connector, in the same namespace.
    pub connector_ref: LocalReference,
    /// Services by address and port.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub layer4: Vec<Layer4Advertisement>,
}

/// A named group of services.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Layer4Advertisement {
    /// The group's name.
    #[schemars(length(min = 1, max = 253))]
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
    #[schemars(length(min = 1, max = 253), extend("x-kubernetes-validations" = rules::advertised_address()))]
    pub address: String,
    /// The ports.
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub ports: Vec<AdvertisedPort>,
}

/// A port.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AdvertisedPort {
    /// The port's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its number.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// `TCP` or `UDP`.
    #[serde(default = "tcp")]
    #[schemars(length(max = 16), extend("x-kubernetes-validations" = rules::protocol()))]
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
    #[schemars(schema_with = "schema::accepted")]
    pub conditions: Vec<Condition>,
}
