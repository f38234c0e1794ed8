//! A status that contradicts what is there is asked for again.
//!
//! Envoy Gateway 1.9.1 leaves a status out that equals the one in its cache of
//! the API (internal/provider/kubernetes/status_updater.go). The cache is a
//! little behind: a status that goes from true to false and back within
//! milliseconds stays false, and as nothing changes any more, it does so for
//! ever. It says of which generation of the object it speaks; so one more
//! generation makes it another status, and that is written.

use std::time::Duration;

use adit_api::envoy_gateway::EnvoyPatchPolicy;
use gateway_api::httproutes::HttpRoute;
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};

use super::{
    Apply, Observed,
    object::{self, Object, covers},
    place,
    there::There,
};
use crate::emit::gateway::{Bundle, is_ours, verdict};

/// A status this old is not on its way any more: Envoy Gateway took 2 s for a
/// translation of 1,000 routes.
const FIRST: Duration = Duration::from_secs(15);
/// Each further time is so many times later: what stays so may be the truth.
const LATER: u32 = 4;
/// Then it is always the same while: about four hours.
const TIMES: u32 = 5;
/// Gateway API's limit of a rule's matches.
const MAX_MATCHES: usize = 64;

/// What is asked again.
#[derive(Debug, Clone, Default)]
pub struct Stale {
    /// Objects in a form that differs from what is wanted and does the same;
    /// the next plan puts them right.
    pub apply: Vec<Apply>,
    /// When there will be more to ask, if nothing changes until then.
    pub next: Option<Duration>,
}

/// The statuses of the bundles' objects that say of something that it is
/// missing, though it is there.
pub fn stale(uid: &str, desired: &[Bundle], observed: &Observed, now: Timestamp) -> Stale {
    let there = There::of(observed);
    let mut stale = Stale::default();
    for bundle in desired {
        let backends = (bundle.backends.iter()).all(|b| there.backends.contains_key(&place(b)));
        let Some(route) = there.routes.get(&place(&bundle.route)) else {
            continue;
        };
        if !backends || !is_ours(route.as_ref(), uid) {
            continue;
        }
        if let Some(condition) = verdict::unresolved(route) {
            let due = due(condition, route.metadata.generation, now);
            stale.ask(due, || another_route(&bundle.route, route));
        }
        // It waits for the route's clusters.
        let patch = bundle.patch.as_ref().filter(|_| verdict::resolved(route));
        let found = patch.and_then(|patch| there.patches.get(&place(patch)));
        if let (Some(patch), Some(found)) = (patch, found)
            && is_ours(found.as_ref(), uid)
            && covers(found.as_ref(), patch)
            && let Some(condition) = verdict::unfound(found)
        {
            let due = due(condition, found.metadata.generation, now);
            stale.ask(due, || Some(another_policy(patch)));
        }
    }
    stale
}

impl Stale {
    fn ask(&mut self, due: Duration, object: impl FnOnce() -> Option<Object>) {
        let mut due = due;
        if due.is_zero() {
            self.apply.extend(object().map(|object| Apply {
                object,
                create: false,
            }));
            due = FIRST * LATER;
        }
        self.next = Some(self.next.map_or(due, |next| next.min(due)));
    }
}

/// How long it is until a status is asked for again: from its last change, the
/// longer the more often the object was changed since it was made.
fn due(condition: &Condition, generation: Option<i64>, now: Timestamp) -> Duration {
    // Asking takes two generations, there and back.
    let asked = generation.unwrap_or(1).saturating_sub(1).max(0) / 2;
    let times = u32::try_from(asked).unwrap_or(TIMES).min(TIMES);
    let since = now.duration_since(condition.last_transition_time.0);
    let since = Duration::try_from(since).unwrap_or_default();
    (FIRST * LATER.pow(times)).saturating_sub(since)
}

/// The route with a match more that no request meets; or, if it is there
/// already (in a route that is being brought in), without it.
fn another_route(wanted: &HttpRoute, found: &HttpRoute) -> Option<Object> {
    let retired = object::retired(wanted);
    let live = covers(found, wanted);
    if !live && !object::is_retired(found) {
        return None;
    }
    let mut other = if live {
        wanted.clone()
    } else {
        retired.clone()
    };
    let matches = |route: &HttpRoute| route.spec.rules.as_ref()?.first()?.matches.clone();
    let never = matches(&retired)?.into_iter().next()?;
    let known = matches(&other)?.len();
    let of_other = (other.spec.rules.as_mut()?.first_mut()?).matches.as_mut()?;
    if known >= MAX_MATCHES {
        return None;
    }
    if matches(found)?.len() == known {
        of_other.push(never);
    }
    Some(Object::Route(Box::new(other)))
}

/// The policy with another priority: no other policy patches its clusters, so
/// their order means nothing.
fn another_policy(wanted: &EnvoyPatchPolicy) -> Object {
    let mut other = wanted.clone();
    other.spec.priority += 1;
    Object::Patch(Box::new(other))
}
