//! Connector: an agent beside a service, known by its public key.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::LocalReference;

/// The only capability there is: TCP tunnels by CONNECT.
pub const CAPABILITY_CONNECT_TCP: &str = "ConnectTCP";

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
    selectable = ".status.connectionDetails.publicKey.id"
)]
#[serde(rename_all = "camelCase")]
pub struct ConnectorSpec {
    /// The name of the connector's class.
    #[schemars(length(min = 1))]
    pub connector_class_name: String,
    /// What the connector may be used for; what is not listed is allowed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
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
    pub capabilities: Vec<CapabilityStatus>,
    /// Accepted, Ready, DNSPublished.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// How to reach the agent; it says so itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection_details: Option<ConnectionDetails>,
    /// The Lease that the agent renews.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_ref: Option<LocalReference>,
    /// The EndpointIds of the dialers that the agent lets in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_dialers: Vec<String>,
}

/// Whether one capability works.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CapabilityStatus {
    /// The capability.
    #[serde(rename = "type")]
    pub type_: String,
    /// Its conditions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// How to reach an agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
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
    pub id: String,
    /// How else the agent can be found.
    #[serde(default)]
    pub discovery_mode: DiscoveryMode,
    /// The URL of the agent's relay; empty or absent without one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
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
    #[schemars(length(max = 39))]
    pub address: String,
    /// A UDP port.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
}
