//! Route configurations.

#![allow(missing_docs, reason = "the fields are those of Envoy's API reference")]

use serde::Serialize;

use super::{Empty, Metadata};

/// `route.v3.RouteConfiguration`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RouteConfiguration {
    pub name: String,
    pub ignore_port_in_host_matching: bool,
    pub virtual_hosts: Vec<VirtualHost>,
}

/// `route.v3.VirtualHost`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VirtualHost {
    pub name: String,
    pub domains: Vec<String>,
    pub routes: Vec<Route>,
}

/// `route.v3.Route`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Route {
    pub name: String,
    #[serde(rename = "match")]
    pub match_: RouteMatch,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Metadata>,
    #[serde(flatten)]
    pub action: RouteActionKind,
    #[serde(flatten)]
    pub headers: HeaderMutations,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_body_buffer_limit: Option<u64>,
}

/// What a route does: one of the three.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RouteActionKind {
    Route(Box<RouteAction>),
    Redirect(RedirectAction),
    DirectResponse { status: u16 },
}

/// `route.v3.RouteMatch`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RouteMatch {
    #[serde(flatten)]
    pub path: PathSpecifier,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<ValueMatcher>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub query_parameters: Vec<ValueMatcher>,
}

/// One of the ways to match a path.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PathSpecifier {
    Path(String),
    Prefix(String),
    PathSeparatedPrefix(String),
    SafeRegex(Regex),
    ConnectMatcher {},
}

/// `type.matcher.v3.RegexMatcher`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Regex {
    pub regex: String,
}

/// `route.v3.HeaderMatcher` and `QueryParameterMatcher`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ValueMatcher {
    pub name: String,
    pub string_match: StringMatch,
}

/// `type.matcher.v3.StringMatcher`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StringMatch {
    Exact(String),
    SafeRegex(Regex),
}

/// `route.v3.RouteAction`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RouteAction {
    #[serde(flatten)]
    pub cluster: ClusterSpecifier,
    #[serde(flatten)]
    pub rewrite: PathRewrite,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_rewrite_literal: Option<String>,
    pub timeout: &'static str,
    pub idle_timeout: &'static str,
    pub retry_policy: RetryPolicy,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub upgrade_configs: Vec<Upgrade>,
}

/// One cluster or several.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ClusterSpecifier {
    Cluster(String),
    WeightedClusters { clusters: Vec<ClusterWeight> },
}

/// `route.v3.WeightedCluster.ClusterWeight`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClusterWeight {
    pub name: String,
    pub weight: u32,
    #[serde(flatten)]
    pub headers: HeaderMutations,
}

/// The path rewrite of a route or redirect: at most one of them.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct PathRewrite {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix_rewrite: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regex_rewrite: Option<RegexRewrite>,
}

/// `type.matcher.v3.RegexMatchAndSubstitute`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RegexRewrite {
    pub pattern: Regex,
    pub substitution: String,
}

/// `route.v3.RetryPolicy`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RetryPolicy {
    pub retry_on: &'static str,
    pub num_retries: u32,
    pub retry_back_off: BackOff,
}

/// `route.v3.RetryPolicy.RetryBackOff`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BackOff {
    pub base_interval: &'static str,
    pub max_interval: &'static str,
}

/// `UpgradeConfig` of a route or of the connection manager.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Upgrade {
    pub upgrade_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_config: Option<Empty>,
}

/// `route.v3.RedirectAction`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RedirectAction {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheme_redirect: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_redirect: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port_redirect: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_redirect: Option<String>,
    #[serde(flatten)]
    pub rewrite: PathRewrite,
    pub response_code: &'static str,
}

/// Header changes of a route or of one of its clusters.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct HeaderMutations {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub request_headers_to_add: Vec<HeaderOption>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub request_headers_to_remove: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub response_headers_to_add: Vec<HeaderOption>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub response_headers_to_remove: Vec<String>,
}

/// `core.v3.HeaderValueOption`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HeaderOption {
    pub header: HeaderValue,
    pub append_action: &'static str,
}

/// `core.v3.HeaderValue`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HeaderValue {
    pub key: String,
    pub value: String,
}
