//! HTTPRoutes: a rule of the model in Gateway API's form.

mod filters;

use adit_api::{
    envoy_gateway::{
        BackendTrafficPolicy, BackendTrafficPolicySpec, ConnectUpgrade, GROUP, TargetRef, Targets,
        Upgrade,
    },
    networking::{MatchType, PathMatchType},
};
use gateway_api::httproutes::{
    HttpRoute, HttpRouteParentRefs, HttpRouteRules, HttpRouteRulesBackendRefs,
    HttpRouteRulesMatches, HttpRouteRulesMatchesHeaders, HttpRouteRulesMatchesHeadersType,
    HttpRouteRulesMatchesMethod, HttpRouteRulesMatchesPath, HttpRouteRulesMatchesPathType,
    HttpRouteRulesMatchesQueryParams, HttpRouteRulesMatchesQueryParamsType, HttpRouteRulesTimeouts,
    HttpRouteSpec,
};
use serde_json::{Map, Value, json};

use super::{
    GATEWAY_API, Part, Place, Setting, name,
    owned::{Owner, seal},
};
use crate::model::{Action, Cluster, Model, RequestTarget, RouteMatch, Transport, WeightedCluster};
use filters::{header_filters, path_change, typed};

/// No limit on time, and with it none on silence: an upload, an event stream
/// or a tunnel may be long. Envoy's own default is 15 s.
const FOREVER: &str = "0s";
/// Header names that only Envoy and the dialer say. A filter on a backend also
/// gives the backend a cluster of its own; the module removes whole families.
const RESERVED: [&str; 7] = [
    "datum-node-id",
    "datum-target-host",
    "datum-target-port",
    "datum-target-proto",
    "x-datum-target-host",
    "x-datum-target-port",
    "x-iroh-endpoint-id",
];
/// What becomes of a rule's requests.
pub(super) struct Forward<'a> {
    /// None for a redirect, and for a rule that cannot be programmed.
    pub(super) backends: Vec<Share<'a>>,
    /// For the whole rule.
    filters: Vec<Value>,
    redirects: bool,
}

/// A cluster's share.
pub(super) struct Share<'a> {
    pub(super) cluster: &'a Cluster,
    entry: &'a WeightedCluster,
}

impl<'a> Forward<'a> {
    pub(super) fn of(part: &Part<'a>, model: &'a Model) -> Self {
        let nothing = Self {
            backends: Vec::new(),
            filters: Vec::new(),
            redirects: false,
        };
        let Some(route) = part.routes.first() else {
            return nothing;
        };
        let mut filters = header_filters(&route.request_headers, &route.response_headers, &[]);
        match &route.action {
            // Without backends Envoy Gateway answers 500.
            Action::Misconfigured => nothing,
            Action::Redirect(redirect) => {
                let mut fields = Map::new();
                let mut set = |key: &str, value: Value| fields.insert(key.to_owned(), value);
                set("statusCode", redirect.status.into());
                redirect
                    .scheme
                    .iter()
                    .for_each(|s| drop(set("scheme", s.as_str().into())));
                redirect
                    .hostname
                    .iter()
                    .for_each(|h| drop(set("hostname", h.as_str().into())));
                redirect
                    .port
                    .iter()
                    .for_each(|p| drop(set("port", (*p).into())));
                redirect
                    .path
                    .iter()
                    .for_each(|p| drop(set("path", path_change(p))));
                filters.push(json!({"type": "RequestRedirect", "requestRedirect": fields}));
                Self {
                    filters,
                    redirects: true,
                    ..nothing
                }
            }
            Action::Forward { backends, rewrite } => {
                let mut fields = Map::new();
                let mut set = |key: &str, value: Value| fields.insert(key.to_owned(), value);
                rewrite
                    .hostname
                    .iter()
                    .for_each(|h| drop(set("hostname", h.as_str().into())));
                rewrite
                    .path
                    .iter()
                    .for_each(|p| drop(set("path", path_change(p))));
                if !fields.is_empty() {
                    filters.push(json!({"type": "URLRewrite", "urlRewrite": fields}));
                }
                let share = |entry: &'a WeightedCluster| {
                    let cluster = model.clusters.get(&entry.cluster)?;
                    Some(Share { cluster, entry })
                };
                Self {
                    backends: backends.iter().filter_map(share).collect(),
                    filters,
                    redirects: false,
                }
            }
        }
    }

    /// Whether any backend is behind a connector.
    pub(super) fn tunnels(&self) -> bool {
        let adit = |b: &Share<'_>| matches!(b.cluster.transport, Transport::Adit(_));
        self.backends.iter().any(adit)
    }

    /// What kind of route it is, for its name.
    pub(super) fn kind(&self) -> &'static str {
        match (self.redirects, self.backends.is_empty()) {
            (true, _) => "redirect",
            (false, true) => "misconfigured",
            (false, false) => "forward",
        }
    }
}

/// Whether a rule serves CONNECT.
pub(super) fn is_connect(part: &Part<'_>) -> bool {
    let connect = |m: &RouteMatch| m.target == RequestTarget::Connect;
    part.routes.iter().any(|r| connect(&r.matches))
}

pub(super) fn route(
    owner: &Owner<'_>,
    name: &str,
    part: &Part<'_>,
    forward: &Forward<'_>,
    setting: &Setting,
) -> HttpRoute {
    let refs = (0..)
        .zip(&forward.backends)
        .map(|(k, share)| backend_ref(name::backend(name, k), share.entry));
    // What Gateway API cannot hold is refused by the validation of the
    // HTTPProxy. Without its filters a rule serves nothing.
    let filters = typed(forward.filters.clone());
    let refs: Option<Vec<_>> = refs.collect();
    let (filters, refs) = match (filters, refs) {
        (Some(filters), Some(refs)) => (filters, refs),
        _ => (Vec::new(), Vec::new()),
    };
    let forwards = !forward.backends.is_empty();
    let rule = HttpRouteRules {
        backend_refs: forwards.then_some(refs),
        filters: (!filters.is_empty()).then_some(filters),
        matches: Some(matches(part)),
        name: None,
        timeouts: (forwards && !setting.users.request_timeout).then(|| HttpRouteRulesTimeouts {
            request: Some(FOREVER.into()),
            backend_request: None,
        }),
    };
    let place = Place {
        namespace: owner.namespace(),
        name: name.to_owned(),
    };
    seal(HttpRoute {
        metadata: owner.metadata(place),
        spec: HttpRouteSpec {
            hostnames: (!part.hostnames.is_empty()).then(|| part.hostnames.clone()),
            parent_refs: Some(vec![HttpRouteParentRefs {
                group: Some(GATEWAY_API.into()),
                kind: Some("Gateway".into()),
                name: setting.gateway.name.clone(),
                namespace: Some(setting.gateway.namespace.clone()),
                port: None,
                section_name: None,
            }]),
            rules: Some(vec![rule]),
        },
        status: None,
    })
}

/// CONNECT is opened for this route alone: on a Gateway it would turn every
/// route into one for CONNECT.
pub(super) fn traffic(owner: &Owner<'_>, route: &str) -> BackendTrafficPolicy {
    let place = Place {
        namespace: owner.namespace(),
        name: route.to_owned(),
    };
    seal(BackendTrafficPolicy {
        metadata: owner.metadata(place),
        spec: BackendTrafficPolicySpec {
            targets: Targets {
                target_refs: vec![TargetRef {
                    group: GATEWAY_API.into(),
                    kind: "HTTPRoute".into(),
                    name: route.to_owned(),
                    section_name: None,
                }],
                ..Targets::default()
            },
            merge_type: Some("StrategicMerge".into()),
            http_upgrade: vec![Upgrade {
                type_: "CONNECT".into(),
                connect: Some(ConnectUpgrade {
                    terminate: Some(true),
                }),
            }],
            rest: Default::default(),
        },
        status: None,
    })
}

fn backend_ref(name: String, entry: &WeightedCluster) -> Option<HttpRouteRulesBackendRefs> {
    let filters = header_filters(&entry.request_headers, &entry.response_headers, &RESERVED);
    Some(HttpRouteRulesBackendRefs {
        filters: Some(typed(filters)?),
        group: Some(GROUP.into()),
        kind: Some("Backend".into()),
        name,
        namespace: None,
        port: None,
        weight: i32::try_from(entry.weight).ok(),
    })
}

/// The matches of a part, in the rule's order.
pub(super) fn matches(part: &Part<'_>) -> Vec<HttpRouteRulesMatches> {
    part.routes.iter().map(|r| one_match(&r.matches)).collect()
}

fn one_match(m: &RouteMatch) -> HttpRouteRulesMatches {
    let (path, method) = match &m.target {
        // The method keeps other requests away should the policy that makes
        // this a route for CONNECT be missing.
        RequestTarget::Connect => (
            path(PathMatchType::PathPrefix, ""),
            Some(HttpRouteRulesMatchesMethod::Connect),
        ),
        RequestTarget::Path {
            kind,
            value,
            method,
        } => (path(*kind, value), method.as_deref().and_then(typed)),
    };
    let headers = m.headers.iter().map(|c| HttpRouteRulesMatchesHeaders {
        name: c.name.clone(),
        r#type: Some(match c.kind {
            MatchType::Exact => HttpRouteRulesMatchesHeadersType::Exact,
            MatchType::RegularExpression => HttpRouteRulesMatchesHeadersType::RegularExpression,
        }),
        value: c.value.clone(),
    });
    let query = m.query.iter().map(|c| HttpRouteRulesMatchesQueryParams {
        name: c.name.clone(),
        r#type: Some(match c.kind {
            MatchType::Exact => HttpRouteRulesMatchesQueryParamsType::Exact,
            MatchType::RegularExpression => HttpRouteRulesMatchesQueryParamsType::RegularExpression,
        }),
        value: c.value.clone(),
    });
    HttpRouteRulesMatches {
        headers: (!m.headers.is_empty()).then(|| headers.collect()),
        method,
        path: Some(path),
        query_params: (!m.query.is_empty()).then(|| query.collect()),
    }
}

fn path(kind: PathMatchType, value: &str) -> HttpRouteRulesMatchesPath {
    let (kind, value) = match kind {
        PathMatchType::Exact => (HttpRouteRulesMatchesPathType::Exact, value),
        PathMatchType::PathPrefix if value.is_empty() => {
            (HttpRouteRulesMatchesPathType::PathPrefix, "/")
        }
        PathMatchType::PathPrefix => (HttpRouteRulesMatchesPathType::PathPrefix, value),
        PathMatchType::RegularExpression => {
            (HttpRouteRulesMatchesPathType::RegularExpression, value)
        }
    };
    HttpRouteRulesMatchesPath {
        r#type: Some(kind),
        value: Some(value.to_owned()),
    }
}
