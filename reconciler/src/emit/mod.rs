//! From the model to bytes, and the bytes to Envoy and the dialer.
//!
//! [`resources`] is pure and byte-stable. An [`Emit`] brings its result to
//! where it takes effect; [`Files`] does so by files that Envoy watches.
//!
//! [`gateway`] makes objects for Envoy Gateway of the same model instead, and
//! says in which order they are written.

mod admin;
mod bootstrap;
mod clusters;
mod disk;
mod files;
pub mod gateway;
mod listeners;
mod routes;
pub mod xds;

use std::path::PathBuf;

use adit_api::DialerState;

use crate::model::Model;

pub use admin::{Admin, AdminError};
pub use bootstrap::bootstrap;
pub use disk::{EmitError, FilesConfig};
pub use files::Files;

/// The module's name for its filter, its transport socket, its metadata and
/// its metrics.
const ADIT: &str = "adit";

/// A text of a user for Envoy, where `%` begins a command of its format language.
fn literal(text: &str) -> String {
    text.replace('%', "%%")
}

/// What the resources need to know of the machine.
#[derive(Debug, Clone)]
pub struct Setting {
    /// `libadit.so`, absolute.
    pub module: PathBuf,
    /// The dialer's Unix socket; `@` before the name of an abstract one.
    pub dialer_socket: String,
    /// Where Envoy finds its routes, absolute.
    pub routes_file: PathBuf,
    /// A page of our own for failed requests, instead of the module's.
    pub html_page: Option<String>,
    /// Where requests are logged, if anywhere.
    pub access_log: Option<PathBuf>,
}

/// Typed resources, each list sorted by name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Resources {
    /// For Envoy's listener discovery.
    pub listeners: Vec<xds::Any<xds::Listener>>,
    /// For its route discovery.
    pub routes: Vec<xds::Any<xds::RouteConfiguration>>,
    /// For its cluster discovery.
    pub clusters: Vec<xds::Any<xds::Cluster>>,
    /// For the dialer.
    pub dialer: DialerState,
}

/// Brings resources to where they take effect, in an order that loses nothing.
pub trait Emit {
    /// Replaces what was emitted before; whether there was anything to do.
    /// With an error, what was in effect before stays in effect.
    fn emit(
        &mut self,
        resources: Resources,
    ) -> impl Future<Output = Result<bool, EmitError>> + Send;
}

/// The resources of a model.
pub fn resources(model: &Model, setting: &Setting) -> Resources {
    let clusters = model
        .clusters
        .iter()
        .map(|(name, c)| clusters::cluster(name, c, setting));
    Resources {
        listeners: model
            .listeners
            .iter()
            .map(|l| listeners::listener(l, setting))
            .collect(),
        routes: model
            .listeners
            .iter()
            .map(|l| routes::configuration(l, model))
            .collect(),
        clusters: clusters.collect(),
        dialer: DialerState {
            connectors: model.connectors.clone(),
            targets: Some(model.targets()),
        },
    }
}

/// A path as Envoy's JSON holds it.
fn show(path: &std::path::Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests;
