//! Statuses as Envoy Gateway writes them.

use adit_api::{
    Time,
    envoy_gateway::{AncestorRef, AncestorStatus, EnvoyPatchPolicy, PolicyStatus},
};
use gateway_api::httproutes::{
    HttpRoute, HttpRouteStatus, HttpRouteStatusParents, HttpRouteStatusParentsParentRef,
};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};

pub(in super::super::super) fn condition(
    type_: &str,
    status: bool,
    reason: &str,
    generation: Option<i64>,
) -> Condition {
    Condition {
        type_: type_.to_owned(),
        status: if status { "True" } else { "False" }.to_owned(),
        reason: reason.to_owned(),
        message: format!("{reason} says Envoy Gateway"),
        observed_generation: generation,
        last_transition_time: Time(Timestamp::UNIX_EPOCH),
    }
}

pub(in super::super::super) fn route_status(
    route: &HttpRoute,
    accepted: bool,
    resolved: bool,
) -> HttpRouteStatus {
    let parent = &route.spec.parent_refs.as_ref().expect("one")[0];
    let generation = route.metadata.generation;
    HttpRouteStatus {
        parents: vec![HttpRouteStatusParents {
            controller_name: "gateway.envoyproxy.io/gatewayclass-controller".into(),
            parent_ref: HttpRouteStatusParentsParentRef {
                name: parent.name.clone(),
                namespace: parent.namespace.clone(),
                ..Default::default()
            },
            conditions: vec![
                condition("Accepted", accepted, "Accepted", generation),
                condition("ResolvedRefs", resolved, "ResolvedRefs", generation),
            ],
        }],
    }
}

pub(in super::super::super) fn patch_status(
    patch: &EnvoyPatchPolicy,
    programmed: bool,
) -> PolicyStatus {
    let generation = patch.metadata.generation;
    let reason = if programmed {
        "Programmed"
    } else {
        "ResourceNotFound"
    };
    PolicyStatus {
        ancestors: vec![AncestorStatus {
            ancestor_ref: AncestorRef {
                name: patch.spec.target_ref.name.clone(),
                ..AncestorRef::default()
            },
            controller_name: "gateway.envoyproxy.io/gatewayclass-controller".into(),
            conditions: vec![
                condition("Accepted", true, "Accepted", generation),
                condition("Programmed", programmed, reason, generation),
            ],
        }],
    }
}
