//! Route configurations.

use std::collections::BTreeMap;

use adit_api::networking::{MatchType, PathMatchType};

use super::{
    ADIT, clusters, literal,
    xds::{
        self, Any, BackOff, ClusterSpecifier, ClusterWeight, Empty, HeaderMutations, HeaderOption,
        HeaderValue, Metadata, PathRewrite, PathSpecifier, RedirectAction, Regex, RegexRewrite,
        RetryPolicy, RouteAction, RouteActionKind, RouteConfiguration, StringMatch, Upgrade,
        ValueMatcher,
    },
};
use crate::model::{
    Action, Condition, HeaderChanges, Listener, ListenerKind, Model, PathChange, Redirect,
    RequestTarget, Rewrite, Route, RouteMatch, Transport, VirtualHost, WeightedCluster,
};

/// How much of a request's body is kept for a retry after a failed connect.
/// Past Envoy's default of 1 MiB a POST that waits for a verdict is failed
/// instead of retried; each request that waits may hold this much.
const BODY_FOR_RETRY: u64 = 8 << 20;

/// No limit on time: an upload, an event stream or a tunnel may be long and
/// silent. What limits them is the client's and the service's own keep-alive.
const FOREVER: &str = "0s";

pub(super) fn configuration(listener: &Listener, model: &Model) -> Any<RouteConfiguration> {
    let ListenerKind::Http(hosts) = &listener.kind;
    let message = RouteConfiguration {
        name: listener.name.clone(),
        ignore_port_in_host_matching: true,
        virtual_hosts: hosts.iter().map(|h| virtual_host(h, model)).collect(),
    };
    Any::new("envoy.config.route.v3.RouteConfiguration", message)
}

fn virtual_host(host: &VirtualHost, model: &Model) -> xds::VirtualHost {
    let domain = host.hostname.clone().unwrap_or_else(|| "*".into());
    xds::VirtualHost {
        name: domain.clone(),
        domains: vec![domain],
        routes: host.routes.iter().map(|r| route(r, model)).collect(),
    }
}

fn route(route: &Route, model: &Model) -> xds::Route {
    let (action, metadata) = match &route.action {
        Action::Forward { backends, rewrite } => (
            forward(route, backends, rewrite),
            forward_metadata(backends, model),
        ),
        Action::Redirect(redirect) => (self::redirect(&route.matches, redirect), None),
        // The module gives the body; without the module it is a bare 500.
        Action::Misconfigured => {
            let keys = BTreeMap::from([("name".into(), route.origin.proxy.clone().into())]);
            let metadata = Metadata {
                filter_metadata: BTreeMap::from([(ADIT.into(), keys)]),
            };
            (
                RouteActionKind::DirectResponse { status: 500 },
                Some(metadata),
            )
        }
    };
    let forwards = matches!(action, RouteActionKind::Route(_));
    xds::Route {
        name: route.origin.to_string(),
        match_: route_match(&route.matches),
        metadata,
        action,
        headers: mutations(&route.request_headers, &route.response_headers),
        request_body_buffer_limit: forwards.then_some(BODY_FOR_RETRY),
    }
}

/// The target, if there is only one: a route that names one while its request
/// goes to another is refused by the module. With several the module reads
/// the metadata of the cluster that was chosen.
fn forward_metadata(backends: &[WeightedCluster], model: &Model) -> Option<Metadata> {
    let [only] = backends else { return None };
    let cluster = model.clusters.get(&only.cluster)?;
    match &cluster.transport {
        Transport::Adit(target) => Some(clusters::metadata(target, cluster.protocol)),
        Transport::Raw(_) | Transport::Tls { .. } => None,
    }
}

fn forward(route: &Route, backends: &[WeightedCluster], rewrite: &Rewrite) -> RouteActionKind {
    let plain = |b: &WeightedCluster| {
        b.request_headers == HeaderChanges::default()
            && b.response_headers == HeaderChanges::default()
    };
    let cluster = match backends {
        [only] if plain(only) => ClusterSpecifier::Cluster(only.cluster.to_string()),
        several => ClusterSpecifier::WeightedClusters {
            clusters: several
                .iter()
                .map(|b| ClusterWeight {
                    name: b.cluster.to_string(),
                    weight: b.weight,
                    headers: mutations(&b.request_headers, &b.response_headers),
                })
                .collect(),
        },
    };
    let upgrade_configs = match route.matches.target {
        RequestTarget::Connect => {
            vec![Upgrade {
                upgrade_type: "CONNECT",
                connect_config: Some(Empty {}),
            }]
        }
        RequestTarget::Path { .. } => Vec::new(),
    };
    let path = rewrite.path.as_ref();
    RouteActionKind::Route(Box::new(RouteAction {
        cluster,
        rewrite: path
            .map(|p| path_rewrite(&route.matches, p))
            .unwrap_or_default(),
        host_rewrite_literal: rewrite.hostname.clone(),
        timeout: FOREVER,
        idle_timeout: FOREVER,
        retry_policy: RetryPolicy {
            // A failed connect sent nothing, so this is safe for any method.
            retry_on: "connect-failure",
            num_retries: 2,
            retry_back_off: BackOff {
                base_interval: "0.005s",
                max_interval: "0.050s",
            },
        },
        upgrade_configs,
    }))
}

fn route_match(m: &RouteMatch) -> xds::RouteMatch {
    let (path, method) = match &m.target {
        RequestTarget::Connect => (PathSpecifier::ConnectMatcher {}, None),
        RequestTarget::Path {
            kind,
            value,
            method,
        } => {
            let path = match kind {
                PathMatchType::Exact => PathSpecifier::Path(value.clone()),
                PathMatchType::PathPrefix if value.is_empty() => PathSpecifier::Prefix("/".into()),
                PathMatchType::PathPrefix => PathSpecifier::PathSeparatedPrefix(value.clone()),
                PathMatchType::RegularExpression => PathSpecifier::SafeRegex(regex(value)),
            };
            (path, method.as_ref())
        }
    };
    let method = method.map(|method| ValueMatcher {
        name: ":method".into(),
        string_match: StringMatch::Exact(method.clone()),
    });
    xds::RouteMatch {
        path,
        headers: method
            .into_iter()
            .chain(m.headers.iter().map(condition))
            .collect(),
        query_parameters: m.query.iter().map(condition).collect(),
    }
}

fn condition(c: &Condition) -> ValueMatcher {
    let string_match = match c.kind {
        MatchType::Exact => StringMatch::Exact(c.value.clone()),
        MatchType::RegularExpression => StringMatch::SafeRegex(regex(&c.value)),
    };
    ValueMatcher {
        name: c.name.clone(),
        string_match,
    }
}

fn regex(text: &str) -> Regex {
    Regex {
        regex: text.to_owned(),
    }
}

fn path_rewrite(matches: &RouteMatch, change: &PathChange) -> PathRewrite {
    let by_expression = |expression: String, path: &str| PathRewrite {
        regex_rewrite: Some(RegexRewrite {
            pattern: regex(&expression),
            // A backslash would begin a reference to a group.
            substitution: path.replace('\\', r"\\"),
        }),
        ..PathRewrite::default()
    };
    match change {
        PathChange::Full(path) => by_expression("^/.*$".into(), path),
        PathChange::Prefix(new) => {
            let old = match &matches.target {
                RequestTarget::Path { value, .. } => value.as_str(),
                RequestTarget::Connect => "",
            };
            match (old, new.as_str()) {
                ("", "") => PathRewrite::default(),
                // Envoy takes an empty replacement for none, and cutting the
                // prefix only would leave an empty path.
                (old, "") => by_expression(format!("^{}/*", escape(old)), "/"),
                ("", new) => PathRewrite {
                    prefix_rewrite: Some(format!("{new}/")),
                    ..PathRewrite::default()
                },
                (_, new) => PathRewrite {
                    prefix_rewrite: Some(new.to_owned()),
                    ..PathRewrite::default()
                },
            }
        }
    }
}

/// A text as an expression that matches it alone.
fn escape(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let special = r"\.+*?()|[]{}^$".contains(c);
            special.then_some('\\').into_iter().chain([c])
        })
        .collect()
}

fn redirect(matches: &RouteMatch, redirect: &Redirect) -> RouteActionKind {
    let (path_redirect, rewrite) = match &redirect.path {
        None => (None, PathRewrite::default()),
        Some(PathChange::Full(path)) => (Some(path.clone()), PathRewrite::default()),
        Some(change) => (None, path_rewrite(matches, change)),
    };
    RouteActionKind::Redirect(RedirectAction {
        scheme_redirect: redirect.scheme.clone(),
        host_redirect: redirect.hostname.clone(),
        port_redirect: redirect.port,
        path_redirect,
        rewrite,
        response_code: match redirect.status {
            301 => "MOVED_PERMANENTLY",
            303 => "SEE_OTHER",
            307 => "TEMPORARY_REDIRECT",
            308 => "PERMANENT_REDIRECT",
            _ => "FOUND",
        },
    })
}

fn mutations(request: &HeaderChanges, response: &HeaderChanges) -> HeaderMutations {
    HeaderMutations {
        request_headers_to_add: additions(request),
        request_headers_to_remove: request.remove.clone(),
        response_headers_to_add: additions(response),
        response_headers_to_remove: response.remove.clone(),
    }
}

fn additions(changes: &HeaderChanges) -> Vec<HeaderOption> {
    let option = |append_action: &'static str| {
        move |(key, value): &(String, String)| HeaderOption {
            header: HeaderValue {
                key: key.clone(),
                value: literal(value),
            },
            append_action,
        }
    };
    let set = changes.set.iter().map(option("OVERWRITE_IF_EXISTS_OR_ADD"));
    set.chain(changes.add.iter().map(option("APPEND_IF_EXISTS_OR_ADD")))
        .collect()
}
