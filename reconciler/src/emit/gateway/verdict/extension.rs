//! What Envoy Gateway says of the policy with the module's filter.

use adit_api::{
    ResourceExt as _,
    envoy_gateway::{AncestorStatus, EnvoyExtensionPolicy},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::{
    super::Place, NotYet, Reason, ancestors, current_condition, invalid, pending, sanitised,
};

/// Whether the module's filter stands before our routes.
pub(super) fn stands(policy: Option<&EnvoyExtensionPolicy>, gateway: &Place) -> Result<(), NotYet> {
    let Some(policy) = policy else {
        return Err(NotYet::new(
            Reason::Pending,
            "the EnvoyExtensionPolicy with the module's filter is not written yet",
        ));
    };
    let name = policy.name_any();
    let own = policy.namespace().unwrap_or_default();
    let about = |a: &&AncestorStatus| {
        let namespace = a.ancestor_ref.namespace.as_deref().unwrap_or(&own);
        a.ancestor_ref.name == gateway.name && namespace == gateway.namespace
    };
    let mut accepted = false;
    for ancestor in ancestors(policy.status.as_ref()).into_iter().filter(about) {
        for condition in &ancestor.conditions {
            if !current_condition(condition, policy.metadata.generation) {
                continue;
            }
            match (condition.type_.as_str(), condition.status.as_str()) {
                ("Accepted", "True") => accepted = true,
                ("Accepted", _) if condition.reason == "Conflicted" => {
                    return Err(overridden(&name, condition));
                }
                ("Overridden", "True") => return Err(overridden(&name, condition)),
                ("Accepted", _) => return Err(refused_module(&name, condition)),
                // `Merged` may stand alone, for one listener.
                ("Merged", "True") => accepted = true,
                _ => {}
            }
        }
    }
    match accepted {
        true => Ok(()),
        false => Err(pending("EnvoyExtensionPolicy", &name, "has no status yet")),
    }
}

fn overridden(name: &str, condition: &Condition) -> NotYet {
    let message = format!(
        "EnvoyExtensionPolicy {name} is displaced by another one; give that one `mergeType: StrategicMerge` or let it select other routes. Envoy Gateway: {}",
        sanitised(&condition.message)
    );
    NotYet::new(Reason::PolicyOverridden, message)
}

fn refused_module(name: &str, condition: &Condition) -> NotYet {
    let text = sanitised(&condition.message);
    // The one word that Envoy Gateway's sentences about the list share.
    if text.to_ascii_lowercase().contains("module") {
        let message = format!(
            "Envoy Gateway refuses the module of EnvoyExtensionPolicy {name}; list it in spec.dynamicModules of the Gateway's EnvoyProxy. Envoy Gateway: {text}"
        );
        return NotYet::new(Reason::ModuleNotInstalled, message);
    }
    invalid("EnvoyExtensionPolicy", name, condition)
}
