//! The objects of the design, written by hand, for tests of the mechanism itself
//! and of what Envoy Gateway says about them.

use std::path::Path;

use serde_json::{Value, json};

/// A Backend that nobody can reach: 233.252.0.0/24 is multicast for
/// documentation (RFC 6676), which the kernel refuses at once.
pub fn placeholder(name: &str) -> Value {
    backend(name, "233.252.0.1", 80)
}

/// A Backend with one address.
pub fn backend(name: &str, address: &str, port: u16) -> Value {
    json!({
        "apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": "Backend",
        "metadata": {"name": name},
        "spec": {"endpoints": [{"ip": {"address": address, "port": port}}]},
    })
}

/// An HTTPRoute for one host with one Backend, whose reference has a filter, so
/// that its cluster is its own.
pub fn route(name: &str, host: &str, gateway: &str, backend: &str) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": name},
        "spec": {
            "parentRefs": [{"name": gateway}],
            "hostnames": [host],
            "rules": [{
                "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
                "backendRefs": [{
                    "group": "gateway.envoyproxy.io", "kind": "Backend", "name": backend,
                    "filters": [{
                        "type": "RequestHeaderModifier",
                        "requestHeaderModifier": {"remove": ["x-adit-target"]},
                    }],
                }],
            }],
        },
    })
}

/// The cluster that Envoy Gateway makes for the only backend of such a route.
pub fn cluster(namespace: &str, route: &str) -> String {
    format!("httproute/{namespace}/{route}/rule/0/backend/0")
}

/// An EnvoyPatchPolicy that puts a Unix socket in a cluster's place of endpoint.
pub fn patch(name: &str, gateway: &str, cluster: &str, socket: &Path) -> Value {
    json!({
        "apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": "EnvoyPatchPolicy",
        "metadata": {"name": name},
        "spec": {
            "type": "JSONPatch",
            "targetRef": {
                "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": gateway,
            },
            "jsonPatches": [{
                "type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
                "name": cluster,
                "operation": {
                    "op": "replace",
                    "path": "/endpoints/0/lb_endpoints/0/endpoint/address",
                    "value": {"pipe": {"path": socket}},
                },
            }],
        },
    })
}
