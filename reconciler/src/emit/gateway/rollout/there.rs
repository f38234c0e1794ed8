//! What is there of an HTTPProxy, by place.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use adit_api::{
    Resource, ResourceExt as _,
    envoy_gateway::{Backend, BackendTrafficPolicy, EnvoyPatchPolicy},
};
use adit_wire::Target;
use gateway_api::httproutes::HttpRoute;

use super::{
    super::{GATEWAY_API, Place, ROUTE_LABEL, patched_targets, verdict},
    Observed, place,
};

/// What is there, by place.
pub(super) struct There<'a> {
    observed: &'a Observed,
    pub(super) routes: BTreeMap<Place, &'a Arc<HttpRoute>>,
    pub(super) backends: BTreeMap<Place, &'a Arc<Backend>>,
    pub(super) traffics: BTreeMap<Place, &'a Arc<BackendTrafficPolicy>>,
    pub(super) patches: BTreeMap<Place, &'a Arc<EnvoyPatchPolicy>>,
    pub(super) route_names: BTreeSet<&'a str>,
}

impl<'a> There<'a> {
    pub(super) fn of(observed: &'a Observed) -> Self {
        fn by_place<K: Resource>(list: &[Arc<K>]) -> BTreeMap<Place, &Arc<K>> {
            list.iter().map(|o| (place(o.as_ref()), o)).collect()
        }
        Self {
            observed,
            routes: by_place(&observed.routes),
            backends: by_place(&observed.backends),
            traffics: by_place(&observed.traffics),
            patches: by_place(&observed.patches),
            route_names: (observed.routes.iter())
                .filter_map(|r| r.metadata.name.as_deref())
                .collect(),
        }
    }

    pub(super) fn statuses(&self) -> verdict::Statuses<'_> {
        verdict::Statuses {
            routes: &self.routes,
            patches: &self.patches,
        }
    }

    /// Whether every target that a route's policy leads to may be reached.
    pub(super) fn permitted(&self, route: &HttpRoute, permitted: &dyn Fn(&Target) -> bool) -> bool {
        let name = route.name_any();
        let policies = self
            .patches
            .values()
            .filter(|p| p.labels().get(ROUTE_LABEL) == Some(&name));
        policies
            .into_iter()
            .all(|p| patched_targets(p).is_some_and(|targets| targets.iter().all(permitted)))
    }

    pub(super) fn has_gateway(&self, patch: &EnvoyPatchPolicy) -> bool {
        let target = &patch.spec.target_ref;
        let gateways = &self.observed.gateways;
        if target.group == GATEWAY_API && target.kind == "Gateway" {
            gateways.contains(&Place {
                namespace: patch.namespace().unwrap_or_default(),
                name: target.name.clone(),
            })
        } else {
            !gateways.is_empty()
        }
    }
}
