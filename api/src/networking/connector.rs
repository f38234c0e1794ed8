//! Connector: an agent beside a service, known by its public key.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{LocalReference, rules, schema};

/// The only capability there is: TCP tunnels by CONNECT.
pub const CAPABILITY_CONNECT_TCP: &str = "ConnectTCP";

/// How many dialers a connector can be told to let in: one stands beside each
/// Envoy, and an object of the API server has at most 1.5 MB.
pub const MAX_ALLOWED_DIALERS: usize = 256;

/// An agent that lets a gateway reach services beside it.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "networking.datumapis.com",
    version = "v1alpha1",
    kind = "Connector",
    plural = "connectors",
    namespaced,
    status = "ConnectorStatus",
    derive = "PartialEq",
    category = "adit",
    shortname = "conn",
    selectable = ".status.connectionDetails.publicKey.id",
    printcolumn = r#"{"name":"Class","type":"string","jsonPath":".spec.connectorClassName"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type=='Ready')].status"}"#,
    printcolumn = r#"{"name":"Device","type":"string","jsonPath":".status.device.name"}"#,
    printcolumn = r#"{"name":"OS","type":"string","jsonPath":".status.device.os","priority":1}"#,
    printcolumn = r#"{"name":"Endpoint","type":"string","jsonPath":".status.connectionDetails.publicKey.id","priority":1}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type=='Ready')].message","priority":1}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct ConnectorSpec {
    /// The name of the connector's class.
    #[schemars(length(min = 1, max = 253))]
    pub connector_class_name: String,
    /// What the connector may be used for; what is not listed is allowed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub capabilities: Vec<ConnectorCapability>,
}

/// Permission for one kind of tunnel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConnectorCapability {
    /// `ConnectTCP`; others are ignored.
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = 253))]
    pub type_: String,
    /// For `ConnectTCP`.
    #[serde(
        default,
        rename = "connectTCP",
        skip_serializing_if = "Option::is_none"
    )]
    pub connect_tcp: Option<ConnectTcp>,
}

/// Settings of `ConnectTCP`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConnectTcp {
    /// Forbids TCP tunnels.
    #[serde(default)]
    pub disabled: bool,
}

/// What the agent and the controller report.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConnectorStatus {
    /// Which capabilities work.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub capabilities: Vec<CapabilityStatus>,
    /// Accepted, Ready, DNSPublished.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::accepted")]
    pub conditions: Vec<Condition>,
    /// The machine that the agent runs on; it says so itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<Device>,
    /// How to reach the agent; it says so itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection_details: Option<ConnectionDetails>,
    /// The Lease that the agent renews.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_ref: Option<LocalReference>,
    /// The EndpointIds of the dialers that the agent lets in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = MAX_ALLOWED_DIALERS),
        inner(length(min = 52, max = 64)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub allowed_dialers: Vec<String>,
}

/// A machine, as its owner would recognise it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    /// Its name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its operating system.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(min = 1, max = 253))]
    pub os: String,
}

/// Whether one capability works.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CapabilityStatus {
    /// The capability.
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = 253))]
    pub type_: String,
    /// Its conditions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// How to reach an agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::connection_details()))]
pub struct ConnectionDetails {
    /// Which of the fields below counts.
    #[serde(rename = "type")]
    pub type_: ConnectionDetailsType,
    /// The agent's key and where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<PublicKeyDetails>,
}

/// The kinds of [`ConnectionDetails`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConnectionDetailsType {
    /// By public key.
    PublicKey,
}

/// An agent's key and where it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PublicKeyDetails {
    /// The EndpointId: 64 hex digits.
    #[schemars(length(max = 64), extend("x-kubernetes-validations" = rules::endpoint_id()))]
    pub id: String,
    /// How else the agent can be found.
    #[serde(default)]
    pub discovery_mode: DiscoveryMode,
    /// The URL of the agent's relay; empty or absent without one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 512), extend("x-kubernetes-validations" = rules::home_relay()))]
    pub home_relay: String,
    /// The agent's direct addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub addresses: Vec<ConnectorAddress>,
}

/// How an agent can be found when its addresses are not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DiscoveryMode {
    /// By TXT records.
    #[default]
    #[serde(rename = "DNS")]
    Dns,
}

/// A direct address of an agent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConnectorAddress {
    /// An IP address.
    #[schemars(length(max = 39), extend("x-kubernetes-validations" = rules::ip_address()))]
    pub address: String,
    /// A UDP port.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
}
