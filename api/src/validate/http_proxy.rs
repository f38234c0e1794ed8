//! Rules of HTTPProxy.

use std::collections::BTreeSet;

use adit_wire::{Host, is_local};

use super::{Checker, Scope, route, text};
use crate::{
    Endpoint, Problem, Reason, Scheme,
    networking::{Backend, ConnectorReference, FilterType, HttpProxy, PathMatchType, Rule},
};

/// Checks an HTTPProxy.
pub fn http_proxy(object: &HttpProxy, scope: Scope) -> Vec<Problem> {
    let mut problems = Vec::new();
    let root = &mut Checker::new("", &mut problems);
    let name = object.metadata.name.as_deref().unwrap_or_default();
    root.field("metadata.name").check(text::label(name));
    hostnames(root, &object.spec.hostnames);
    let rules = &object.spec.rules;
    if rules.is_empty() {
        root.field("spec.rules")
            .invalid("at least one rule is needed");
    }
    root.at_most("spec.rules", rules.len(), 16);
    let matches: usize = rules.iter().map(|rule| rule.matches.len().max(1)).sum();
    if matches > 128 {
        root.field("spec.rules").invalid(format!(
            "{matches} matches in all rules; at most 128 are allowed"
        ));
    }
    let mut names = BTreeSet::new();
    for (i, rule_) in rules.iter().enumerate() {
        let at = &mut root.item("spec.rules", i);
        if let Some(name) = &rule_.name {
            at.field("name").check(text::subdomain(name));
            if !names.insert(name) {
                at.field("name").invalid("two rules have this name");
            }
        }
        rule(at, rule_, scope);
    }
    problems
}

fn hostnames(root: &mut Checker<'_>, hostnames: &[String]) {
    root.at_most("spec.hostnames", hostnames.len(), 16);
    let mut seen = BTreeSet::new();
    for (i, hostname) in hostnames.iter().enumerate() {
        let at = &mut root.item("spec.hostnames", i);
        at.check(text::hostname(hostname));
        if !seen.insert(hostname) {
            at.invalid("this host name is listed twice");
        }
    }
}

fn rule(at: &mut Checker<'_>, rule: &Rule, scope: Scope) {
    at.at_most("matches", rule.matches.len(), 64);
    for (i, m) in rule.matches.iter().enumerate() {
        route::http_match(&mut at.item("matches", i), m);
    }
    route::filters(at, &rule.filters, Some(rule));
    at.at_most("backends", rule.backends.len(), 16);
    let redirects = rule
        .filters
        .iter()
        .any(|f| f.type_ == FilterType::RequestRedirect);
    if rule.backends.is_empty() && !redirects {
        at.field("backends").error(
            Reason::NoBackends,
            "a rule needs a backend, or a RequestRedirect filter",
        );
    }
    let mut raw = 0;
    for (i, b) in rule.backends.iter().enumerate() {
        if backend(&mut at.item("backends", i), b, scope) == Some(Scheme::Tcp) {
            raw += 1;
        }
    }
    if !rule.backends.is_empty() && rule.backends.iter().all(|b| b.weight == Some(0)) {
        at.field("backends")
            .invalid("every backend has weight 0, so no request could go anywhere");
    }
    if raw > 0 {
        tcp_rule(at, rule, raw);
    }
}

/// A `tcp://` endpoint is opened by CONNECT, which has no path.
fn tcp_rule(at: &mut Checker<'_>, rule: &Rule, raw: usize) {
    if raw < rule.backends.len() {
        at.field("backends")
            .invalid("tcp and HTTP endpoints do not share a rule");
    }
    let root_only = |m: &crate::networking::HttpMatch| {
        m.method.is_none()
            && m.query_params.is_empty()
            && m.path
                .as_ref()
                .is_none_or(|p| p.type_ == PathMatchType::PathPrefix && p.value == "/")
    };
    if !rule.matches.iter().all(root_only) {
        at.field("matches").invalid(
            "a rule with a tcp endpoint serves CONNECT, which has neither path nor query: match by hostname and headers",
        );
    }
    let modifies = [FilterType::RequestRedirect, FilterType::UrlRewrite];
    if rule.filters.iter().any(|f| modifies.contains(&f.type_)) {
        at.field("filters")
            .invalid("a rule with a tcp endpoint neither redirects nor rewrites");
    }
}

fn backend(at: &mut Checker<'_>, backend: &Backend, scope: Scope) -> Option<Scheme> {
    if let Some(connector) = &backend.connector {
        connector_reference(&mut at.field("connector"), connector);
    }
    if backend.instance.is_some() {
        at.field("instance").error(
            Reason::Unsupported,
            "VPC instances are not supported; give an endpoint",
        );
    }
    if backend
        .weight
        .is_some_and(|w| !(0..=1_000_000).contains(&w))
    {
        at.field("weight")
            .invalid("a weight is between 0 and 1000000");
    }
    route::filters(at, &backend.filters, None);
    let Some(text) = &backend.endpoint else {
        at.invalid("an endpoint is needed, as in http://127.0.0.1:8080");
        return None;
    };
    let endpoint = match text.parse::<Endpoint>() {
        Ok(endpoint) => endpoint,
        Err(e) => {
            at.field("endpoint").invalid(e.to_string());
            return None;
        }
    };
    if endpoint.scheme == Scheme::Tcp && backend.connector.is_none() && scope == Scope::Shared {
        at.field("connector").invalid(
            "a tcp endpoint needs a connector: CONNECT into the gateway's own network is not for those who share it",
        );
    }
    address(
        &mut at.field("endpoint"),
        &endpoint,
        backend.connector.is_some(),
        scope,
    );
    tls(at, backend, &endpoint);
    Some(endpoint.scheme)
}

fn connector_reference(at: &mut Checker<'_>, reference: &ConnectorReference) {
    match (&reference.name, &reference.selector) {
        (Some(name), None) => at.field("name").check(text::label(name)),
        (None, Some(selector)) => {
            let empty = selector.match_labels.as_ref().is_none_or(|l| l.is_empty())
                && selector
                    .match_expressions
                    .as_ref()
                    .is_none_or(|e| e.is_empty());
            if empty {
                at.field("selector").invalid(
                    "an empty selector would select every connector; give at least one label",
                );
            }
            for (i, e) in selector.match_expressions.iter().flatten().enumerate() {
                let values = e.values.as_ref().map_or(0, Vec::len);
                let ok = match e.operator.as_str() {
                    "In" | "NotIn" => values > 0,
                    "Exists" | "DoesNotExist" => values == 0,
                    _ => false,
                };
                if !ok {
                    at.item("selector.matchExpressions", i).invalid(
                        "an operator is In or NotIn with values, or Exists or DoesNotExist without",
                    );
                }
            }
        }
        _ => at.invalid("exactly one of name and selector is needed"),
    }
}

/// Where a backend may be. Behind a connector the connector's own allow-list
/// decides about its network; without one the gateway's network is meant.
fn address(at: &mut Checker<'_>, endpoint: &Endpoint, behind_connector: bool, scope: Scope) {
    let (loopback, never) = match &endpoint.address.host {
        Host::Name(name) => (is_loopback_name(name), false),
        Host::Ip(ip) => (ip.is_loopback(), !ip.is_loopback() && is_local(*ip)),
    };
    if never {
        at.invalid(
            "an unspecified, multicast, link-local or metadata address is no backend, however it is written",
        );
    } else if loopback && !behind_connector && scope == Scope::Shared {
        at.invalid(
            "the gateway's own loopback is no backend; name the connector beside the service",
        );
    }
}

/// RFC 6761, section 6.3, and what hosts files of Debian and Fedora say beside it.
fn is_loopback_name(name: &str) -> bool {
    const OTHERS: [&str; 5] = [
        "ip6-localhost",
        "ip6-loopback",
        "localhost4",
        "localhost6",
        "localhost.localdomain",
    ];
    name == "localhost" || name.ends_with(".localhost") || OTHERS.contains(&name)
}

fn tls(at: &mut Checker<'_>, backend: &Backend, endpoint: &Endpoint) {
    let hostname = backend.tls.as_ref().and_then(|tls| tls.hostname.as_ref());
    if let Some(name) = hostname {
        at.field("tls.hostname")
            .check(text::subdomain(&name.to_ascii_lowercase()));
    }
    if backend.tls.is_some() && endpoint.scheme != Scheme::Https {
        at.field("tls").invalid("tls is for https endpoints");
    }
    if endpoint.scheme == Scheme::Https
        && hostname.is_none()
        && matches!(endpoint.address.host, Host::Ip(_))
    {
        at.field("tls.hostname").invalid(
            "an https endpoint given by address needs tls.hostname: the name in the service's certificate",
        );
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(spec: Value, scope: Scope) -> Vec<String> {
        let object: HttpProxy = serde_json::from_value(json!({
            "apiVersion": "networking.datumapis.com/v1alpha", "kind": "HTTPProxy",
            "metadata": {"name": "shop"}, "spec": spec,
        }))
        .expect("well formed");
        http_proxy(&object, scope)
            .into_iter()
            .map(|p| p.path)
            .collect()
    }

    fn rule_with(change: Value) -> Value {
        let mut rule =
            json!({"backends": [{"endpoint": "http://127.0.0.1:80", "connector": {"name": "c"}}]});
        for (key, value) in change.as_object().expect("an object") {
            rule[key] = value.clone();
        }
        json!({"hostnames": ["shop.example"], "rules": [rule]})
    }

    #[test]
    fn a_usual_proxy_passes() {
        let spec = rule_with(json!({
            "name": "all",
            "matches": [{"path": {"type": "PathPrefix", "value": "/api"}, "method": "GET",
                "headers": [{"name": "x-a", "value": "1"}], "queryParams": [{"name": "q", "value": "1"}]}],
            "filters": [
                {"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "x-b", "value": "2"}]}},
                {"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}}},
            ],
        }));
        assert_eq!(check(spec, Scope::Shared), [""; 0]);
    }

    #[test]
    fn each_breach_names_its_field() {
        let backend = |b: Value| rule_with(json!({"backends": [b]}));
        let filter = |f: Value| rule_with(json!({"filters": [f]}));
        let r = "spec.rules[0]";
        for (spec, path) in [
            (json!({"rules": []}), "spec.rules".to_owned()),
            (
                json!({"hostnames": ["*.a"], "rules": [{"backends": [{"endpoint": "http://a"}]}]}),
                "spec.hostnames[0]".into(),
            ),
            (rule_with(json!({"backends": []})), format!("{r}.backends")),
            (rule_with(json!({"name": "A"})), format!("{r}.name")),
            (
                rule_with(json!({"matches": [{"path": {"type": "Exact", "value": "a"}}]})),
                format!("{r}.matches[0].path.value"),
            ),
            (
                rule_with(
                    json!({"matches": [{"path": {"type": "RegularExpression", "value": "("}}]}),
                ),
                format!("{r}.matches[0].path.value"),
            ),
            (
                rule_with(json!({"matches": [{"method": "get"}]})),
                format!("{r}.matches[0].method"),
            ),
            (
                rule_with(json!({"matches": [{"headers": [{"name": ":path", "value": "1"}]}]})),
                format!("{r}.matches[0].headers[0].name"),
            ),
            (
                backend(json!({"endpoint": "ftp://a"})),
                format!("{r}.backends[0].endpoint"),
            ),
            (backend(json!({})), format!("{r}.backends[0]")),
            (
                backend(json!({"endpoint": "http://localhost:1"})),
                format!("{r}.backends[0].endpoint"),
            ),
            (
                backend(json!({"endpoint": "http://169.254.169.254"})),
                format!("{r}.backends[0].endpoint"),
            ),
            (
                backend(json!({"endpoint": "https://10.0.0.1"})),
                format!("{r}.backends[0].tls.hostname"),
            ),
            (
                backend(json!({"endpoint": "http://a", "tls": {}})),
                format!("{r}.backends[0].tls"),
            ),
            (
                backend(json!({"endpoint": "http://a", "weight": 0})),
                format!("{r}.backends"),
            ),
            (
                backend(json!({"endpoint": "http://a", "weight": -1})),
                format!("{r}.backends[0].weight"),
            ),
            (
                backend(json!({"endpoint": "http://a", "connector": {}})),
                format!("{r}.backends[0].connector"),
            ),
            (
                backend(json!({"endpoint": "http://a", "connector": {"selector": {}}})),
                format!("{r}.backends[0].connector.selector"),
            ),
            (
                backend(
                    json!({"endpoint": "http://a", "connector": {"selector": {"matchExpressions": [{"key": "a", "operator": "Gt"}]}}}),
                ),
                format!("{r}.backends[0].connector.selector.matchExpressions[0]"),
            ),
            (
                backend(json!({"endpoint": "http://a", "instance": {"name": "i", "port": 1}})),
                format!("{r}.backends[0].instance"),
            ),
            (
                backend(
                    json!({"endpoint": "http://a", "filters": [{"type": "URLRewrite", "urlRewrite": {}}]}),
                ),
                format!("{r}.backends[0].filters[0]"),
            ),
            (
                filter(json!({"type": "CORS", "cors": {}})),
                format!("{r}.filters[0]"),
            ),
            (
                filter(json!({"type": "URLRewrite"})),
                format!("{r}.filters[0].urlRewrite"),
            ),
            (
                filter(
                    json!({"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": ["Host"]}}),
                ),
                format!("{r}.filters[0].requestHeaderModifier.remove[0]"),
            ),
            (
                filter(json!({"type": "RequestRedirect", "requestRedirect": {}})),
                format!("{r}.filters[0].requestRedirect"),
            ),
            (
                rule_with(
                    json!({"backends": [{"endpoint": "tcp://a:1", "connector": {"name": "c"}}], "matches": [{"path": {"value": "/x"}}]}),
                ),
                format!("{r}.matches"),
            ),
            (
                rule_with(
                    json!({"backends": [{"endpoint": "tcp://a:1", "connector": {"name": "c"}}, {"endpoint": "http://a"}]}),
                ),
                format!("{r}.backends"),
            ),
            (
                backend(json!({"endpoint": "TCP://10.0.0.1:22"})),
                format!("{r}.backends[0].connector"),
            ),
        ] {
            assert_eq!(check(spec.clone(), Scope::Shared), [path], "{spec}");
        }
    }

    /// Server-side request forgery: what a gateway that many share must not be
    /// made to ask, in every spelling that some resolver takes for an address.
    #[test]
    fn no_spelling_leads_to_the_gateways_own_neighbourhood() {
        let path = |endpoint: &str, behind: bool, scope| {
            let mut backend = json!({"endpoint": endpoint});
            if behind {
                backend["connector"] = json!({"name": "c"});
            }
            check(rule_with(json!({"backends": [backend]})), scope)
        };
        let refused = ["spec.rules[0].backends[0].endpoint"];
        // Nowhere, for nobody: metadata, link-local, unspecified, multicast, and
        // what is no address in its usual form.
        for host in [
            "169.254.169.254",
            "169.254.170.2",
            "168.63.129.16",
            "100.100.100.200",
            "[fd00:ec2::254]",
            "[fe80::1]",
            "[fe80::1%25eth0]",
            "[::ffff:169.254.169.254]",
            "[::ffff:a9fe:a9fe]",
            "[::169.254.169.254]",
            "[64:ff9b::169.254.169.254]",
            "[64:ff9b::7f00:1]",
            "[2002:a9fe:a9fe::]",
            "[::127.0.0.1]",
            "0.0.0.0",
            "0.0.0.1",
            "[::]",
            "[::ffff:0.0.0.0]",
            "224.0.0.1",
            "255.255.255.255",
            "240.0.0.1",
            "[ff02::1]",
            "2130706433",
            "2852039166",
            "0x7f000001",
            "0x7f.0.0.1",
            "0177.0.0.1",
            "017700000001",
            "127.1",
            "127.0.1",
            "127.0.0.1.",
            "127.0.0.1..",
            "0",
            "0x0",
            "169.254.43518",
            "%31%32%37.0.0.1",
            "127%2e0%2e0%2e1",
            "user@127.0.0.1",
            "127.0.0.1#@shop.example",
            "127.0.0.1\\@shop.example",
            "\u{2460}\u{2461}\u{2466}.0.0.1",
            "127\u{3002}0\u{3002}0\u{3002}1",
            "local\u{ad}host",
        ] {
            for scope in [Scope::Shared, Scope::Standalone] {
                for behind in [false, true] {
                    let found = path(&format!("http://{host}:80"), behind, scope);
                    assert_eq!(found, refused, "{host}, behind a connector: {behind}");
                }
            }
        }
        // The gateway's own loopback: for its operator alone. Behind a connector
        // it is the device's, and the device's list decides.
        for host in [
            "127.0.0.1",
            "127.8.9.10",
            "[::1]",
            "[0:0:0:0:0:0:0:1]",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "localhost",
            "LOCALHOST",
            "localhost.",
            "a.localhost",
            "ip6-localhost",
            "localhost.localdomain",
        ] {
            let endpoint = format!("http://{host}:80");
            assert_eq!(path(&endpoint, false, Scope::Shared), refused, "{host}");
            for (behind, scope) in [(true, Scope::Shared), (false, Scope::Standalone)] {
                assert_eq!(path(&endpoint, behind, scope), [""; 0], "{host}");
            }
        }
        // The table can only fail if others pass.
        for host in ["10.0.0.1", "192.0.2.1", "[fd12::1]", "shop.internal"] {
            let found = path(&format!("http://{host}:80"), false, Scope::Shared);
            assert_eq!(found, [""; 0], "{host}");
        }
    }

    #[test]
    fn the_operators_own_directory_may_name_loopback() {
        let spec = rule_with(json!({"backends": [{"endpoint": "http://127.0.0.1:3000"}]}));
        assert_eq!(check(spec, Scope::Standalone), [""; 0]);
    }

    #[test]
    fn only_the_operators_own_directory_may_open_its_network_by_connect() {
        let spec = rule_with(json!({"backends": [{"endpoint": "tcp://10.0.0.1:22"}]}));
        assert_eq!(check(spec, Scope::Standalone), [""; 0]);
    }
}
