//! A Kubernetes API and an Envoy Gateway, as far as a rollout meets them.
//!
//! The Envoy Gateway sees each kind of object with a delay of its own, and
//! translates what it sees; its statuses come back after that.

use std::collections::{BTreeMap, BTreeSet};

use adit_api::{Time, envoy_gateway::BackendStatus};
use gateway_api::httproutes::{
    HttpRouteRulesMatches, HttpRouteRulesMatchesMethod, HttpRouteRulesMatchesPathType,
};
use k8s_openapi::jiff::Timestamp;

use super::{
    super::{super::patched_targets, *},
    statuses::{condition, patch_status, route_status},
};

/// A request, as far as these routes look at it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Request {
    pub(super) host: &'static str,
    pub(super) path: &'static str,
    pub(super) connect: bool,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Outcome {
    /// 404
    NoRoute,
    /// 500 or 503
    Failed,
    /// It reached these services, by weight.
    Reached(String),
}

/// Objects of all kinds.
#[derive(Debug, Clone, Default)]
struct Objects {
    routes: BTreeMap<Place, Arc<HttpRoute>>,
    backends: BTreeMap<Place, Arc<Backend>>,
    traffics: BTreeMap<Place, Arc<BackendTrafficPolicy>>,
    patches: BTreeMap<Place, Arc<EnvoyPatchPolicy>>,
}

/// All of it.
#[derive(Debug, Default)]
pub(super) struct World {
    there: Objects,
    /// What Envoy Gateway sees.
    seen: Objects,
    /// What Envoy does.
    serving: Objects,
    /// Routes that Envoy Gateway refuses.
    pub(super) refuses: BTreeSet<String>,
    clock: i64,
}

impl World {
    pub(super) fn observed(&self) -> Observed {
        let gateways = self.there.patches.iter().map(|(at, p)| Place {
            namespace: at.namespace.clone(),
            name: p.spec.target_ref.name.clone(),
        });
        Observed {
            routes: self.there.routes.values().cloned().collect(),
            backends: self.there.backends.values().cloned().collect(),
            traffics: self.there.traffics.values().cloned().collect(),
            patches: self.there.patches.values().cloned().collect(),
            gateways: gateways.collect(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        let o = &self.there;
        o.routes.is_empty()
            && o.backends.is_empty()
            && o.traffics.is_empty()
            && o.patches.is_empty()
    }

    pub(super) fn apply(&mut self, apply: &Apply) {
        self.clock += 1;
        let now = self.clock;
        match &apply.object {
            Object::Route(o) => store(
                &mut self.there.routes,
                o,
                now,
                |a, b| a.spec == b.spec,
                |old, new| {
                    new.status = old.status.clone();
                },
            ),
            Object::Backend(o) => store(
                &mut self.there.backends,
                o,
                now,
                |a, b| a.spec == b.spec,
                |old, new| {
                    new.status = old.status.clone();
                },
            ),
            Object::Traffic(o) => store(
                &mut self.there.traffics,
                o,
                now,
                |a, b| a.spec == b.spec,
                |old, new| {
                    new.status = old.status.clone();
                },
            ),
            Object::Patch(o) => store(
                &mut self.there.patches,
                o,
                now,
                |a, b| a.spec == b.spec,
                |old, new| {
                    new.status = old.status.clone();
                },
            ),
        }
    }

    pub(super) fn delete(&mut self, reference: &Reference) {
        self.clock += 1;
        let at = &reference.place;
        let gone = match reference.kind {
            Kind::Route => self.there.routes.remove(at).is_some(),
            Kind::Backend => self.there.backends.remove(at).is_some(),
            Kind::Traffic => self.there.traffics.remove(at).is_some(),
            Kind::Patch => self.there.patches.remove(at).is_some(),
        };
        assert!(gone, "{reference:?} is not there");
    }

    /// News of one kind reach Envoy Gateway.
    pub(super) fn news(&mut self, kind: Kind) {
        match kind {
            Kind::Route => self.seen.routes = self.there.routes.clone(),
            Kind::Backend => self.seen.backends = self.there.backends.clone(),
            Kind::Traffic => self.seen.traffics = self.there.traffics.clone(),
            Kind::Patch => self.seen.patches = self.there.patches.clone(),
        }
    }

    /// Envoy Gateway translates what it sees, and says so.
    pub(super) fn translate(&mut self) {
        self.serving = self.seen.clone();
        let seen = self.seen.clone();
        for (at, route) in &seen.routes {
            let refused = self.refuses.contains(&at.name);
            let resolved =
                references(route).all(|b| seen.backends.contains_key(&backend_place(at, b)));
            let status = route_status(route, !refused, resolved);
            update(&mut self.there.routes, at, route, |r| {
                r.status = Some(status)
            });
        }
        for (at, patch) in &seen.patches {
            let clusters: BTreeSet<_> = patch
                .spec
                .json_patches
                .iter()
                .map(|p| p.name.as_str())
                .collect();
            let found = clusters
                .iter()
                .all(|c| has_cluster(&seen, &self.refuses, c));
            let status = patch_status(patch, found);
            update(&mut self.there.patches, at, patch, |p| {
                p.status = Some(status)
            });
        }
        // It says nothing of a Backend that no route names.
        let named: BTreeSet<_> = seen
            .routes
            .iter()
            .flat_map(|(at, route)| references(route).map(move |b| backend_place(at, b)))
            .collect();
        for (at, backend) in seen.backends.iter().filter(|(at, _)| named.contains(at)) {
            let status = BackendStatus {
                conditions: vec![condition(
                    "Accepted",
                    true,
                    "Accepted",
                    backend.metadata.generation,
                )],
            };
            update(&mut self.there.backends, at, backend, |b| {
                b.status = Some(status)
            });
        }
    }

    /// Everything reaches everybody.
    pub(super) fn settle(&mut self) {
        for kind in [Kind::Route, Kind::Backend, Kind::Traffic, Kind::Patch] {
            self.news(kind);
        }
        self.translate();
    }

    /// What becomes of a request now.
    pub(super) fn send(&self, request: &Request) -> Outcome {
        let mut best: Option<((Specificity, i64, &Place), &HttpRoute)> = None;
        for (at, route) in &self.serving.routes {
            let names = route.spec.hostnames.iter().flatten();
            if self.refuses.contains(&at.name) || !names.into_iter().any(|n| n == request.host) {
                continue;
            }
            let created = route
                .metadata
                .creation_timestamp
                .as_ref()
                .expect("stored")
                .0
                .as_second();
            for m in route
                .spec
                .rules
                .iter()
                .flatten()
                .flat_map(|r| r.matches.iter().flatten())
            {
                let key = (overlap::one(m), created, at);
                let better = best.as_ref().is_none_or(|(k, _)| key < *k);
                if better && self.takes(at, m, request) {
                    best = Some((key, route));
                }
            }
        }
        match best {
            None => Outcome::NoRoute,
            Some(((_, _, at), route)) => self.forward(at, route),
        }
    }

    fn takes(&self, at: &Place, m: &HttpRouteRulesMatches, request: &Request) -> bool {
        let connect = m.method == Some(HttpRouteRulesMatchesMethod::Connect);
        if connect != request.connect || m.headers.as_ref().is_some_and(|h| !h.is_empty()) {
            return false;
        }
        if connect {
            return self.serving.traffics.contains_key(at);
        }
        let path = m.path.as_ref().expect("always given");
        let value = path.value.as_deref().expect("always given");
        match path.r#type {
            Some(HttpRouteRulesMatchesPathType::Exact) => request.path == value,
            _ => overlap::below(request.path, value.trim_end_matches('/')),
        }
    }

    fn forward(&self, at: &Place, route: &HttpRoute) -> Outcome {
        let mut reached = BTreeSet::new();
        for (k, name) in references(route).enumerate() {
            let Some(backend) = self.serving.backends.get(&backend_place(at, name)) else {
                return Outcome::Failed;
            };
            let endpoint = &backend.spec.endpoints[0];
            if let Some(name) = &endpoint.fqdn {
                reached.insert(name.hostname.clone());
                continue;
            }
            let cluster = format!("httproute/{}/{}/rule/0/backend/{k}", at.namespace, at.name);
            let patch = self
                .serving
                .patches
                .values()
                .find(|p| p.spec.json_patches.iter().any(|p| p.name == cluster));
            let Some(target) = patch.and_then(|p| patched_targets(p)?.into_iter().next()) else {
                return Outcome::Failed;
            };
            reached.insert(target.service.to_string());
        }
        match reached.is_empty() {
            true => Outcome::Failed,
            false => Outcome::Reached(reached.into_iter().collect::<Vec<_>>().join("+")),
        }
    }
}

fn references(route: &HttpRoute) -> impl Iterator<Item = &str> {
    let rules = route.spec.rules.iter().flatten();
    rules.flat_map(|r| r.backend_refs.iter().flatten().map(|b| b.name.as_str()))
}

fn backend_place(route: &Place, name: &str) -> Place {
    Place {
        namespace: route.namespace.clone(),
        name: name.to_owned(),
    }
}

fn has_cluster(seen: &Objects, refused: &BTreeSet<String>, cluster: &str) -> bool {
    let parts: Vec<_> = cluster.split('/').collect();
    let at = Place {
        namespace: parts[1].to_owned(),
        name: parts[2].to_owned(),
    };
    seen.routes.contains_key(&at) && !refused.contains(&at.name)
}

/// Server-side apply by one manager, and what the API server adds to it.
/// Creation times have whole seconds: several objects share one.
fn store<K: Resource + Clone + PartialEq>(
    there: &mut BTreeMap<Place, Arc<K>>,
    wanted: &K,
    now: i64,
    same: impl Fn(&K, &K) -> bool,
    keep: impl Fn(&K, &mut K),
) {
    let mut new = wanted.clone();
    let at = place(wanted);
    let old = there.get(&at);
    let meta = new.meta_mut();
    meta.generation = Some(match old {
        Some(old) => old.meta().generation.unwrap_or(0) + i64::from(!same(old, wanted)),
        None => 1,
    });
    meta.creation_timestamp = match old {
        Some(old) => old.meta().creation_timestamp.clone(),
        None => Some(Time(Timestamp::from_second(now / 4).expect("a time"))),
    };
    meta.uid = match old {
        Some(old) => old.meta().uid.clone(),
        None => Some(now.to_string()),
    };
    if let Some(old) = old {
        keep(old, &mut new);
    }
    there.insert(at, Arc::new(new));
}

fn update<K: Resource + Clone>(
    there: &mut BTreeMap<Place, Arc<K>>,
    at: &Place,
    seen: &K,
    change: impl FnOnce(&mut K),
) {
    if let Some(object) = there.get_mut(at)
        && object.meta().uid == seen.meta().uid
    {
        change(Arc::make_mut(object));
    }
}
