//! The objects of a plan.

use std::fmt;

use adit_api::{
    Resource, ResourceExt as _,
    envoy_gateway::{Backend, BackendTrafficPolicy, EnvoyPatchPolicy},
};
use gateway_api::httproutes::{
    HttpRoute, HttpRouteRulesMatches, HttpRouteRulesMatchesHeaders,
    HttpRouteRulesMatchesHeadersType,
};
use serde::Serialize;
use serde_json::Value;

use super::super::{HASH_ANNOTATION, Place, content_hash};

/// On a route that takes no requests any more.
const RETIRED_ANNOTATION: &str = "networking.datumapis.com/retired";
/// The header that no request has.
const RETIRED_HEADER: &str = "x-adit-retired";
/// Gateway API's limit.
const MAX_HEADERS: usize = 16;

/// One of the kinds.
#[derive(Debug, Clone, PartialEq)]
pub enum Object {
    /// HTTPRoute
    Route(Box<HttpRoute>),
    /// Backend
    Backend(Box<Backend>),
    /// BackendTrafficPolicy
    Traffic(Box<BackendTrafficPolicy>),
    /// EnvoyPatchPolicy
    Patch(Box<EnvoyPatchPolicy>),
}

/// Which of the kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// HTTPRoute
    Route,
    /// Backend
    Backend,
    /// BackendTrafficPolicy
    Traffic,
    /// EnvoyPatchPolicy
    Patch,
}

/// An object that is there, exactly this one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    /// Its kind.
    pub kind: Kind,
    /// Where it is.
    pub place: Place,
    /// Its UID: a new object of its name is another one.
    pub uid: Option<String>,
}

impl Object {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Route(_) => Kind::Route,
            Self::Backend(_) => Kind::Backend,
            Self::Traffic(_) => Kind::Traffic,
            Self::Patch(_) => Kind::Patch,
        }
    }

    /// Where it is.
    pub fn place(&self) -> Place {
        match self {
            Self::Route(o) => super::place(o.as_ref()),
            Self::Backend(o) => super::place(o.as_ref()),
            Self::Traffic(o) => super::place(o.as_ref()),
            Self::Patch(o) => super::place(o.as_ref()),
        }
    }
}

impl Kind {
    /// As `kind:` writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Route => "HTTPRoute",
            Self::Backend => "Backend",
            Self::Traffic => "BackendTrafficPolicy",
            Self::Patch => "EnvoyPatchPolicy",
        }
    }

    pub(super) fn of<K: Resource<DynamicType = ()>>() -> Option<Self> {
        let name = K::kind(&());
        [Self::Route, Self::Backend, Self::Traffic, Self::Patch]
            .into_iter()
            .find(|k| k.as_str() == name)
    }
}

impl Reference {
    pub(super) fn to(kind: Kind, object: &impl Resource) -> Self {
        Self {
            kind,
            place: super::place(object),
            uid: object.uid(),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether an object is as we would write it: the same hash, and all that we
/// write still there. (An API server adds defaults, others add fields.)
pub(in crate::emit::gateway) fn covers<K: Resource + Serialize>(found: &K, wanted: &K) -> bool {
    let hash = |o: &K| o.annotations().get(HASH_ANNOTATION).cloned();
    if hash(found) != hash(wanted) {
        return false;
    }
    let json = |o: &K| serde_json::to_value(o).unwrap_or_default();
    includes(&json(found), &json(wanted))
}

fn includes(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (Value::Object(found), Value::Object(wanted)) => wanted
            .iter()
            .all(|(key, w)| found.get(key).is_some_and(|f| includes(f, w))),
        (Value::Array(found), Value::Array(wanted)) => {
            found.len() == wanted.len() && found.iter().zip(wanted).all(|(f, w)| includes(f, w))
        }
        // 1 and 1.0 are one number to an API server.
        (Value::Number(found), Value::Number(wanted)) => found.as_f64() == wanted.as_f64(),
        _ => found == wanted,
    }
}

/// Whether a route takes no requests any more.
pub(in super::super) fn is_retired(route: &HttpRoute) -> bool {
    route.annotations().contains_key(RETIRED_ANNOTATION)
}

/// A route that is there, with a condition on each match that no request
/// meets: its clusters stay, its requests go to the next route.
pub(super) fn retired(route: &HttpRoute) -> HttpRoute {
    let never = || HttpRouteRulesMatchesHeaders {
        name: RETIRED_HEADER.to_owned(),
        r#type: Some(HttpRouteRulesMatchesHeadersType::Exact),
        value: route.name_any(),
    };
    let mut retired = HttpRoute {
        metadata: adit_api::ObjectMeta {
            name: route.metadata.name.clone(),
            namespace: route.metadata.namespace.clone(),
            labels: route.metadata.labels.clone(),
            owner_references: route.metadata.owner_references.clone(),
            ..Default::default()
        },
        spec: route.spec.clone(),
        status: None,
    };
    for rule in retired.spec.rules.iter_mut().flatten() {
        let matches = rule.matches.get_or_insert_default();
        if matches.is_empty() {
            matches.push(HttpRouteRulesMatches::default());
        }
        for m in matches {
            let headers = m.headers.get_or_insert_default();
            headers.truncate(MAX_HEADERS - 1);
            headers.push(never());
        }
    }
    let annotations = retired.annotations_mut();
    annotations.insert(RETIRED_ANNOTATION.to_owned(), "true".to_owned());
    let hash = content_hash(&retired);
    retired
        .annotations_mut()
        .insert(HASH_ANNOTATION.to_owned(), hash);
    retired
}
