//! From the model to the objects that program Envoy Gateway.
//!
//! ```text
//! rule ─► Bundle { HTTPRoute ─► Backend (a placeholder where a tunnel is)
//!                  EnvoyPatchPolicy: placeholder's address ─► the dialer's socket,
//!                                    the module's transport socket, its metadata }
//! ```
//!
//! Everything here is pure. Envoy Gateway names clusters by position, so a
//! patch on a route whose content changed could meet another target. Hence a
//! route is named by all that decides which requests go where: it never
//! changes its meaning, and a change is a new route beside the old one, which
//! goes when the new one serves ([`rollout`]).

mod backend;
mod extension;
mod name;
pub mod overrides;
mod owned;
mod patch;
pub mod rollout;
mod route;
pub mod verdict;

use std::{collections::BTreeMap, path::PathBuf};

use adit_api::{
    ResourceExt as _,
    envoy_gateway::{Backend, BackendTrafficPolicy, EnvoyPatchPolicy, TargetRef},
    networking::HttpProxy,
};
use gateway_api::httproutes::HttpRoute;

use crate::model::{ListenerKind, Model, Route, Transport};

pub use adit_api::labels::{MANAGED_BY, MANAGED_BY_LABEL, TARGETS_ANNOTATION};
pub use extension::{extension, made_gateway};
pub use owned::{
    GATEWAY_ANNOTATION, GATEWAY_LABEL, HASH_ANNOTATION, NAMESPACE_LABEL, PROXY_LABEL, ROUTE_LABEL,
    TUNNEL_LABEL, UID_LABEL, content_hash, gateway_label, is_ours,
};
pub use patch::{annotated_targets, patched_targets};

/// The group of Gateway API.
pub const GATEWAY_API: &str = "gateway.networking.k8s.io";

/// Where an object is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// What the objects of one HTTPProxy need to know of its Gateway.
#[derive(Debug, Clone)]
pub struct Setting {
    /// The Gateway.
    pub gateway: Place,
    /// What patches are for: the Gateway, or its class when the class's
    /// Gateways are merged.
    pub patch_target: TargetRef,
    /// `libadit.so` where Envoy runs, from the EnvoyProxy's list.
    pub module: PathBuf,
    /// The dialer's Unix socket where Envoy runs.
    pub dialer_socket: String,
    /// What users' own policies decide, so that patches leave it alone.
    pub users: Users,
}

/// What users' BackendTrafficPolicies decide for the routes of an HTTPProxy
/// ([`overrides::users`]).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Users {
    /// A time limit for requests.
    pub request_timeout: bool,
    /// Circuit breakers.
    pub circuit_breakers: bool,
    /// Anything of HTTP towards the service: idle time, protocol, options.
    pub http: bool,
}

/// All objects of one rule (or of the part of a rule that no other HTTPProxy
/// claims).
#[derive(Debug, Clone, PartialEq)]
pub struct Bundle {
    /// The route.
    pub route: HttpRoute,
    /// One for each backend of the route, in its order.
    pub backends: Vec<Backend>,
    /// For a rule that serves CONNECT.
    pub traffic: Option<BackendTrafficPolicy>,
    /// For a rule with tunnels.
    pub patch: Option<EnvoyPatchPolicy>,
}

/// The objects for an HTTPProxy's own rules, in the order in which they are
/// written: a more specific route before those it takes requests from.
pub fn bundles(proxy: &HttpProxy, model: &Model, setting: &Setting) -> Vec<Bundle> {
    let mut bundles: Vec<_> = parts(proxy, model)
        .iter()
        .map(|part| bundle(proxy, part, model, setting))
        .collect();
    // Two rules cannot have one name, for the name holds all of the rule; a
    // second one would be the first again.
    let mut seen = std::collections::BTreeSet::new();
    bundles.retain(|b| seen.insert(b.route.name_any()));
    bundles.sort_by_cached_key(|b| rollout::specificity(&b.route));
    bundles
}

/// Some routes of one rule for some host names.
struct Part<'a> {
    /// The rule's position.
    rule: usize,
    /// None for any.
    hostnames: Vec<String>,
    /// In the rule's order; at least one. All have the same action.
    routes: Vec<&'a Route>,
}

/// Each rule of a proxy, by the host names that have the same matches: where
/// another HTTPProxy was first with a match on one of the names, the rule has
/// no effect there, and only there.
fn parts<'a>(proxy: &HttpProxy, model: &'a Model) -> Vec<Part<'a>> {
    let origin = format!(
        "{}/{}",
        proxy.namespace().unwrap_or_default(),
        proxy.name_any()
    );
    let hosts = model.listeners.iter().flat_map(|l| {
        let ListenerKind::Http(hosts) = &l.kind;
        hosts
    });
    let mut by_rule_and_host: BTreeMap<(usize, Option<&str>), Vec<&Route>> = BTreeMap::new();
    for host in hosts {
        for route in host.routes.iter().filter(|r| r.origin.proxy == origin) {
            by_rule_and_host
                .entry((route.origin.rule, host.hostname.as_deref()))
                .or_default()
                .push(route);
        }
    }
    let mut by_matches: BTreeMap<(usize, Vec<usize>), Part<'_>> = BTreeMap::new();
    for ((rule, host), mut routes) in by_rule_and_host {
        routes.sort_by_key(|r| r.origin.matched);
        let matched = routes.iter().map(|r| r.origin.matched).collect();
        let part = by_matches.entry((rule, matched)).or_insert(Part {
            rule,
            hostnames: Vec::new(),
            routes,
        });
        part.hostnames.extend(host.map(str::to_owned));
    }
    by_matches.into_values().collect()
}

fn bundle(proxy: &HttpProxy, part: &Part<'_>, model: &Model, setting: &Setting) -> Bundle {
    let forward = route::Forward::of(part, model);
    let name = name::of_route(proxy, part, &forward, setting);
    let owner = owned::Owner {
        proxy,
        gateway: &setting.gateway,
        route: &name,
        tunnel: forward.tunnels(),
    };
    let backends: Vec<_> = (0..)
        .zip(&forward.backends)
        .map(|(k, b)| backend::backend(&owner, &name::backend(&name, k), k, b.cluster))
        .collect();
    let tunnels: Vec<_> = (0..)
        .zip(&forward.backends)
        .filter_map(|(k, b)| match &b.cluster.transport {
            Transport::Adit(target) => Some(patch::Tunnel {
                backend: k,
                cluster: b.cluster,
                target,
            }),
            Transport::Raw(_) | Transport::Tls { .. } => None,
        })
        .collect();
    Bundle {
        route: route::route(&owner, &name, part, &forward, setting),
        backends,
        traffic: route::is_connect(part).then(|| route::traffic(&owner, &name)),
        patch: (!tunnels.is_empty()).then(|| patch::policy(&owner, &name, &tunnels, setting)),
    }
}

#[cfg(test)]
mod tests;
