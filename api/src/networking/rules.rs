//! The rules that an API server checks, in CEL.
//!
//! They are those of [`crate::validate`] as far as an API server can afford
//! them, so that a person hears of a mistake while writing it; what an older
//! schema let in is still told apart there. Every list and text that a rule
//! walks is bounded: the API server refuses a CRD whose rules might cost too
//! much. An object that was stored before a rule can still be labelled, have
//! its status written and be deleted, because the API server does not check
//! again what an update leaves alone (ratcheting, Kubernetes 1.30 on).

use serde_json::{Value, json};

/// `x-kubernetes-validations` from expressions and what is said when they are
/// false.
pub(super) fn cel(rules: &[(&str, &str)]) -> Value {
    rules
        .iter()
        .map(|(rule, message)| json!({"rule": rule, "message": message}))
        .collect()
}

pub(super) fn http_proxy() -> Value {
    cel(&[
        (
            "self.rules.all(r, !has(r.name) || self.rules.exists_one(o, has(o.name) && o.name == r.name))",
            "two rules have the same name; a rule's name is unique in its HTTPProxy",
        ),
        (
            "self.rules.map(r, has(r.matches) && size(r.matches) > 0 ? size(r.matches) : 1).sum() <= 128",
            "all rules together have at most 128 matches",
        ),
        (
            "!has(self.hostnames) || self.hostnames.all(h, self.hostnames.exists_one(o, o == h))",
            "a host name is listed twice",
        ),
    ])
}

pub(super) fn hostname() -> Value {
    cel(&[
        (
            "!self.contains('*')",
            "wildcard host names are not allowed; list each name",
        ),
        (
            "self.contains('*') || (self.matches('^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?([.][a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*$') && !isIP(self))",
            "a host name is a DNS name in lowercase letters, and no IP address",
        ),
    ])
}

pub(super) fn rule() -> Value {
    const REDIRECTS: &str =
        "has(self.filters) && self.filters.exists(f, f.type == 'RequestRedirect')";
    const BACKENDS: &str = "has(self.backends) && size(self.backends) > 0";
    const RAW: &str = "has(self.backends) && self.backends.exists(b, has(b.endpoint) && b.endpoint.lowerAscii().startsWith('tcp://'))";
    let one_prefix = |filter: &str| {
        format!(
            "!has(self.filters) || !self.filters.exists(f, has(f.{filter}) && has(f.{filter}.path) && f.{filter}.path.type == 'ReplacePrefixMatch') \
             || !has(self.matches) || size(self.matches) == 0 \
             || (size(self.matches) == 1 && (!has(self.matches[0].path) || self.matches[0].path.type == 'PathPrefix'))"
        )
    };
    cel(&[
        (
            &format!("({BACKENDS}) || ({REDIRECTS})"),
            "a rule needs a backend, or a RequestRedirect filter",
        ),
        (
            &format!("!({BACKENDS}) || !({REDIRECTS})"),
            "a rule that redirects has no backends: remove the RequestRedirect filter or the backends",
        ),
        (
            &format!("!({BACKENDS}) || self.backends.exists(b, !has(b.weight) || b.weight > 0)"),
            "every backend has weight 0, so no request could go anywhere",
        ),
        (
            &format!(
                "!({RAW}) || self.backends.all(b, has(b.endpoint) && b.endpoint.lowerAscii().startsWith('tcp://'))"
            ),
            "tcp and HTTP endpoints do not share a rule",
        ),
        (
            &format!(
                "!({RAW}) || !has(self.matches) || self.matches.all(m, !has(m.method) && (!has(m.queryParams) || size(m.queryParams) == 0) && (!has(m.path) || (m.path.type == 'PathPrefix' && m.path.value == '/')))"
            ),
            "a rule with a tcp endpoint serves CONNECT, which has neither path nor query: match by hostname and headers",
        ),
        (
            &format!(
                "!({RAW}) || !has(self.filters) || !self.filters.exists(f, f.type in ['RequestRedirect', 'URLRewrite'])"
            ),
            "a rule with a tcp endpoint neither redirects nor rewrites",
        ),
        (
            &one_prefix("requestRedirect"),
            "a RequestRedirect with ReplacePrefixMatch needs a rule with exactly one match, by PathPrefix",
        ),
        (
            &one_prefix("urlRewrite"),
            "a URLRewrite with ReplacePrefixMatch needs a rule with exactly one match, by PathPrefix",
        ),
    ])
}

/// The filters of a rule.
pub(super) fn filters() -> Value {
    cel(&[
        ONE_OF_EACH,
        (
            "!(self.exists(f, f.type == 'RequestRedirect') && self.exists(f, f.type == 'URLRewrite'))",
            "RequestRedirect and URLRewrite exclude each other",
        ),
    ])
}

/// The filters of a backend.
pub(super) fn backend_filters() -> Value {
    cel(&[
        ONE_OF_EACH,
        (
            "!self.exists(f, f.type in ['RequestRedirect', 'URLRewrite'])",
            "a backend's filters are header modifiers only; move it to the rule",
        ),
    ])
}

const ONE_OF_EACH: (&str, &str) = (
    "['RequestHeaderModifier', 'ResponseHeaderModifier', 'RequestRedirect', 'URLRewrite'].all(t, self.filter(f, f.type == t).size() <= 1)",
    "only one filter of each type is allowed",
);

/// A filter has the field of its type, and no other's.
pub(super) fn filter() -> Value {
    let rules: Vec<_> = [
        ("RequestHeaderModifier", "requestHeaderModifier"),
        ("ResponseHeaderModifier", "responseHeaderModifier"),
        ("RequestRedirect", "requestRedirect"),
        ("URLRewrite", "urlRewrite"),
    ]
    .into_iter()
    .map(|(kind, field)| {
        (
            format!("(self.type == '{kind}') == has(self.{field})"),
            format!("{field} is needed for the type {kind}, and belongs to no other"),
        )
    })
    .collect();
    let rules: Vec<_> = rules.iter().map(|(r, m)| (&**r, &**m)).collect();
    cel(&rules)
}

pub(super) fn method() -> Value {
    cel(&[(
        "self != 'CONNECT'",
        "CONNECT is served by a rule whose endpoint is tcp://",
    )])
}

pub(super) fn path_modifier() -> Value {
    cel(&[
        (
            "(self.type == 'ReplaceFullPath') == has(self.replaceFullPath)",
            "replaceFullPath is needed for the type ReplaceFullPath, and belongs to no other",
        ),
        (
            "(self.type == 'ReplacePrefixMatch') == has(self.replacePrefixMatch)",
            "replacePrefixMatch is needed for the type ReplacePrefixMatch, and belongs to no other",
        ),
    ])
}

pub(super) fn backend() -> Value {
    /// Expressions on the text: functions on a part of a URL are too dear,
    /// because the API server knows no bound for the part's length.
    const LOOPBACK: &str =
        "://(?i)(([^/]*[.])?localhost[.]?|127[.][0-9.]+|[[](0*:)+0*1[]])(:[0-9]*)?$";
    const ADDRESS: &str = "://([0-9]+[.][0-9]+[.][0-9]+[.][0-9]+|[[].*[]])(:[0-9]*)?$";
    cel(&[
        (
            "!has(self.connector) || has(self.endpoint)",
            "a connector needs an endpoint: the service as the connector sees it, as in http://127.0.0.1:8080",
        ),
        (
            "has(self.connector) || has(self.endpoint) || has(self.instance)",
            "an endpoint is needed, as in http://127.0.0.1:8080",
        ),
        (
            "!has(self.instance) || (!has(self.endpoint) && !has(self.connector))",
            "an instance excludes endpoint and connector",
        ),
        (
            "!has(self.endpoint) || has(self.connector) || !self.endpoint.matches('^(?i)tcp://')",
            "a tcp endpoint needs a connector",
        ),
        (
            &format!(
                "!has(self.endpoint) || has(self.connector) || !self.endpoint.matches('{LOOPBACK}')"
            ),
            "the gateway's own loopback is no backend; name the connector beside the service",
        ),
        (
            "!has(self.tls) || !has(self.endpoint) || self.endpoint.matches('^(?i)https://')",
            "tls is for https endpoints",
        ),
        (
            &format!(
                "!has(self.endpoint) || !self.endpoint.matches('^(?i)https{ADDRESS}') || (has(self.tls) && has(self.tls.hostname))"
            ),
            "an https endpoint given by address needs tls.hostname: the name in the service's certificate",
        ),
    ])
}

/// UDP passes: the controller refuses it with the reason `UnsupportedProtocol`.
pub(super) fn endpoint() -> Value {
    const SCHEME: &str = "^(?i)(http|https|h2c|grpc|tcp|udp)://";
    const PORT: &str = ":0*([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])$";
    const NEVER: &str = "://(0[.]0[.]0[.]0|169[.]254[.][0-9.]+|2(2[4-9]|3[0-9])[.][0-9.]+|255[.]255[.]255[.]255|[[]::[]]|(?i)[[](ff[0-9a-f]{2}|fe[89ab][0-9a-f]):.*[]])(:[0-9]*)?$";
    cel(&[
        (
            &format!("self.matches('{SCHEME}')"),
            "an endpoint is a URL such as http://127.0.0.1:8080; known schemes are http, https, h2c, grpc and tcp",
        ),
        (
            "!self.matches('^[^/]*://.*[/?#@]')",
            "an endpoint is a scheme, a host and a port only: remove user, path, query and fragment",
        ),
        (
            &format!(
                "!self.matches('{SCHEME}[^/?#@]*$') || (isURL(self) && url(self).getHostname() != '')"
            ),
            "an endpoint is a scheme, a host and a port, as in http://127.0.0.1:8080 or http://[::1]:8080",
        ),
        (
            &format!("!self.matches(':[0-9]*$') || self.matches('{PORT}')"),
            "a port is between 1 and 65535",
        ),
        (
            "!self.matches('^(?i)(tcp|udp)://') || self.matches(':[0-9]*$')",
            "a tcp endpoint needs a port, as in tcp://127.0.0.1:22",
        ),
        (
            &format!("!self.matches('{NEVER}')"),
            "an unspecified, multicast or link-local address is no backend",
        ),
    ])
}

pub(super) fn connector_reference() -> Value {
    cel(&[(
        "has(self.name) != has(self.selector)",
        "exactly one of name and selector is needed",
    )])
}

pub(super) fn connection_details() -> Value {
    cel(&[(
        "self.type != 'PublicKey' || has(self.publicKey)",
        "publicKey is needed when type is PublicKey",
    )])
}

pub(super) fn endpoint_id() -> Value {
    cel(&[(
        "self.matches('^([0-9a-fA-F]{64}|[a-z0-9]{52})$')",
        "an EndpointId is 64 hex digits",
    )])
}

pub(super) fn home_relay() -> Value {
    cel(&[(
        "self == '' || (isURL(self) && url(self).getScheme() in ['http', 'https'] && url(self).getHostname() != '')",
        "a relay is a URL such as https://relay.example",
    )])
}

pub(super) fn ip_address() -> Value {
    cel(&[("isIP(self)", "must be an IP address")])
}

pub(super) fn advertised_address() -> Value {
    cel(&[(
        "self == '*' || isIP(self) || self.matches('^[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*$') || self.matches('^\\\\[[0-9A-Fa-f:.]+\\\\]$') || self.matches('^([*][.])?[A-Za-z0-9_-]{1,63}([.][A-Za-z0-9_-]{1,63})*[.]?$')",
        "an address is an IP address, a DNS name, * for any, or *.suffix for any name below",
    )])
}

pub(super) fn protocol() -> Value {
    cel(&[(
        "self.upperAscii() in ['TCP', 'UDP']",
        "a protocol is TCP or UDP",
    )])
}
