//! ConnectorClass: who looks after the connectors that name it.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The controller of a class that names none.
pub const DEFAULT_CONTROLLER: &str = "networking.datumapis.com/datum-connect";

fn default_controller() -> String {
    DEFAULT_CONTROLLER.into()
}

/// A kind of connector and the controller that looks after it.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "networking.datumapis.com",
    version = "v1alpha1",
    kind = "ConnectorClass",
    plural = "connectorclasses",
    category = "adit",
    shortname = "connclass",
    status = "ConnectorClassStatus",
    printcolumn = r#"{"name":"Controller","type":"string","jsonPath":".spec.controllerName"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct ConnectorClassSpec {
    /// The controller's name, like a domain and a path.
    #[serde(default = "default_controller")]
    #[schemars(length(min = 1, max = 253))]
    pub controller_name: String,
}

/// Nothing is reported for a class.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ConnectorClassStatus {}
