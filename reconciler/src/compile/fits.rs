//! What Gateway API's HTTPRoute refuses though a rule may say it: its API
//! server would refuse the whole route again and again.
//!
//! (Gateway API 1.6, `httproute_types.go`; the experimental channel, which
//! Envoy Gateway installs, is the stricter.)

use adit_api::networking::{MatchType, PathMatchType};

use crate::model::{Action, HeaderChanges, PathChange, RequestTarget, RouteMatch};

/// What is wrong with a match.
pub(super) fn of_match(m: &RouteMatch) -> Option<String> {
    if let RequestTarget::Path { kind, value, .. } = &m.target
        && *kind != PathMatchType::RegularExpression
        && !value.is_empty()
        && !is_path(value)
    {
        return Some(format!("the path {value:?} {PATH}"));
    }
    for condition in &m.headers {
        if condition.kind == MatchType::Exact && !is_visible(&condition.value) {
            return Some(format!("the value of {} {VALUE}", condition.name));
        }
    }
    let odd = m.query.iter().find(|q| !is_token(&q.name));
    odd.map(|q| {
        format!("the parameter's name {:?} is none that Gateway API takes: letters, digits and !#$%&'*+-.^_`|~", q.name)
    })
}

/// What is wrong with a rule's action and header changes.
pub(super) fn of_rule(
    action: &Action,
    request: &HeaderChanges,
    response: &HeaderChanges,
) -> Option<String> {
    let mut changes = vec![request, response];
    let mut path = None;
    match action {
        Action::Forward { backends, rewrite } => {
            for backend in backends {
                changes.extend([&backend.request_headers, &backend.response_headers]);
            }
            path = rewrite.path.as_ref();
        }
        Action::Redirect(redirect) => path = redirect.path.as_ref(),
        Action::Misconfigured => {}
    }
    let values = changes.iter().flat_map(|c| c.set.iter().chain(&c.add));
    for (name, value) in values {
        if !is_visible(value) {
            return Some(format!("the value of {name} {VALUE}"));
        }
        // Each percent sign is written twice.
        if value.len() + value.matches('%').count() > MAX_VALUE {
            return Some(format!(
                "the value of {name} is too long: {MAX_VALUE} bytes, of which a % takes two"
            ));
        }
    }
    match path {
        Some(PathChange::Full(p) | PathChange::Prefix(p)) if !p.is_empty() && !is_path(p) => {
            Some(format!("the path {p:?} {PATH}"))
        }
        _ => None,
    }
}

/// Gateway API's limit for a header's value.
const MAX_VALUE: usize = 4096;
const VALUE: &str =
    "is none that Gateway API takes: visible ASCII characters with single spaces between them";
const PATH: &str = "is none that Gateway API takes: write other than ASCII letters, digits and -._~!$&'()*+,;=:@ as %XX";

/// `^[!-~]+([\t ]?[!-~]+)*$`
fn is_visible(text: &str) -> bool {
    let blank = |b: u8| b == b' ' || b == b'\t';
    let bytes = text.as_bytes();
    let all = bytes.iter().all(|b| b.is_ascii_graphic() || blank(*b));
    let ends =
        bytes.first().is_some_and(|b| !blank(*b)) && bytes.last().is_some_and(|b| !blank(*b));
    all && ends && !bytes.windows(2).any(|w| blank(w[0]) && blank(w[1]))
}

/// `^(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|[%][0-9a-fA-F]{2})+$`
fn is_path(text: &str) -> bool {
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        let fine = match b {
            b'%' => {
                let mut hex = || bytes.next().is_some_and(|b| b.is_ascii_hexdigit());
                hex() && hex()
            }
            b => b.is_ascii_alphanumeric() || b"-/._~!$&'()*+,;=:@".contains(&b),
        };
        if !fine {
            return false;
        }
    }
    true
}

/// A header's name, which is what Gateway API takes for a parameter's name too.
fn is_token(text: &str) -> bool {
    let bytes = text.as_bytes();
    let fine = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
    !bytes.is_empty() && bytes.iter().all(fine)
}
