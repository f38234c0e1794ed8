//! What Envoy is started with.

use std::path::Path;

use serde_json::{Value, json};

use super::{show, xds::ConfigSource};

/// The bootstrap: an admin socket of mode 0600, and files for the rest.
///
/// The routes' file is named by the listener, not here.
pub fn bootstrap(admin_socket: &Path, listeners: &Path, clusters: &Path) -> Value {
    let file = |path: &Path| ConfigSource::file(show(path));
    json!({
        "node": {"id": "adit", "cluster": "adit"},
        "admin": {"address": {"pipe": {"path": show(admin_socket), "mode": 0o600}}},
        "dynamic_resources": {"lds_config": file(listeners), "cds_config": file(clusters)},
        // Without a limit clients could take every descriptor, and Envoy warns.
        "overload_manager": {"resource_monitors": [{
            "name": "envoy.resource_monitors.global_downstream_max_connections",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                "max_active_downstream_connections": 50_000,
            },
        }]},
        "layered_runtime": {"layers": [{"name": "adit", "static_layer": {
            // Expressions are limited by their length before they come here;
            // Envoy's own limit of 100 instructions is one character class.
            "re2.max_program_size.error_level": u32::MAX,
        }}]},
    })
}
