//! Which requests two routes have in common, and which route comes first.

use std::cmp::Reverse;

use gateway_api::httproutes::{
    HttpRoute, HttpRouteRulesMatches, HttpRouteRulesMatchesMethod, HttpRouteRulesMatchesPathType,
};

/// A path as it is compared.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Exact,
    Regex,
    Prefix,
}

/// How specific a match is, as Envoy Gateway sorts: exact paths, expressions,
/// prefixes; the longer, the more headers (the method is one), the more
/// parameters, the earlier.
pub type Specificity = (u8, Reverse<usize>, Reverse<usize>, Reverse<usize>);

/// How specific the least specific match of a route is; the most specific
/// route sorts first.
pub fn specificity(route: &HttpRoute) -> Specificity {
    let widest = matches(route).map(one).max();
    widest.unwrap_or((u8::MAX, Reverse(0), Reverse(0), Reverse(0)))
}

pub(super) fn one(m: &HttpRouteRulesMatches) -> Specificity {
    let (kind, value) = path(m);
    let headers = m.headers.as_ref().map_or(0, Vec::len);
    let method = usize::from(m.method.is_some());
    let query = m.query_params.as_ref().map_or(0, Vec::len);
    (
        kind as u8,
        Reverse(value.len()),
        Reverse(headers + method),
        Reverse(query),
    )
}

/// Whether some request could match both. Conditions on headers and
/// parameters, and expressions, are taken to be met by some request.
pub(super) fn overlaps(a: &HttpRoute, b: &HttpRoute) -> bool {
    shares_hostname(a, b) && matches(a).any(|m| matches(b).any(|n| meets(m, n)))
}

fn shares_hostname(a: &HttpRoute, b: &HttpRoute) -> bool {
    let names = |r: &HttpRoute| r.spec.hostnames.clone().unwrap_or_default();
    let (a, b) = (names(a), names(b));
    // A route without names has those that no other route has.
    match (a.as_slice(), b.as_slice()) {
        ([], []) => true,
        ([], _) | (_, []) => true,
        (a, b) => a
            .iter()
            .any(|n| b.iter().any(|m| n.eq_ignore_ascii_case(m))),
    }
}

fn matches(route: &HttpRoute) -> impl Iterator<Item = &HttpRouteRulesMatches> {
    let rules = route.spec.rules.iter().flatten();
    rules.flat_map(|r| r.matches.iter().flatten())
}

fn meets(a: &HttpRouteRulesMatches, b: &HttpRouteRulesMatches) -> bool {
    let connect =
        |m: &HttpRouteRulesMatches| m.method == Some(HttpRouteRulesMatchesMethod::Connect);
    if connect(a) || connect(b) {
        return connect(a) && connect(b);
    }
    if let (Some(a), Some(b)) = (&a.method, &b.method)
        && a != b
    {
        return false;
    }
    match (path(a), path(b)) {
        ((Kind::Regex, _), _) | (_, (Kind::Regex, _)) => true,
        ((Kind::Exact, a), (Kind::Exact, b)) => a == b,
        ((Kind::Prefix, prefix), (Kind::Exact, path))
        | ((Kind::Exact, path), (Kind::Prefix, prefix)) => below(path, prefix),
        ((Kind::Prefix, a), (Kind::Prefix, b)) => below(a, b) || below(b, a),
    }
}

pub(super) fn below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A prefix has no final slash, the root is empty.
fn path(m: &HttpRouteRulesMatches) -> (Kind, &str) {
    let Some(path) = &m.path else {
        return (Kind::Prefix, "");
    };
    let value = path.value.as_deref().unwrap_or("/");
    match path.r#type {
        Some(HttpRouteRulesMatchesPathType::Exact) => (Kind::Exact, value),
        Some(HttpRouteRulesMatchesPathType::RegularExpression) => (Kind::Regex, value),
        Some(HttpRouteRulesMatchesPathType::PathPrefix) | None => {
            (Kind::Prefix, value.trim_end_matches('/'))
        }
    }
}
