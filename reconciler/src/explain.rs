//! Which route a request would take, and why.

use adit_api::networking::{MatchType, PathMatchType};

use crate::{
    compile::show_match,
    model::{
        Action, Cluster, Condition, ListenerKind, Model, RequestTarget, Route, RouteMatch,
        VirtualHost,
    },
};

/// A request, as far as routes look at it.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// `GET`; `CONNECT` asks for a tunnel.
    pub method: String,
    /// The host name, without port.
    pub host: String,
    /// The path, without query.
    pub path: String,
    /// Query parameters.
    pub query: Vec<(String, String)>,
    /// Headers.
    pub headers: Vec<(String, String)>,
}

/// What would happen.
#[derive(Debug, Clone)]
pub struct Explanation<'a> {
    /// The virtual host; `None`: no route knows the host name, the answer is 404.
    pub host: Option<&'a VirtualHost>,
    /// The route; `None`: nothing matches, the answer is 404.
    pub route: Option<&'a Route>,
    /// The route's clusters with their weights.
    pub clusters: Vec<(u32, &'a Cluster)>,
    /// The routes of the host that were passed over.
    pub passed: Vec<String>,
}

/// Explains a request.
pub fn explain<'a>(model: &'a Model, request: &Request) -> Explanation<'a> {
    let mut explanation = Explanation {
        host: None,
        route: None,
        clusters: vec![],
        passed: vec![],
    };
    let Some(listener) = model.listeners.first() else {
        return explanation;
    };
    let ListenerKind::Http(hosts) = &listener.kind;
    let host = request.host.to_ascii_lowercase();
    let named = hosts
        .iter()
        .find(|h| h.hostname.as_deref() == Some(host.as_str()));
    explanation.host = named.or_else(|| hosts.iter().find(|h| h.hostname.is_none()));
    for route in explanation.host.iter().flat_map(|h| &h.routes) {
        if matches(&route.matches, request) {
            explanation.route = Some(route);
            break;
        }
        explanation.passed.push(show_match(&route.matches));
    }
    if let Some(Action::Forward { backends, .. }) = explanation.route.map(|r| &r.action) {
        let found = backends
            .iter()
            .filter_map(|b| Some((b.weight, model.clusters.get(&b.cluster)?)));
        explanation.clusters = found.collect();
    }
    explanation
}

/// A route's match for a person.
pub fn show(route: &Route) -> String {
    show_match(&route.matches)
}

fn matches(m: &RouteMatch, request: &Request) -> bool {
    let target = match &m.target {
        RequestTarget::Connect => request.method == "CONNECT",
        RequestTarget::Path {
            kind,
            value,
            method,
        } => {
            let path = &request.path;
            request.method != "CONNECT"
                && method.as_ref().is_none_or(|m| *m == request.method)
                && match kind {
                    PathMatchType::Exact => path == value,
                    PathMatchType::PathPrefix => path
                        .strip_prefix(value.as_str())
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
                    PathMatchType::RegularExpression => whole(value, path),
                }
        }
    };
    target
        && m.headers
            .iter()
            .all(|c| holds(c, &request.headers, |a, b| a.eq_ignore_ascii_case(b)))
        && m.query
            .iter()
            .all(|c| holds(c, &request.query, |a, b| a == b))
}

fn holds(condition: &Condition, pairs: &[(String, String)], same: fn(&str, &str) -> bool) -> bool {
    let found = pairs.iter().find(|(name, _)| same(name, &condition.name));
    found.is_some_and(|(_, value)| match condition.kind {
        MatchType::Exact => *value == condition.value,
        MatchType::RegularExpression => whole(&condition.value, value),
    })
}

/// Whether an expression matches the whole of a text, as Envoy has it.
fn whole(expression: &str, text: &str) -> bool {
    regex_lite::Regex::new(&format!("^(?:{expression})$")).is_ok_and(|e| e.is_match(text))
}
