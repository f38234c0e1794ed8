//! What Envoy Gateway's statuses say of what we wrote.
//!
//! Only the controller of a Gateway's class speaks of that Gateway, whatever
//! its installation calls it; so the Gateway is compared, not the name. A status
//! counts only if it is for the object's current generation: an older one speaks
//! of what was there before.

mod backends;
mod extension;

use std::{collections::BTreeMap, fmt, sync::Arc};

use adit_api::{
    ResourceExt as _,
    envoy_gateway::{AncestorStatus, EnvoyExtensionPolicy, EnvoyPatchPolicy, PolicyStatus},
};
use gateway_api::{gateways::Gateway, httproutes::HttpRoute};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::{
    Bundle, Place,
    rollout::{self, Observed, place},
};

/// The most that is repeated of what others say.
const MAX_TEXT: usize = 300;

/// What `Programmed=True` says: what it does not mean.
pub const PROGRAMMED: &str = "Envoy Gateway has accepted and translated all of it. Whether Envoy took it shows elsewhere: Envoy Gateway's log and its metric xds_nack_total, and error_state in Envoy's /config_dump";

/// Why an HTTPProxy is not programmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The Gateway's EnvoyProxy does not list the module.
    ModuleNotInstalled,
    /// Envoy Gateway applies no EnvoyPatchPolicies.
    PatchPolicyDisabled,
    /// Another policy displaces what a tunnel needs.
    PolicyOverridden,
    /// There is no such Gateway.
    GatewayNotFound,
    /// The Gateway has no listener that works.
    GatewayNotReady,
    /// An object of a name that we need is not ours.
    Conflict,
    /// Envoy Gateway refuses it.
    Invalid,
    /// Envoy Gateway has not said yet.
    Pending,
}

/// Why, and a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotYet {
    /// Why.
    pub reason: Reason,
    /// What was found, and what to do.
    pub message: String,
}

/// The objects whose statuses are read, by place.
pub(super) struct Statuses<'a> {
    pub(super) routes: &'a BTreeMap<Place, &'a Arc<HttpRoute>>,
    pub(super) patches: &'a BTreeMap<Place, &'a Arc<EnvoyPatchPolicy>>,
}

/// Whether all bundles serve. `extension` is the Gateway's policy, if any
/// bundle has a tunnel.
pub fn programmed(
    desired: &[Bundle],
    observed: &Observed,
    gateway: Option<&Gateway>,
    extension: Option<&EnvoyExtensionPolicy>,
) -> Result<(), NotYet> {
    let Some(gateway) = gateway else {
        return Err(NotYet::new(
            Reason::GatewayNotFound,
            "the Gateway does not exist; make it, or name another one",
        ));
    };
    listeners(gateway)?;
    if desired.is_empty() {
        return Err(NotYet::new(
            Reason::Invalid,
            "no rule has an effect; the condition Accepted says why",
        ));
    }
    if desired.iter().any(|b| b.patch.is_some()) {
        extension::stands(extension, &place(gateway))?;
    }
    let routes = observed.routes.iter().map(|r| (place(r.as_ref()), r));
    let patches = observed.patches.iter().map(|p| (place(p.as_ref()), p));
    let statuses = Statuses {
        routes: &routes.collect(),
        patches: &patches.collect(),
    };
    // What a person must act on is said before what only takes time.
    let problems = desired.iter().filter_map(|b| bundle(b, &statuses).err());
    match problems.min_by_key(|p| p.reason) {
        Some(problem) => Err(problem),
        None => Ok(()),
    }
}

/// Whether one bundle serves as it is written now.
pub(super) fn bundle(bundle: &Bundle, statuses: &Statuses<'_>) -> Result<(), NotYet> {
    let found = statuses.routes.get(&place(&bundle.route));
    patched(bundle, statuses).map_err(|why| match (why.reason, found) {
        // It would wait for ever, for a cluster of a kind that is switched off.
        (Reason::Pending, Some(found)) => backends::off(found).unwrap_or(why),
        _ => why,
    })?;
    match found {
        Some(found) if rollout::is_current_form(found.as_ref(), &bundle.route) => route(found),
        // Before it takes requests. What is refused is said already.
        Some(found) if rollout::is_retired(found) => {
            route(found)?;
            Err(pending(
                "HTTPRoute",
                &bundle.route.name_any(),
                "is being brought in",
            ))
        }
        _ => Err(pending(
            "HTTPRoute",
            &bundle.route.name_any(),
            "is not written yet",
        )),
    }
}

/// Whether a bundle's policy, if it has one, serves as it is written now.
fn patched(bundle: &Bundle, statuses: &Statuses<'_>) -> Result<(), NotYet> {
    let Some(patch) = &bundle.patch else {
        return Ok(());
    };
    match statuses.patches.get(&place(patch)) {
        Some(found) if rollout::is_current_form(found.as_ref(), patch) => policy(found),
        _ => Err(pending(
            "EnvoyPatchPolicy",
            &patch.name_any(),
            "is not written yet",
        )),
    }
}

/// Whether all that a new route needs is there, so that it may take requests.
pub(super) fn arrived(bundle: &Bundle, statuses: &Statuses<'_>) -> Result<(), NotYet> {
    patched(bundle, statuses)?;
    match statuses.routes.get(&place(&bundle.route)) {
        Some(found) => route(found),
        None => Err(pending(
            "HTTPRoute",
            &bundle.route.name_any(),
            "is not written yet",
        )),
    }
}

/// Whether Envoy Gateway takes a route, for each of its parents.
fn route(route: &HttpRoute) -> Result<(), NotYet> {
    let name = route.name_any();
    if let Some(off) = backends::off(route) {
        return Err(off);
    }
    for type_ in ["Accepted", "ResolvedRefs"] {
        // Without backends there is nothing to resolve, and some say so.
        let without = backends(route) == 0;
        let found = route_condition(route, type_);
        match found {
            None => return Err(pending("HTTPRoute", &name, "has no status yet")),
            Some(c) if !current_condition(c, route.metadata.generation) => {
                return Err(pending(
                    "HTTPRoute",
                    &name,
                    "changed; its status is of before",
                ));
            }
            Some(c) if c.status == "True" || (without && type_ == "ResolvedRefs") => {}
            Some(c) => return Err(invalid("HTTPRoute", &name, c)),
        }
    }
    Ok(())
}

fn policy(policy: &EnvoyPatchPolicy) -> Result<(), NotYet> {
    let name = policy.name_any();
    let ancestors = ancestors(policy.status.as_ref());
    if ancestors.is_empty() {
        return Err(pending("EnvoyPatchPolicy", &name, "has no status yet"));
    }
    for ancestor in ancestors {
        for type_ in ["Accepted", "Programmed"] {
            match ancestor.condition(type_) {
                Some(c) if !current_condition(c, policy.metadata.generation) => {
                    return Err(pending(
                        "EnvoyPatchPolicy",
                        &name,
                        "changed; its status is of before",
                    ));
                }
                Some(c) if c.status == "True" => {}
                Some(c) if c.reason == "Disabled" => {
                    return Err(NotYet::new(
                        Reason::PatchPolicyDisabled,
                        "Envoy Gateway applies no EnvoyPatchPolicies: set extensionApis.enableEnvoyPatchPolicy to true in its configuration",
                    ));
                }
                Some(c) if c.reason == "ResourceNotFound" => {
                    return Err(pending(
                        "EnvoyPatchPolicy",
                        &name,
                        "waits for the clusters of its route",
                    ));
                }
                Some(c) => return Err(invalid("EnvoyPatchPolicy", &name, c)),
                None => return Err(pending("EnvoyPatchPolicy", &name, "has no status yet")),
            }
        }
    }
    Ok(())
}

/// At least one listener must work. The Gateway's own Programmed is not asked:
/// it also speaks of the load balancer's address.
fn listeners(gateway: &Gateway) -> Result<(), NotYet> {
    let listeners = gateway
        .status
        .iter()
        .flat_map(|s| s.listeners.iter().flatten());
    let mut said = None;
    for listener in listeners {
        let found = listener.conditions.iter().find(|c| c.type_ == "Programmed");
        match found {
            Some(c) if c.status == "True" => return Ok(()),
            Some(c) => said = said.or(Some((listener.name.as_str(), c))),
            None => {}
        }
    }
    let at = place(gateway);
    let message = match said {
        Some((name, c)) => format!(
            "no listener of Gateway {}/{} works; {name}: {} ({})",
            at.namespace,
            at.name,
            sanitised(&c.message),
            sanitised(&c.reason)
        ),
        None => format!(
            "Gateway {}/{} has no listener that Envoy Gateway has looked at; is its class Envoy Gateway's?",
            at.namespace, at.name
        ),
    };
    Err(NotYet::new(Reason::GatewayNotReady, message))
}

/// Whether Envoy Gateway said last that the policy is applied.
pub(super) fn is_programmed(policy: &EnvoyPatchPolicy) -> bool {
    ancestors(policy.status.as_ref()).iter().any(|a| {
        a.condition("Programmed")
            .is_some_and(|c| c.status == "True")
    })
}

/// Whether a route was taken at any time.
pub(super) fn served(route: &HttpRoute) -> bool {
    route_condition(route, "Accepted").is_some_and(|c| c.status == "True")
}

/// Whether Envoy Gateway has looked at the route as it is.
pub(super) fn current(route: &HttpRoute) -> bool {
    route_condition(route, "Accepted")
        .is_some_and(|c| current_condition(c, route.metadata.generation))
}

/// What Envoy Gateway says of a Backend of a route that it has not found.
pub(super) fn unresolved(route: &HttpRoute) -> Option<&Condition> {
    let missing = |c: &&Condition| c.status != "True" && c.reason == "BackendNotFound";
    route_condition(route, "ResolvedRefs")
        .filter(missing)
        .filter(|c| current_condition(c, route.metadata.generation))
}

/// Whether Envoy Gateway has found all that a route as it is refers to.
pub(super) fn resolved(route: &HttpRoute) -> bool {
    route_condition(route, "ResolvedRefs")
        .is_some_and(|c| c.status == "True" && current_condition(c, route.metadata.generation))
}

/// What Envoy Gateway says of a cluster of a policy that it has not found.
pub(super) fn unfound(policy: &EnvoyPatchPolicy) -> Option<&Condition> {
    let missing = |c: &&Condition| c.status != "True" && c.reason == "ResourceNotFound";
    ancestors(policy.status.as_ref())
        .into_iter()
        .filter_map(|a| a.condition("Programmed"))
        .find(missing)
        .filter(|c| current_condition(c, policy.metadata.generation))
}

/// Text of others for a message: one line, without control characters, short.
pub fn sanitised(text: &str) -> String {
    let mut out: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MAX_TEXT)
        .collect();
    if text.chars().nth(MAX_TEXT).is_some() {
        out.push('…');
    }
    out
}

fn ancestors(status: Option<&PolicyStatus>) -> Vec<&AncestorStatus> {
    status.iter().flat_map(|s| &s.ancestors).collect()
}

/// A condition of the one parent that our routes have.
fn route_condition<'a>(route: &'a HttpRoute, type_: &str) -> Option<&'a Condition> {
    let own = route.metadata.namespace.as_deref();
    let wanted = route.spec.parent_refs.iter().flatten().next()?;
    let parent = route.status.iter().flat_map(|s| &s.parents).find(|p| {
        p.parent_ref.name == wanted.name
            && p.parent_ref.namespace.as_deref().or(own) == wanted.namespace.as_deref().or(own)
    })?;
    parent.conditions.iter().find(|c| c.type_ == type_)
}

fn current_condition(condition: &Condition, generation: Option<i64>) -> bool {
    condition.observed_generation == generation
}

fn backends(route: &HttpRoute) -> usize {
    let rules = route.spec.rules.iter().flatten();
    rules
        .map(|r| r.backend_refs.as_ref().map_or(0, Vec::len))
        .sum()
}

fn pending(kind: &str, name: &str, what: &str) -> NotYet {
    NotYet::new(Reason::Pending, format!("{kind} {name} {what}"))
}

fn invalid(kind: &str, name: &str, condition: &Condition) -> NotYet {
    let message = format!(
        "Envoy Gateway refuses {kind} {name}: {} ({})",
        sanitised(&condition.message),
        sanitised(&condition.reason)
    );
    NotYet::new(Reason::Invalid, message)
}

impl NotYet {
    /// A reason and a sentence.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }
}

impl Reason {
    /// The word that the condition carries.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ModuleNotInstalled => "ModuleNotInstalled",
            Self::PatchPolicyDisabled => "PatchPolicyDisabled",
            Self::PolicyOverridden => "PolicyOverridden",
            Self::GatewayNotFound => "GatewayNotFound",
            Self::GatewayNotReady => "GatewayNotReady",
            Self::Conflict => "Conflict",
            Self::Invalid => "Invalid",
            Self::Pending => "Pending",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests;
