//! The policy that turns placeholders into tunnels.
//!
//! It patches clusters and their endpoints and nothing else: one bad patch on
//! a listener or a route table would freeze the whole of it for everybody.

use adit_api::{
    ResourceExt as _,
    envoy_gateway::{
        CLUSTER_TYPE, EnvoyPatchPolicy, EnvoyPatchPolicySpec, JsonPatch, LOAD_ASSIGNMENT_TYPE,
        Operation, PatchType,
    },
    labels::TARGETS_ANNOTATION,
};
use adit_wire::Target;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{
    Place, Setting, Users, name,
    owned::{Owner, seal},
};
use crate::{
    emit::{ADIT, clusters, xds},
    model::{Cluster, Transport, UpstreamProtocol},
};

/// Envoy's options for HTTP towards a service, by their extension's name.
const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// A backend that is reached through a tunnel.
pub(super) struct Tunnel<'a> {
    /// Its position in the route.
    pub(super) backend: usize,
    pub(super) cluster: &'a Cluster,
    pub(super) target: &'a Target,
}

pub(super) fn policy(
    owner: &Owner<'_>,
    route: &str,
    tunnels: &[Tunnel<'_>],
    setting: &Setting,
) -> EnvoyPatchPolicy {
    let namespace = owner.namespace();
    let place = Place {
        name: name::patch(&namespace, route, &setting.gateway.namespace),
        namespace: setting.gateway.namespace.clone(),
    };
    let patches = tunnels.iter().flat_map(|tunnel| {
        let cluster = name::cluster(&namespace, route, tunnel.backend);
        patches(tunnel, &cluster, setting)
    });
    let targets: Vec<_> = tunnels.iter().map(|t| t.target.to_base64()).collect();
    let mut policy = EnvoyPatchPolicy {
        metadata: owner.metadata(place),
        spec: EnvoyPatchPolicySpec {
            type_: PatchType::JsonPatch,
            target_ref: setting.patch_target.clone(),
            priority: 0,
            json_patches: patches.collect(),
        },
        status: None,
    };
    policy
        .annotations_mut()
        .insert(TARGETS_ANNOTATION.to_owned(), targets.join(","));
    seal(policy)
}

/// The targets that a policy's annotation names: for readers of metadata. An
/// entry that cannot be read is left out.
pub fn annotated_targets(policy: &impl adit_api::Resource) -> Vec<Target> {
    let list = policy.annotations().get(TARGETS_ANNOTATION);
    list.map(String::as_str)
        .unwrap_or_default()
        .split(',')
        .filter_map(|text| Target::from_base64(text).ok())
        .collect()
}

/// The targets that a policy's patches lead to: what Envoy was told, whatever
/// the annotation says. `None` if one cannot be read.
pub fn patched_targets(policy: &EnvoyPatchPolicy) -> Option<Vec<Target>> {
    let sockets = policy.spec.json_patches.iter().filter(|p| {
        p.type_ == CLUSTER_TYPE && p.operation.path.as_deref() == Some("/transport_socket")
    });
    sockets
        .map(|p| {
            let value = p.operation.value.as_ref()?;
            let target = value.pointer("/typed_config/transport_socket_config/value/target")?;
            Target::from_base64(target.as_str()?).ok()
        })
        .collect()
}

/// The patches of one tunnel. `add` replaces what is there, and makes the
/// parents that are missing.
///
/// Envoy Gateway turns the whole resource into JSON and back for each patch
/// (internal/xds/translator/jsonpatch.go), so that each one also pays for what
/// the ones before it added: the large ones come last. Nothing hangs on the
/// order otherwise. Each is applied by itself, and the result is sent when all
/// were tried; whichever fails, the rest is closed: without the socket's patch
/// the dialer gets no target, without the endpoint's nobody is reached.
fn patches(tunnel: &Tunnel<'_>, cluster: &str, setting: &Setting) -> Vec<JsonPatch> {
    let of = |type_: &str, op: &str, path: &str, value: Value| JsonPatch {
        type_: type_.to_owned(),
        name: cluster.to_owned(),
        operation: Operation {
            op: op.to_owned(),
            path: Some(path.to_owned()),
            value: Some(value),
        },
    };
    let add = |path: &str, value: Value| of(CLUSTER_TYPE, "add", path, value);
    let protocol = tunnel.cluster.protocol;
    let timeout = tunnel.target.deadline + clusters::VERDICT_GRACE;
    let mut patches = vec![add("/connect_timeout", clusters::seconds(timeout).into())];
    let Users {
        circuit_breakers,
        http,
        request_timeout: _,
    } = setting.users;
    if !circuit_breakers {
        patches.push(add(
            "/circuit_breakers",
            value(&clusters::circuit_breakers()),
        ));
    }
    let mut metadata = clusters::metadata(tunnel.target, protocol).filter_metadata;
    patches.push(add(
        &format!("/metadata/filter_metadata/{ADIT}"),
        value(&metadata.remove(ADIT)),
    ));
    if !http {
        patches.push(http_options(protocol, add));
    }
    let transport = Transport::Adit(tunnel.target.clone());
    patches.push(add(
        "/transport_socket",
        value(&clusters::transport_socket(&transport, &setting.module)),
    ));
    let endpoint = endpoint(setting, &fingerprint(&patches));
    patches.push(of(LOAD_ASSIGNMENT_TYPE, "replace", ENDPOINT, endpoint));
    patches
}

/// The only endpoint of a tunnel's cluster.
const ENDPOINT: &str = "/endpoints/0/lb_endpoints/0";

/// The dialer in the placeholder's place, whole. Beside the address Envoy
/// Gateway writes the weight there (cluster.go: always 1) and, for a user's
/// health checks, another port, which Envoy refuses for a pipe.
fn endpoint(setting: &Setting, fingerprint: &str) -> Value {
    let pipe = xds::Address::Pipe {
        path: setting.dialer_socket.clone(),
        mode: None,
    };
    json!({
        "endpoint": {"address": pipe},
        "load_balancing_weight": 1,
        "metadata": {"filter_metadata": {ADIT: {"cluster": fingerprint}}},
    })
}

/// A hash over the patches of a cluster, for its endpoints. Envoy takes a
/// changed cluster only when its endpoints come anew, and Envoy Gateway sends
/// them only if they changed: without this Envoy went on with the cluster of
/// before for 15 s (its initial_fetch_timeout).
fn fingerprint(patches: &[JsonPatch]) -> String {
    let bytes = serde_json::to_vec(patches).unwrap_or_default();
    name::hex(&Sha256::digest(&bytes), 20)
}

/// Connections that no request uses are closed before common servers do.
///
/// For HTTP/1 Envoy Gateway writes no options, so that all of them are added;
/// for HTTP/2 it does, and a part is added.
fn http_options(protocol: UpstreamProtocol, add: impl Fn(&str, Value) -> JsonPatch) -> JsonPatch {
    let all = value(&clusters::protocol_options(protocol));
    let parent = "/typed_extension_protocol_options";
    match protocol {
        UpstreamProtocol::Http1 | UpstreamProtocol::Bytes => add(parent, all),
        UpstreamProtocol::Http2 => {
            let common = &all[HTTP_OPTIONS]["common_http_protocol_options"];
            add(
                &format!("{parent}/{HTTP_OPTIONS}/common_http_protocol_options"),
                json!(common),
            )
        }
    }
}

/// Our own types always become JSON.
fn value(message: &impl serde::Serialize) -> Value {
    serde_json::to_value(message).unwrap_or_default()
}
