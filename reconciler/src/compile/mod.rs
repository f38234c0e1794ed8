//! From objects to the [`Model`]: a function without clock or I/O.
//!
//! Each rule becomes routes whatever is wrong with it: a rule that cannot be
//! programmed answers "misconfigured" instead of letting its requests fall
//! through to another rule.

mod backend;
mod connectors;
mod fits;
mod index;
mod route;

use std::{
    collections::{BTreeMap, btree_map::Entry},
    net::SocketAddr,
    path::PathBuf,
    time::Duration,
};

use adit_api::{ConnectorHint, Problem, Reason, ResourceExt as _, networking::HttpProxy};

use crate::{
    Kind, ObjectKey, Snapshot,
    model::{
        Action, Listener, ListenerKind, Model, RequestTarget, Route, RouteMatch, RouteOrigin,
        VirtualHost,
    },
};

pub use index::Permits;

use index::Index;

pub use connectors::selects;

/// What is decided outside the objects.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where Envoy listens.
    pub listen: SocketAddr,
    /// From preface to verdict, at most: the time to reach a connector and,
    /// through it, the service.
    pub deadline: Duration,
    /// Whose Envoy is configured.
    pub output: Output,
    /// Whether a connector's class must exist. In a directory without any
    /// ConnectorClass nobody looks after classes.
    pub classes: Classes,
}

/// Whose Envoy is configured, as far as it decides what can be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Our own, by files.
    Files {
        /// The certificate authorities for `https` backends without a connector.
        ca_file: Option<PathBuf>,
    },
    /// Envoy Gateway's, by its resources.
    EnvoyGateway,
}

/// Whether a connector's class must exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Classes {
    /// Always.
    Required,
    /// Only if the snapshot holds any class.
    IfAny,
}

/// What came out.
#[derive(Debug, Clone, Default)]
pub struct Compiled {
    /// What Envoy shall do.
    pub model: Model,
    /// What is wrong, with its object.
    pub problems: Vec<(ObjectKey, Problem)>,
}

/// Compiles all objects.
pub fn compile(snapshot: &Snapshot, options: &Options) -> Compiled {
    let mut compiler = Compiler {
        snapshot,
        index: Index::of(snapshot, options),
        options,
        model: Model::default(),
        problems: Vec::new(),
        hosts: BTreeMap::new(),
    };
    compiler.advertisements();
    for proxy in &snapshot.proxies {
        compiler.proxy(proxy);
    }
    compiler.finish()
}

struct Compiler<'a> {
    snapshot: &'a Snapshot,
    index: Index<'a>,
    options: &'a Options,
    model: Model,
    problems: Vec<(ObjectKey, Problem)>,
    /// Routes by host name; `None` is "any other".
    hosts: BTreeMap<Option<String>, Claims>,
}

/// The routes of one host name, each for other requests.
#[derive(Default)]
struct Claims {
    /// In order of precedence of their objects and rules.
    routes: Vec<Route>,
    by_match: BTreeMap<RouteMatch, usize>,
    /// The first route that serves CONNECT.
    connect: Option<usize>,
}

impl Claims {
    /// Adds a route, unless another has its requests already: then that one's
    /// origin. Envoy Gateway tells two rules for CONNECT on one name apart by
    /// nothing that can be relied on: the first has all.
    fn add(&mut self, route: &Route, one_tunnel: bool) -> Option<&RouteOrigin> {
        let rule_of = |o: &RouteOrigin| (o.proxy.clone(), o.rule);
        let connects = route.matches.target == RequestTarget::Connect;
        let tunnel = self.connect.filter(|first| {
            let first = &self.routes[*first].origin;
            one_tunnel && connects && rule_of(first) != rule_of(&route.origin)
        });
        let first = self.by_match.get(&route.matches).copied().or(tunnel);
        if let Some(first) = first {
            return Some(&self.routes[first].origin);
        }
        let place = self.routes.len();
        self.by_match.insert(route.matches.clone(), place);
        if connects {
            self.connect.get_or_insert(place);
        }
        self.routes.push(route.clone());
        None
    }
}

impl Compiler<'_> {
    fn advertisements(&mut self) {
        for object in &self.snapshot.advertisements {
            let namespace = object.namespace().unwrap_or_default();
            let name = &object.spec.connector_ref.name;
            if self.index.connector(&namespace, name).is_none() {
                let message = format!("Connector {name:?} not found in namespace {namespace:?}");
                let path = "spec.connectorRef.name";
                let problem = Problem::warning(path, Reason::ConnectorNotFound, message);
                self.problems
                    .push((Kind::ConnectorAdvertisement.key(object), problem));
            }
        }
    }

    fn proxy(&mut self, proxy: &HttpProxy) {
        let key = Kind::HttpProxy.key(proxy);
        let owner = format!("{}/{}", key.namespace, key.name);
        let hostnames: Vec<Option<String>> = match proxy.spec.hostnames.as_slice() {
            [] => vec![None],
            names => names.iter().cloned().map(Some).collect(),
        };
        for (index, rule) in proxy.spec.rules.iter().enumerate() {
            let path = format!("spec.rules[{index}]");
            let mut problems = Vec::new();
            let mut built = self.rule(&key, &owner, &path, rule, &mut problems);
            if let Some(what) = self.refused(|| fits::of_rule(&built.1, &built.2, &built.3)) {
                problems.push(Problem::error(&path, Reason::Unsupported, what));
                built.1 = Action::Misconfigured;
            }
            self.problems
                .extend(problems.into_iter().map(|p| (key.clone(), p)));
            let (tunnel, action, request_headers, response_headers) = built;
            for (matched, matches) in route::matches(rule, tunnel).into_iter().enumerate() {
                if let Some(what) = self.refused(|| fits::of_match(&matches)) {
                    let at = format!("{path}.matches[{matched}]");
                    let problem = Problem::error(at, Reason::Unsupported, what);
                    self.problems.push((key.clone(), problem));
                    continue;
                }
                let route = Route {
                    origin: RouteOrigin {
                        proxy: owner.clone(),
                        rule: index,
                        matched,
                    },
                    matches,
                    action: action.clone(),
                    request_headers: request_headers.clone(),
                    response_headers: response_headers.clone(),
                };
                for hostname in &hostnames {
                    self.claim(
                        &key,
                        hostname.clone(),
                        route.clone(),
                        rule.matches.is_empty(),
                    );
                }
            }
        }
    }

    /// What Gateway API refuses, where it has a say.
    fn refused(&self, check: impl FnOnce() -> Option<String>) -> Option<String> {
        match self.options.output {
            Output::Files { .. } => None,
            Output::EnvoyGateway => check(),
        }
    }

    /// Adds a route, unless another has the same requests already.
    fn claim(&mut self, key: &ObjectKey, hostname: Option<String>, route: Route, whole: bool) {
        let host = hostname.clone().unwrap_or_else(|| "any host".into());
        let claims = self.hosts.entry(hostname).or_default();
        let one_tunnel = self.options.output == Output::EnvoyGateway;
        let Some(first) = claims.add(&route, one_tunnel) else {
            return;
        };
        let RouteOrigin { rule, matched, .. } = route.origin;
        let path = match whole {
            true => format!("spec.rules[{rule}]"),
            false => format!("spec.rules[{rule}].matches[{matched}]"),
        };
        let what = show_match(&route.matches);
        let message = format!(
            "{what} on {host} belongs to rule {} of HTTPProxy {} already; this one has no effect there",
            first.rule, first.proxy
        );
        self.problems
            .push((key.clone(), Problem::error(path, Reason::Conflict, message)));
    }

    fn finish(mut self) -> Compiled {
        let hosts = self.hosts.into_iter().map(|(hostname, claims)| {
            let mut routes = claims.routes;
            // Stable: equal precedence keeps the order of objects and rules.
            routes.sort_by_key(|r| route::precedence(&r.matches));
            VirtualHost { hostname, routes }
        });
        self.model.listeners = vec![Listener {
            name: "adit".into(),
            address: self.options.listen,
            netns: None,
            kind: ListenerKind::Http(hosts.collect()),
        }];
        self.model.connectors = one_hint_each(self.model.connectors);
        Compiled {
            model: self.model,
            problems: self.problems,
        }
    }
}

/// One hint for each key: a connector may serve several rules, and two
/// Connector objects may hold the same key.
fn one_hint_each(hints: Vec<ConnectorHint>) -> Vec<ConnectorHint> {
    let mut each: BTreeMap<_, ConnectorHint> = BTreeMap::new();
    for hint in hints {
        match each.entry(hint.endpoint_id) {
            Entry::Vacant(place) => {
                place.insert(hint);
            }
            Entry::Occupied(place) => {
                let first = place.into_mut();
                first.relay = first.relay.take().or(hint.relay);
                let more = hint.addresses.into_iter();
                let more: Vec<_> = more.filter(|a| !first.addresses.contains(a)).collect();
                first.addresses.extend(more);
            }
        }
    }
    each.into_values().collect()
}

/// A match for a person: `GET /api (prefix)`.
pub(crate) fn show_match(m: &RouteMatch) -> String {
    use adit_api::networking::PathMatchType;
    let mut text = match &m.target {
        RequestTarget::Connect => "CONNECT".to_owned(),
        RequestTarget::Path {
            kind,
            value,
            method,
        } => {
            let method = method.as_ref().map(|m| format!("{m} ")).unwrap_or_default();
            match kind {
                PathMatchType::Exact => format!("{method}path {value}"),
                PathMatchType::PathPrefix if value.is_empty() => format!("{method}path /*"),
                PathMatchType::PathPrefix => format!("{method}path {value}/*"),
                PathMatchType::RegularExpression => format!("{method}path ~ {value}"),
            }
        }
    };
    let conditions = m.headers.iter().map(|c| ("header", c));
    for (what, c) in conditions.chain(m.query.iter().map(|c| ("query", c))) {
        let sign = match c.kind {
            adit_api::networking::MatchType::Exact => "=",
            adit_api::networking::MatchType::RegularExpression => "~",
        };
        text.push_str(&format!(", {what} {}{sign}{}", c.name, c.value));
    }
    text
}

/// What a rule does, and whether it serves CONNECT.
type Built = (
    bool,
    Action,
    crate::model::HeaderChanges,
    crate::model::HeaderChanges,
);

#[cfg(test)]
mod tests;
