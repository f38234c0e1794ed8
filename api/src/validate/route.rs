//! Rules of matches and filters.

use std::collections::BTreeSet;

use super::{Checker, text};
use crate::{
    Reason,
    networking::{
        Filter, FilterType, HeaderModifier, HttpMatch, MatchType, PathMatchType, PathModifier,
        PathModifierType, RequestRedirect, Rule, UrlRewrite,
    },
};

pub(super) fn http_match(at: &mut Checker<'_>, m: &HttpMatch) {
    if let Some(path) = &m.path {
        let at = &mut at.field("path.value");
        at.check(match path.type_ {
            PathMatchType::Exact | PathMatchType::PathPrefix => text::path(&path.value),
            PathMatchType::RegularExpression => text::regex(&path.value),
        });
    }
    at.at_most("headers", m.headers.len(), 16);
    for (i, header) in m.headers.iter().enumerate() {
        let at = &mut at.item("headers", i);
        at.field("name").check(text::header_name(&header.name));
        at.field("value").check(match header.type_ {
            MatchType::Exact => text::value(&header.value, 4096),
            MatchType::RegularExpression => text::regex(&header.value),
        });
    }
    at.at_most("queryParams", m.query_params.len(), 16);
    for (i, param) in m.query_params.iter().enumerate() {
        let at = &mut at.item("queryParams", i);
        at.field("name").check(text::value(&param.name, 256));
        at.field("value").check(match param.type_ {
            MatchType::Exact => text::value(&param.value, 1024),
            MatchType::RegularExpression => text::regex(&param.value),
        });
    }
    if let Some(method) = &m.method {
        at.field("method").check(text::method(method));
    }
}

/// The filters of a rule, or of a backend when `rule` is `None`.
pub(super) fn filters(at: &mut Checker<'_>, filters: &[Filter], rule: Option<&Rule>) {
    at.at_most("filters", filters.len(), 16);
    let mut seen = BTreeSet::new();
    for (i, filter) in filters.iter().enumerate() {
        let at = &mut at.item("filters", i);
        if !seen.insert(filter.type_) {
            at.invalid("only one filter of each type is allowed");
        }
        one_field(at, filter);
        match filter.type_ {
            FilterType::RequestHeaderModifier => {
                modifier(at, "requestHeaderModifier", filter.request_header_modifier.as_ref());
            }
            FilterType::ResponseHeaderModifier => {
                modifier(at, "responseHeaderModifier", filter.response_header_modifier.as_ref());
            }
            FilterType::RequestRedirect | FilterType::UrlRewrite if rule.is_none() => {
                at.error(Reason::Unsupported, "a backend's filters are header modifiers only; move it to the rule");
            }
            FilterType::RequestRedirect => {
                redirect(&mut at.field("requestRedirect"), filter.request_redirect.as_ref(), rule);
            }
            FilterType::UrlRewrite => {
                rewrite(&mut at.field("urlRewrite"), filter.url_rewrite.as_ref(), rule);
            }
            FilterType::RequestMirror | FilterType::Cors | FilterType::ExtensionRef => at.error(
                Reason::Unsupported,
                "supported filters are RequestHeaderModifier, ResponseHeaderModifier, RequestRedirect and URLRewrite",
            ),
        }
    }
    if seen.contains(&FilterType::RequestRedirect) && seen.contains(&FilterType::UrlRewrite) {
        at.field("filters")
            .invalid("RequestRedirect and URLRewrite exclude each other");
    }
}

fn one_field(at: &mut Checker<'_>, filter: &Filter) {
    let given = [
        (
            FilterType::RequestHeaderModifier,
            filter.request_header_modifier.is_some(),
        ),
        (
            FilterType::ResponseHeaderModifier,
            filter.response_header_modifier.is_some(),
        ),
        (
            FilterType::RequestRedirect,
            filter.request_redirect.is_some(),
        ),
        (FilterType::UrlRewrite, filter.url_rewrite.is_some()),
    ];
    if given
        .iter()
        .any(|(kind, given)| *given && *kind != filter.type_)
    {
        at.invalid("a field is given that does not belong to the filter's type");
    }
}

fn modifier(at: &mut Checker<'_>, name: &str, modifier: Option<&HeaderModifier>) {
    let at = &mut at.field(name);
    let Some(modifier) = modifier else {
        return at.invalid("this field is needed for the filter's type");
    };
    for (name, headers) in [("set", &modifier.set), ("add", &modifier.add)] {
        at.at_most(name, headers.len(), 16);
        for (i, header) in headers.iter().enumerate() {
            let at = &mut at.item(name, i);
            at.field("name")
                .check(text::changeable_header(&header.name));
            at.field("value").check(text::value(&header.value, 4096));
        }
    }
    at.at_most("remove", modifier.remove.len(), 16);
    for (i, header) in modifier.remove.iter().enumerate() {
        at.item("remove", i).check(text::changeable_header(header));
    }
}

fn redirect(at: &mut Checker<'_>, redirect: Option<&RequestRedirect>, rule: Option<&Rule>) {
    let Some(redirect) = redirect else {
        return at.invalid("this field is needed for the filter's type");
    };
    if redirect
        .scheme
        .as_deref()
        .is_some_and(|s| s != "http" && s != "https")
    {
        at.field("scheme").invalid("a scheme is http or https");
    }
    if let Some(hostname) = &redirect.hostname {
        at.field("hostname").check(text::subdomain(hostname));
    }
    if redirect.port.is_some_and(|p| !(1..=65535).contains(&p)) {
        at.field("port").invalid("a port is between 1 and 65535");
    }
    if redirect
        .status_code
        .is_some_and(|c| ![301, 302, 303, 307, 308].contains(&c))
    {
        at.field("statusCode")
            .invalid("a redirect's status is 301, 302, 303, 307 or 308");
    }
    path_modifier(at, redirect.path.as_ref(), rule);
    if rule.is_some_and(|rule| !rule.backends.is_empty()) {
        at.invalid("a rule that redirects has no backends");
    }
}

fn rewrite(at: &mut Checker<'_>, rewrite: Option<&UrlRewrite>, rule: Option<&Rule>) {
    let Some(rewrite) = rewrite else {
        return at.invalid("this field is needed for the filter's type");
    };
    if let Some(hostname) = &rewrite.hostname {
        at.field("hostname").check(text::subdomain(hostname));
    }
    path_modifier(at, rewrite.path.as_ref(), rule);
}

fn path_modifier(at: &mut Checker<'_>, modifier: Option<&PathModifier>, rule: Option<&Rule>) {
    let Some(modifier) = modifier else { return };
    let at = &mut at.field("path");
    let (name, given, other) = match modifier.type_ {
        PathModifierType::ReplaceFullPath => (
            "replaceFullPath",
            &modifier.replace_full_path,
            &modifier.replace_prefix_match,
        ),
        PathModifierType::ReplacePrefixMatch => (
            "replacePrefixMatch",
            &modifier.replace_prefix_match,
            &modifier.replace_full_path,
        ),
    };
    if other.is_some() {
        at.invalid("a field is given that does not belong to the type");
    }
    match given {
        None => at.field(name).invalid("this field is needed for the type"),
        // An empty replacement of a prefix takes the prefix away.
        Some(path) if path.is_empty() && modifier.type_ == PathModifierType::ReplacePrefixMatch => {
        }
        Some(path) => at.field(name).check(text::path(path)),
    }
    let Some(rule) = rule else { return };
    let one_prefix = match rule.matches.as_slice() {
        [] => true,
        [only] => only
            .path
            .as_ref()
            .is_none_or(|p| p.type_ == PathMatchType::PathPrefix),
        _ => false,
    };
    if modifier.type_ == PathModifierType::ReplacePrefixMatch && !one_prefix {
        at.invalid("ReplacePrefixMatch needs a rule with exactly one match, by PathPrefix");
    }
}
