//! HTTPProxy: which requests go to which backends.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Filter, HttpMatch, PathMatch, rules, schema};

/// Requests for some host names, and where they go.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "networking.datumapis.com",
    version = "v1alpha",
    kind = "HTTPProxy",
    root = "HttpProxy",
    plural = "httpproxies",
    namespaced,
    category = "adit",
    status = "HttpProxyStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Hostname","type":"string","jsonPath":".status.hostnames[*]"}"#,
    printcolumn = r#"{"name":"Programmed","type":"string","jsonPath":".status.conditions[?(@.type=='Programmed')].status"}"#,
    printcolumn = r#"{"name":"Connectors","type":"string","jsonPath":".status.conditions[?(@.type=='ConnectorsReady')].status"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type=='Programmed')].reason","priority":1}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::http_proxy()))]
pub struct HttpProxySpec {
    /// The host names; none means any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::hostnames")]
    pub hostnames: Vec<String>,
    /// The rules. The most specific match wins, not the first.
    #[schemars(length(min = 1, max = 16))]
    pub rules: Vec<Rule>,
}

/// Which requests, what is done to them, where they go.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::rule()))]
pub struct Rule {
    /// A name, once in an HTTPProxy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub name: Option<String>,
    /// Any of these must match; none means every request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), default = "every_request")]
    pub matches: Vec<HttpMatch>,
    /// What is done to request and response.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-validations" = rules::filters()))]
    pub filters: Vec<Filter>,
    /// Where requests go, by weight.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub backends: Vec<Backend>,
}

/// What a rule without matches means.
fn every_request() -> Vec<HttpMatch> {
    let path = PathMatch {
        type_: Default::default(),
        value: "/".into(),
    };
    vec![HttpMatch {
        path: Some(path),
        ..HttpMatch::default()
    }]
}

/// One place where requests go.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::backend()))]
pub struct Backend {
    /// The service: `http`, `https`, `h2c`, `grpc` or `tcp`, `://`, host, `:`, port.
    /// With a connector: as the connector sees it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 300), extend("x-kubernetes-validations" = rules::endpoint()))]
    pub endpoint: Option<String>,
    /// The connector that reaches the endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connector: Option<ConnectorReference>,
    /// A pod of a VPC; not supported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<BackendInstance>,
    /// The share of the requests, compared with the rule's other backends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub weight: Option<i32>,
    /// TLS to the endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<BackendTls>,
    /// What is done to requests for this backend only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-validations" = rules::backend_filters()))]
    pub filters: Vec<Filter>,
}

/// One connector by name, or several by label; exactly one of the two.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::connector_reference()))]
pub struct ConnectorReference {
    /// The connector's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), extend("x-kubernetes-validations" = schema::label_name()))]
    pub name: Option<String>,
    /// Labels of the connectors. All that match serve the endpoint: the oldest
    /// first, then by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::selector")]
    pub selector: Option<LabelSelector>,
}

/// A pod of a VPC.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackendInstance {
    /// The pod.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its port.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
}

/// TLS to a backend.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackendTls {
    /// Sent as SNI and verified in the certificate; the endpoint's host without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub hostname: Option<String>,
}

/// What the controller reports.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpProxyStatus {
    /// Where the gateway listens.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub addresses: Vec<StatusAddress>,
    /// The host names in use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 253)))]
    pub hostnames: Vec<String>,
    /// A host name of the gateway's own for this proxy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub canonical_hostname: Option<String>,
    /// Conditions by host name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub hostname_statuses: Vec<HostnameStatus>,
    /// Accepted, Programmed, ConnectorsReady.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::accepted_and_programmed")]
    pub conditions: Vec<Condition>,
}

/// An address of a gateway.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StatusAddress {
    /// `IPAddress` or `Hostname`.
    #[serde(
        default = "ip_address",
        rename = "type",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(length(min = 1, max = 253))]
    pub type_: Option<String>,
    /// The address.
    #[schemars(length(min = 1, max = 253))]
    pub value: String,
}

fn ip_address() -> Option<String> {
    Some("IPAddress".into())
}

/// Conditions of one host name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostnameStatus {
    /// The host name.
    #[schemars(length(min = 1, max = 253))]
    pub hostname: String,
    /// Its conditions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}
