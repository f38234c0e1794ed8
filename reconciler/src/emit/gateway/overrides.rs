//! Users' own policies: what they decide, and which would displace what a
//! tunnel needs.
//!
//! A cluster has one transport socket. Envoy Gateway fills it for the PROXY
//! protocol and goes around it for TLS; our patch would silently replace the
//! one and be passed over by the other.

mod scope;

use std::{sync::Arc, time::Duration};

use adit_api::{
    Resource, ResourceExt as _,
    envoy_gateway::{Backend, BackendTrafficPolicy, EnvoyExtensionPolicy, GROUP},
};
use gateway_api::backendtlspolicies::BackendTlsPolicy;
use serde_json::Value;

use super::{Bundle, Place, Users, patched_targets};
use crate::emit::clusters::VERDICT_GRACE;
use scope::{covers, foreign, is_managed, is_older, names};

/// The policies that could matter to an HTTPProxy: at least those of its
/// namespace and of its Gateway's. Ours among them are told apart by label.
#[derive(Debug, Clone, Copy, Default)]
pub struct Policies<'a> {
    /// BackendTrafficPolicies.
    pub traffic: &'a [Arc<BackendTrafficPolicy>],
    /// EnvoyExtensionPolicies.
    pub extension: &'a [Arc<EnvoyExtensionPolicy>],
    /// BackendTLSPolicies.
    pub tls: &'a [Arc<BackendTlsPolicy>],
}

/// A policy that gets in the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    /// A route does not do what it should; otherwise it is the policy that
    /// does not.
    pub displaces: bool,
    /// Which policy, what it does, what to do.
    pub message: String,
}

/// What users' policies decide for any of the routes. Names do not depend on
/// it, so the bundles may have been made without.
pub fn users(bundles: &[Bundle], gateway: &Place, policies: &Policies<'_>) -> Users {
    let mut users = Users::default();
    for policy in foreign(policies.traffic) {
        if !bundles
            .iter()
            .any(|b| covers(policy.as_ref(), &policy.spec.targets, &b.route, gateway))
        {
            continue;
        }
        let set = |path: &str| field(policy, path).is_some();
        users.request_timeout |= set("/timeout/http/requestTimeout");
        users.circuit_breakers |= set("/circuitBreaker");
        users.http |= [
            "/timeout/http/connectionIdleTimeout",
            "/timeout/http/maxConnectionDuration",
            "/timeout/http/maxStreamDuration",
            "/circuitBreaker/maxRequestsPerConnection",
            "/useClientProtocol",
            "/admissionControl",
            "/http1",
            "/http2",
        ]
        .into_iter()
        .any(set);
    }
    users
}

/// The policies that get in the way of these bundles. `backends` are the
/// HTTPProxy's own Backends as they are there.
pub fn problems(
    bundles: &[Bundle],
    gateway: &Place,
    backends: &[Arc<Backend>],
    policies: &Policies<'_>,
) -> Vec<Override> {
    let mut found = Vec::new();
    for policy in foreign(policies.traffic) {
        traffic(bundles, gateway, policy, &mut found);
    }
    let tunnels: Vec<_> = bundles.iter().filter(|b| b.patch.is_some()).collect();
    if tunnels.is_empty() {
        return found;
    }
    tls(&tunnels, backends, policies, &mut found);
    let ours = policies.extension.iter().find(|p| is_managed(p.as_ref()));
    for policy in foreign(policies.extension) {
        let direct = tunnels
            .iter()
            .any(|b| names(policy.as_ref(), &policy.spec.targets, &b.route));
        // Of two policies for one route Envoy Gateway takes the older.
        let first = ours.is_none_or(|ours| is_older(policy.as_ref(), ours.as_ref()));
        if direct && first {
            found.push(Override {
                displaces: true,
                message: format!(
                    "EnvoyExtensionPolicy {} is for the same HTTPRoutes as the one with the module's filter, and older; let it select the Gateway instead",
                    show(policy.as_ref())
                ),
            });
        }
    }
    found
}

/// TLS that Envoy Gateway would originate around the tunnel.
fn tls(
    tunnels: &[&Bundle],
    backends: &[Arc<Backend>],
    policies: &Policies<'_>,
    found: &mut Vec<Override>,
) {
    let wanted = || {
        let all = tunnels.iter().flat_map(|b| &b.backends);
        // Only placeholders; a plain backend beside them may have TLS.
        all.filter(|b| b.spec.tls.is_none() && is_placeholder(b))
    };
    for policy in policies.tls {
        let target = policy.spec.target_refs.iter().find(|t| {
            t.group == GROUP
                && t.kind == "Backend"
                && wanted().any(|b| b.name_any() == t.name && b.namespace() == policy.namespace())
        });
        if let Some(target) = target {
            found.push(Override {
                displaces: true,
                message: format!(
                    "BackendTLSPolicy {} is for Backend {}, which is reached through a tunnel: delete it, and use an https:// endpoint for TLS to the service",
                    show(policy.as_ref()),
                    target.name
                ),
            });
        }
    }
    for backend in backends {
        let same = |b: &Backend| b.name_any() == backend.name_any();
        if backend.spec.tls.is_some() && wanted().any(same) {
            found.push(Override {
                displaces: true,
                message: format!(
                    "Backend {} was given tls by someone, but is reached through a tunnel: remove spec.tls, and use an https:// endpoint for TLS to the service",
                    show(backend.as_ref())
                ),
            });
        }
    }
}

fn traffic(
    bundles: &[Bundle],
    gateway: &Place,
    policy: &Arc<BackendTrafficPolicy>,
    found: &mut Vec<Override>,
) {
    let targets = &policy.spec.targets;
    let in_scope = |b: &&Bundle| covers(policy.as_ref(), targets, &b.route, gateway);
    let mut say = |displaces: bool, what: String| {
        found.push(Override {
            displaces,
            message: format!("BackendTrafficPolicy {} {what}", show(policy.as_ref())),
        });
    };
    let connect = policy
        .spec
        .http_upgrade
        .iter()
        .any(|u| u.type_.eq_ignore_ascii_case("CONNECT"));
    let plain = |b: &&Bundle| b.traffic.is_none();
    if connect && bundles.iter().filter(plain).any(|b| in_scope(&b)) {
        say(
            true,
            "opens CONNECT for all its routes, which then serve nothing else; use a tcp:// endpoint for a route of its own".into(),
        );
    }
    let taken = bundles.iter().find(|b| {
        b.traffic.is_some()
            && names(policy.as_ref(), targets, &b.route)
            && policy_is_first(policy, b)
    });
    if let Some(bundle) = taken {
        say(
            true,
            format!(
                "is for HTTPRoute {} too and older than the one that opens CONNECT for it; let it select other routes",
                bundle.route.name_any()
            ),
        );
    }
    let tunnels = || bundles.iter().filter(|b| b.patch.is_some());
    if !tunnels().any(|b| in_scope(&b)) {
        return;
    }
    if field(policy, "/proxyProtocol").is_some() {
        say(
            true,
            "asks for the PROXY protocol, which a tunnel does not carry; let it select other routes".into(),
        );
    }
    let timeout = field(policy, "/timeout/tcp/connectTimeout").and_then(Value::as_str);
    let timeout = timeout.and_then(duration);
    let needed = tunnels().filter(|b| in_scope(b)).filter_map(longest).max();
    if let (Some(timeout), Some(needed)) = (timeout, needed)
        && timeout < needed
    {
        say(
            false,
            format!(
                "has a connectTimeout of {timeout:?}; a tunnel has {needed:?}, so that its own answer comes first"
            ),
        );
    }
}

/// Our own policy for the route would be younger: it is not there yet, or was
/// made later.
fn policy_is_first(policy: &Arc<BackendTrafficPolicy>, bundle: &Bundle) -> bool {
    match &bundle.traffic {
        Some(ours) => is_older(policy.as_ref(), ours),
        None => false,
    }
}

/// The connect timeout of a bundle's clusters.
fn longest(bundle: &Bundle) -> Option<Duration> {
    let targets = patched_targets(bundle.patch.as_ref()?)?;
    targets.iter().map(|t| t.deadline + VERDICT_GRACE).max()
}

fn is_placeholder(backend: &Backend) -> bool {
    let mut endpoints = backend.spec.endpoints.iter();
    endpoints.any(|e| {
        let ip = e.ip.as_ref();
        ip.is_some_and(|ip| ip.address.starts_with(super::backend::PLACEHOLDERS))
    })
}

fn field<'a>(policy: &'a BackendTrafficPolicy, path: &str) -> Option<&'a Value> {
    let (first, rest) = match path[1..].split_once('/') {
        Some((first, rest)) => (first, format!("/{rest}")),
        None => (&path[1..], String::new()),
    };
    policy.spec.rest.get(first)?.pointer(&rest)
}

fn show(object: &impl Resource) -> String {
    format!(
        "{}/{}",
        object.namespace().unwrap_or_default(),
        object.name_any()
    )
}

/// A duration of Gateway API: `1h2m3s4ms`.
fn duration(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, tail) = rest.split_at(digits);
        let unit = tail
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        let number: u64 = number.parse().ok()?;
        let part = match unit {
            "h" => Duration::from_secs(number.checked_mul(3600)?),
            "m" => Duration::from_secs(number.checked_mul(60)?),
            "s" => Duration::from_secs(number),
            "ms" => Duration::from_millis(number),
            _ => return None,
        };
        total = total.checked_add(part)?;
        rest = tail;
    }
    Some(total)
}

#[cfg(test)]
mod tests;
