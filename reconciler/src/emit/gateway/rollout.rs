//! What to write and to delete next, so that no request is lost on the way.
//!
//! A change of what a route does is another route ([`super::bundles`]), so a
//! rollout has, for each rule that changed:
//!
//! 1. the new policy and Backends, beside the old ones;
//! 2. the new route, once Envoy Gateway knows them: of two routes for the same
//!    requests it takes the older, so nothing moves yet;
//! 3. when the new one is programmed, the old route is *retired*: it gets a
//!    condition that no request meets. Requests move in one step, while both
//!    clusters are there. (Were the route deleted now, Envoy would lose the
//!    cluster a moment before the route.)
//! 4. then the old route goes, and when Envoy Gateway has seen that, its
//!    policy and its Backends.
//!
//! More specific routes are added first and retired last, so that a request
//! never meets a rule that is neither its old nor its new one.
//!
//! All of it is one function of what is wanted and what is there, called
//! again after each change. Nothing is remembered.

mod object;
mod overlap;
mod stale;
mod there;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use adit_api::{
    Resource, ResourceExt as _,
    envoy_gateway::{Backend, BackendTrafficPolicy, EnvoyPatchPolicy},
};
use adit_wire::Target;
use gateway_api::httproutes::HttpRoute;

use super::{Bundle, Place, ROUTE_LABEL, is_ours, verdict};

pub use object::{Kind, Object, Reference};
pub use overlap::{Specificity, specificity};
pub use stale::{Stale, stale};

use object::covers;
use there::There;

/// Whether an object is there as it is wanted.
pub(super) use object::{covers as is_current_form, is_retired};

/// From Envoy Gateway's status to Envoy: 40 ms were measured, and deleting a
/// retired route after 200 ms failed none of 99,343 requests.
const BEHIND: Duration = Duration::from_millis(250);

/// What is there of one HTTPProxy: all objects with its UID, and those of
/// other owners that have a name we want.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// Its routes.
    pub routes: Vec<Arc<HttpRoute>>,
    /// Their Backends.
    pub backends: Vec<Arc<Backend>>,
    /// Their BackendTrafficPolicies.
    pub traffics: Vec<Arc<BackendTrafficPolicy>>,
    /// Their EnvoyPatchPolicies, in any namespace.
    pub patches: Vec<Arc<EnvoyPatchPolicy>>,
    /// The Gateways that exist: nobody sets the status of a policy whose
    /// Gateway does not.
    pub gateways: BTreeSet<Place>,
}

/// What to do now.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// To be written, in this order.
    pub apply: Vec<Apply>,
    /// To be deleted then, in this order.
    pub delete: Vec<Reference>,
    /// To be waited before anything is deleted: Envoy is a little behind what
    /// Envoy Gateway says.
    pub pause: Option<Duration>,
    /// What the rest waits for; empty when all is as wanted.
    pub waiting: Vec<String>,
    /// Names that others have taken. Nothing of theirs is touched.
    pub refused: Vec<Reference>,
}

/// An object to be written.
#[derive(Debug, Clone)]
pub struct Apply {
    /// The object, as server-side apply takes it.
    pub object: Object,
    /// There was none of this name: another one that turns up meanwhile is not
    /// ours and must not be changed.
    pub create: bool,
}

/// The next steps from what is there towards what is wanted, for the HTTPProxy
/// of this UID.
///
/// `permitted` says whether a target may still be reached: as long as it may,
/// its old route goes on until the new one serves; if it may not, its route
/// goes at once.
pub fn plan(
    uid: &str,
    desired: &[Bundle],
    observed: &Observed,
    permitted: &dyn Fn(&Target) -> bool,
) -> Plan {
    let mut plan = Plan::default();
    let there = There::of(observed);
    let wanted: BTreeSet<_> = desired.iter().map(|b| b.route.name_any()).collect();
    let old: Vec<_> = there
        .routes
        .values()
        .filter(|r| is_ours(r.as_ref(), uid) && !wanted.contains(&r.name_any()))
        .map(|r| Old {
            route: r,
            forbidden: !there.permitted(r, permitted),
        })
        .collect();
    plan.parts(uid, desired, &there);
    plan.routes(uid, desired, &there, &old);
    plan.farewells(desired, &there, old);
    plan.leftovers(uid, desired, &there);
    plan
}

impl Plan {
    /// Whether all is as wanted.
    pub fn is_done(&self) -> bool {
        self.apply.is_empty()
            && self.delete.is_empty()
            && self.waiting.is_empty()
            && self.refused.is_empty()
    }

    /// Policies and Backends, and CONNECT's policies.
    fn parts(&mut self, uid: &str, desired: &[Bundle], there: &There<'_>) {
        for bundle in desired {
            if let Some(patch) = &bundle.patch {
                let found = there.patches.get(&place(patch)).map(AsRef::as_ref);
                self.write(uid, patch, found, Object::Patch);
            }
            for backend in &bundle.backends {
                let found = there.backends.get(&place(backend)).map(AsRef::as_ref);
                self.write(uid, backend, found, Object::Backend);
            }
            if let Some(traffic) = &bundle.traffic {
                let found = there.traffics.get(&place(traffic)).map(AsRef::as_ref);
                self.write(uid, traffic, found, Object::Traffic);
            }
        }
    }

    /// The routes, the most specific first (so [`super::bundles`] orders them).
    fn routes(&mut self, uid: &str, desired: &[Bundle], there: &There<'_>, old: &[Old<'_>]) {
        let mut held: Vec<&HttpRoute> = Vec::new();
        for bundle in desired {
            let route = &bundle.route;
            let found = there.routes.get(&place(route)).map(AsRef::as_ref);
            let shadows =
                |r: &HttpRoute| r.name_any() != route.name_any() && overlap::overlaps(r, route);
            // Requests that are served now, by another route, could move to
            // this one at once. And what it has to precede comes after it.
            let live = there.routes.values().any(|r| shadows(r));
            let urgent = old.iter().any(|o| o.forbidden && shadows(o.route));
            let new = found.is_none_or(object::is_retired);
            let name = route.name_any();
            if !new || urgent || !live {
                self.write(uid, route, found, Object::Route);
            } else if held.iter().any(|h| overlap::overlaps(h, route)) {
                self.wait(format!("HTTPRoute {name} waits for a more specific route"));
                held.push(route);
            } else if found.is_none() {
                // Envoy Gateway says nothing of a Backend that no route names.
                // So the route comes without requests first.
                self.write(uid, &object::retired(route), None, Object::Route);
                self.wait(format!("HTTPRoute {name} is being brought in"));
                held.push(route);
            } else if verdict::arrived(bundle, &there.statuses()).is_err() {
                self.wait(format!("HTTPRoute {name} is being brought in"));
                held.push(route);
            } else {
                self.write(uid, route, found, Object::Route);
            }
        }
    }

    /// Old routes, the least specific first.
    fn farewells(&mut self, desired: &[Bundle], there: &There<'_>, mut old: Vec<Old<'_>>) {
        old.sort_by_cached_key(|o| std::cmp::Reverse(specificity(o.route)));
        let ready: Vec<_> = desired
            .iter()
            .map(|b| (b, verdict::bundle(b, &there.statuses()).is_ok()))
            .collect();
        let mut staying: Vec<&HttpRoute> = Vec::new();
        // What is forbidden does not wait for Envoy to follow.
        let at_once = old.iter().any(|o| o.forbidden);
        for Old { route, forbidden } in old {
            if forbidden || route.metadata.deletion_timestamp.is_some() {
                self.remove(Kind::Route, route);
                continue;
            }
            let successor =
                |(b, ready): &&(&Bundle, bool)| !ready && overlap::overlaps(&b.route, route);
            if let Some((b, _)) = ready.iter().find(successor) {
                self.wait(format!(
                    "HTTPRoute {} serves until {} does",
                    route.name_any(),
                    b.route.name_any()
                ));
                staying.push(route);
                continue;
            }
            if staying.iter().any(|s| overlap::overlaps(s, route)) {
                self.wait(format!("HTTPRoute {} stays with another", route.name_any()));
                staying.push(route);
                continue;
            }
            let replaced = desired.iter().any(|b| overlap::overlaps(&b.route, route));
            if !replaced || !verdict::served(route) {
                // Nobody takes over, or there is nothing to take over.
                self.remove(Kind::Route, route);
            } else if object::is_retired(route) {
                if verdict::current(route) && !at_once {
                    self.pause = Some(BEHIND);
                    self.remove(Kind::Route, route);
                } else {
                    self.wait(format!("HTTPRoute {} is being retired", route.name_any()));
                }
            } else {
                self.apply.push(Apply {
                    object: Object::Route(Box::new(object::retired(route))),
                    create: false,
                });
            }
        }
    }

    /// What belongs to no route any more.
    fn leftovers(&mut self, uid: &str, desired: &[Bundle], there: &There<'_>) {
        let mut kept: BTreeSet<Place> = BTreeSet::new();
        let mut wanted: BTreeSet<(Kind, Place)> = BTreeSet::new();
        for bundle in desired {
            wanted.extend(bundle.patch.iter().map(|p| (Kind::Patch, place(p))));
            wanted.extend(bundle.traffic.iter().map(|t| (Kind::Traffic, place(t))));
            wanted.extend(bundle.backends.iter().map(|b| (Kind::Backend, place(b))));
        }
        let routeless = |labels: &BTreeMap<String, String>| {
            let name = labels.get(ROUTE_LABEL).cloned().unwrap_or_default();
            !there.route_names.contains(name.as_str())
        };
        for (at, patch) in &there.patches {
            let ours = is_ours(patch.as_ref(), uid);
            if !ours || wanted.contains(&(Kind::Patch, at.clone())) || !routeless(patch.labels()) {
                continue;
            }
            // While Envoy Gateway still has the route, the policy's end would
            // be the end of its tunnels.
            if verdict::is_programmed(patch) && there.has_gateway(patch) {
                kept.extend(route_of(patch.as_ref()));
                self.wait(format!("EnvoyPatchPolicy {} is still in use", at.name));
            } else {
                self.remove(Kind::Patch, patch.as_ref());
            }
        }
        for (at, backend) in &there.backends {
            let ours = is_ours(backend.as_ref(), uid);
            let used = route_of(backend.as_ref()).is_some_and(|r| kept.contains(&r));
            let unwanted = !wanted.contains(&(Kind::Backend, at.clone()));
            if ours && unwanted && !used && routeless(backend.labels()) {
                self.remove(Kind::Backend, backend.as_ref());
            }
        }
        for (at, traffic) in &there.traffics {
            let unwanted = !wanted.contains(&(Kind::Traffic, at.clone()));
            if is_ours(traffic.as_ref(), uid) && unwanted && routeless(traffic.labels()) {
                self.remove(Kind::Traffic, traffic.as_ref());
            }
        }
    }

    fn write<K>(
        &mut self,
        uid: &str,
        wanted: &K,
        found: Option<&K>,
        object: impl FnOnce(Box<K>) -> Object,
    ) where
        K: Resource<DynamicType = ()> + Clone + serde::Serialize,
    {
        match found {
            Some(found) if !is_ours(found, uid) => {
                self.refused
                    .extend(Kind::of::<K>().map(|k| Reference::to(k, found)));
            }
            Some(found) if covers(found, wanted) => {}
            found => self.apply.push(Apply {
                object: object(Box::new(wanted.clone())),
                create: found.is_none(),
            }),
        }
    }

    fn remove(&mut self, kind: Kind, object: &impl Resource) {
        // What is going already is not asked twice.
        if object.meta().deletion_timestamp.is_none() {
            self.delete.push(Reference::to(kind, object));
        } else {
            self.wait(format!("{kind} {} is going", object.name_any()));
        }
    }

    fn wait(&mut self, why: String) {
        self.waiting.push(why);
    }
}

/// A route that nobody wants any more.
struct Old<'a> {
    route: &'a HttpRoute,
    /// It reaches what it may not.
    forbidden: bool,
}

/// Where an object is.
pub(super) fn place(object: &impl Resource) -> Place {
    Place {
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
    }
}

/// The route that an object was made for.
fn route_of(object: &impl Resource) -> Option<Place> {
    Some(Place {
        namespace: String::new(),
        name: object.labels().get(ROUTE_LABEL)?.clone(),
    })
}

#[cfg(test)]
pub(super) mod tests;
