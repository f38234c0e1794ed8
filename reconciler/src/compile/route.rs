//! Matches and filters of a rule, in Envoy's terms.

use std::cmp::Reverse;

use adit_api::networking::{
    Filter, FilterType, Header, HeaderModifier, HttpMatch, MatchType, PathMatchType, PathModifier,
    RequestRedirect, Rule,
};

use crate::model::{
    Condition, HeaderChanges, PathChange, Redirect, RequestTarget, Rewrite, RouteMatch,
};

/// The matches of a rule; one that matches everything when it has none.
pub(super) fn matches(rule: &Rule, tunnel: bool) -> Vec<RouteMatch> {
    let all = [HttpMatch::default()];
    let matches = if rule.matches.is_empty() {
        &all[..]
    } else {
        &rule.matches
    };
    matches.iter().map(|m| one(m, tunnel)).collect()
}

fn one(m: &HttpMatch, tunnel: bool) -> RouteMatch {
    let (kind, value) = match &m.path {
        None => (PathMatchType::PathPrefix, String::new()),
        Some(path) if path.type_ == PathMatchType::PathPrefix => {
            (path.type_, path.value.trim_end_matches('/').to_owned())
        }
        Some(path) => (path.type_, path.value.clone()),
    };
    let target = match tunnel {
        true => RequestTarget::Connect,
        false => RequestTarget::Path {
            kind,
            value,
            method: m.method.clone(),
        },
    };
    // Two conditions on one header: Gateway API takes the first.
    let headers = m
        .headers
        .iter()
        .map(|h| condition(h.type_, h.name.to_ascii_lowercase(), &h.value));
    let query = m
        .query_params
        .iter()
        .map(|q| condition(q.type_, q.name.clone(), &q.value));
    RouteMatch {
        target,
        headers: first_of_each(headers),
        query: first_of_each(query),
    }
}

fn condition(kind: MatchType, name: String, value: &str) -> Condition {
    Condition {
        name,
        kind,
        value: value.to_owned(),
    }
}

fn first_of_each(conditions: impl Iterator<Item = Condition>) -> Vec<Condition> {
    let mut list: Vec<Condition> = Vec::new();
    for condition in conditions {
        if list.iter().all(|c| c.name != condition.name) {
            list.push(condition);
        }
    }
    list.sort();
    list
}

/// Gateway API's order of routes (HTTPRouteRule.matches): an exact path, then
/// the longest prefix, a method, the most headers, the most parameters.
/// Expressions, which it leaves open, stand between exact paths and prefixes.
pub(super) fn precedence(m: &RouteMatch) -> impl Ord + use<> {
    let (kind, length, method) = match &m.target {
        RequestTarget::Connect => (0, 0, false),
        RequestTarget::Path {
            kind,
            value,
            method,
        } => {
            let kind = match kind {
                PathMatchType::Exact => 1,
                PathMatchType::RegularExpression => 2,
                PathMatchType::PathPrefix => 3,
            };
            (kind, value.len(), method.is_some())
        }
    };
    (
        kind,
        Reverse(length),
        Reverse(method),
        Reverse(m.headers.len()),
        Reverse(m.query.len()),
    )
}

/// The header changes of some filters: of the request, of the response.
pub(super) fn header_changes(filters: &[Filter]) -> (HeaderChanges, HeaderChanges) {
    let of = |kind: FilterType, field: fn(&Filter) -> Option<&HeaderModifier>| {
        let found = filters.iter().find(|f| f.type_ == kind).and_then(field);
        found.map(changes).unwrap_or_default()
    };
    (
        of(FilterType::RequestHeaderModifier, |f| {
            f.request_header_modifier.as_ref()
        }),
        of(FilterType::ResponseHeaderModifier, |f| {
            f.response_header_modifier.as_ref()
        }),
    )
}

fn changes(modifier: &HeaderModifier) -> HeaderChanges {
    let pairs = |list: &[Header]| {
        list.iter()
            .map(|h| (h.name.clone(), h.value.clone()))
            .collect()
    };
    HeaderChanges {
        set: pairs(&modifier.set),
        add: pairs(&modifier.add),
        remove: modifier.remove.clone(),
    }
}

/// The rewrite of a rule's filters.
pub(super) fn rewrite(filters: &[Filter]) -> Rewrite {
    let found = filters.iter().find_map(|f| f.url_rewrite.as_ref());
    found.map_or_else(Rewrite::default, |r| Rewrite {
        hostname: r.hostname.clone(),
        path: r.path.as_ref().map(path_change),
    })
}

/// The redirect of a rule's filters.
pub(super) fn redirect(filters: &[Filter]) -> Option<Redirect> {
    let found: &RequestRedirect = filters.iter().find_map(|f| f.request_redirect.as_ref())?;
    Some(Redirect {
        scheme: found.scheme.clone(),
        hostname: found.hostname.clone(),
        port: found.port.and_then(|p| u16::try_from(p).ok()),
        path: found.path.as_ref().map(path_change),
        status: found
            .status_code
            .and_then(|c| u16::try_from(c).ok())
            .unwrap_or(302),
    })
}

fn path_change(modifier: &PathModifier) -> PathChange {
    match (&modifier.replace_full_path, &modifier.replace_prefix_match) {
        (Some(path), _) => PathChange::Full(path.clone()),
        (None, prefix) => {
            let prefix = prefix.as_deref().unwrap_or_default();
            PathChange::Prefix(prefix.trim_end_matches('/').to_owned())
        }
    }
}
