//! The part of Envoy's v3 API that is written, as JSON.
//!
//! The protobuf crates for Envoy's API have no JSON form, and JSON is needed:
//! for files that a person can read, and for patches of another control
//! plane's resources. Field order is the order below, so the bytes are stable.

#![allow(missing_docs, reason = "the fields are those of Envoy's API reference")]

mod cluster;
mod listener;
mod route;

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

pub use cluster::*;
pub use listener::*;
pub use route::*;

/// A message with its type beside its fields.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Any<T> {
    #[serde(rename = "@type")]
    type_url: String,
    #[serde(flatten)]
    message: T,
}

impl<T> Any<T> {
    /// `message` as the type `name`, without the `type.googleapis.com/`.
    pub fn new(name: &str, message: T) -> Self {
        Self {
            type_url: format!("type.googleapis.com/{name}"),
            message,
        }
    }

    /// The message.
    pub fn get(&self) -> &T {
        &self.message
    }
}

/// An extension: its name and its typed configuration.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Extension<T> {
    /// The extension's (or, for a filter, our own) name.
    pub name: String,
    /// Its configuration.
    pub typed_config: Any<T>,
}

/// An empty message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Empty {}

/// `google.protobuf.Struct` inside an `Any`: its JSON stands under `value`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Struct {
    /// The object.
    pub value: Value,
}

/// `core.v3.Metadata`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Metadata {
    /// By namespace, then by key.
    pub filter_metadata: BTreeMap<String, BTreeMap<String, Value>>,
}

/// `core.v3.Address`: one of the two.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Address {
    /// TCP.
    SocketAddress {
        /// An IP address or a name.
        address: String,
        /// The port.
        port_value: u16,
        /// A path below `/proc`: the namespace to listen in.
        #[serde(skip_serializing_if = "Option::is_none")]
        network_namespace_filepath: Option<String>,
    },
    /// A Unix socket.
    Pipe {
        /// Its path; `@` before the name of an abstract one.
        path: String,
        /// Its mode, where Envoy makes it.
        #[serde(skip_serializing_if = "Option::is_none")]
        mode: Option<u32>,
    },
}

/// `dynamic_modules.v3.DynamicModuleConfig`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DynamicModule {
    pub module: ModuleSource,
    pub do_not_close: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics_namespace: Option<&'static str>,
}

/// `core.v3.AsyncDataSource` with a file.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModuleSource {
    pub local: LocalFile,
}

/// `core.v3.DataSource` with a file.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LocalFile {
    pub filename: String,
}

/// `core.v3.ConfigSource` with a file.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ConfigSource {
    pub path_config_source: PathConfigSource,
    pub resource_api_version: &'static str,
}

/// `core.v3.PathConfigSource`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PathConfigSource {
    pub path: String,
}

/// `discovery.v3.DiscoveryResponse`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DiscoveryResponse<'a, T> {
    pub version_info: &'a str,
    pub resources: &'a [T],
}

impl ConfigSource {
    /// A file.
    pub fn file(path: String) -> Self {
        Self {
            path_config_source: PathConfigSource { path },
            resource_api_version: "V3",
        }
    }
}
