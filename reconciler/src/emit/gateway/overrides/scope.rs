//! Which policies are for which routes, and which of two comes first.

use std::sync::Arc;

use adit_api::{
    ObjectMeta, Resource, ResourceExt as _,
    envoy_gateway::{FromNamespaces, Targets},
    labels,
};
use gateway_api::httproutes::HttpRoute;

use super::super::{GATEWAY_API, MANAGED_BY, MANAGED_BY_LABEL, Place};

/// Whether a policy has a say on a route: for itself or for its Gateway.
pub(super) fn covers(
    policy: &impl Resource,
    targets: &Targets,
    route: &HttpRoute,
    gateway: &Place,
) -> bool {
    let namespace = policy.meta().namespace.as_deref().unwrap_or_default();
    let refs = targets.target_ref.iter().chain(&targets.target_refs);
    let gateway_by_name = refs.into_iter().any(|t| {
        t.group == GATEWAY_API
            && t.kind == "Gateway"
            && t.name == gateway.name
            && namespace == gateway.namespace
    });
    // A Gateway's labels are not known here; that it may be meant is enough.
    let gateway_by_label = targets.target_selectors.iter().any(|s| {
        let same = s
            .namespaces
            .as_ref()
            .is_none_or(|n| n.from == FromNamespaces::Same);
        s.kind == "Gateway" && (!same || namespace == gateway.namespace)
    });
    gateway_by_name || gateway_by_label || names(policy, targets, route)
}

/// Whether a policy is for the route itself, by name or label.
pub(super) fn names(policy: &impl Resource, targets: &Targets, route: &HttpRoute) -> bool {
    let same_namespace = policy.meta().namespace == route.metadata.namespace;
    let mut refs = targets.target_ref.iter().chain(&targets.target_refs);
    let by_name = same_namespace
        && refs
            .any(|t| t.group == GATEWAY_API && t.kind == "HTTPRoute" && t.name == route.name_any());
    by_name
        || targets.target_selectors.iter().any(|s| {
            let same = s
                .namespaces
                .as_ref()
                .is_none_or(|n| n.from == FromNamespaces::Same);
            s.kind == "HTTPRoute"
                && (!same || same_namespace)
                && labels::selected(
                    route.labels(),
                    &s.match_labels,
                    s.match_expressions.iter().map(Into::into),
                )
        })
}

pub(super) fn foreign<K: Resource>(policies: &[Arc<K>]) -> impl Iterator<Item = &Arc<K>> {
    policies.iter().filter(|p| !is_managed(p.as_ref()))
}

pub(super) fn is_managed(object: &impl Resource) -> bool {
    object.labels().get(MANAGED_BY_LABEL).map(String::as_str) == Some(MANAGED_BY)
}

/// As Envoy Gateway sorts policies: by creation, then by place. One that is
/// not there yet is the youngest.
pub(super) fn is_older(a: &impl Resource, b: &impl Resource) -> bool {
    fn key(meta: &ObjectMeta) -> impl Ord + '_ {
        let created = meta.creation_timestamp.as_ref().map(|t| t.0);
        (created.is_none(), created, &meta.namespace, &meta.name)
    }
    key(a.meta()) < key(b.meta())
}
