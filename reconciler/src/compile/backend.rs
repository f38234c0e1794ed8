//! A rule's backends become clusters.

use adit_api::{
    Endpoint, Problem, Reason, Scheme,
    networking::{Backend, FilterType, Rule},
};
use adit_wire::{Host, Protocol, Target, Tls};

use super::{Built, Compiler, Output, route};
use crate::{
    ObjectKey,
    model::{Action, Cluster, ClusterName, Transport, UpstreamProtocol, WeightedCluster},
};

impl Compiler<'_> {
    /// What a rule does: whether it serves CONNECT, what becomes of its
    /// requests, and their header changes.
    pub(super) fn rule(
        &mut self,
        key: &ObjectKey,
        owner: &str,
        path: &str,
        rule: &Rule,
        problems: &mut Vec<Problem>,
    ) -> Built {
        let (request_headers, response_headers) = route::header_changes(&rule.filters);
        let tunnel = rule.backends.iter().any(is_tcp);
        let redirects = rule
            .filters
            .iter()
            .any(|f| f.type_ == FilterType::RequestRedirect);
        let action = match route::redirect(&rule.filters) {
            Some(redirect) if redirects => Action::Redirect(redirect),
            _ => self.forward(key, owner, path, rule, problems),
        };
        (tunnel, action, request_headers, response_headers)
    }

    fn forward(
        &mut self,
        key: &ObjectKey,
        owner: &str,
        path: &str,
        rule: &Rule,
        problems: &mut Vec<Problem>,
    ) -> Action {
        let mut backends: Vec<WeightedCluster> = Vec::new();
        for (i, backend) in rule.backends.iter().enumerate() {
            let path = format!("{path}.backends[{i}]");
            let weight = u32::try_from(backend.weight.unwrap_or(1)).unwrap_or_default();
            let found = self.backend(key, owner, &path, backend, problems);
            let Some(cluster) = found.filter(|_| weight > 0) else {
                continue;
            };
            let name = self.add(cluster);
            let (request_headers, response_headers) = route::header_changes(&backend.filters);
            let entry = WeightedCluster {
                cluster: name,
                weight,
                request_headers,
                response_headers,
            };
            let same = |b: &&mut WeightedCluster| {
                b.cluster == entry.cluster
                    && b.request_headers == entry.request_headers
                    && b.response_headers == entry.response_headers
            };
            match backends.iter_mut().find(same) {
                Some(first) => first.weight = first.weight.saturating_add(weight),
                None => backends.push(entry),
            }
        }
        if backends.is_empty() {
            return Action::Misconfigured;
        }
        Action::Forward {
            backends,
            rewrite: route::rewrite(&rule.filters),
        }
    }

    fn add(&mut self, cluster: Cluster) -> ClusterName {
        let name = cluster.name();
        self.model.clusters.insert(name.clone(), cluster);
        name
    }

    fn backend(
        &mut self,
        key: &ObjectKey,
        owner: &str,
        path: &str,
        backend: &Backend,
        problems: &mut Vec<Problem>,
    ) -> Option<Cluster> {
        // Checked by the validation of the object, for each field.
        let endpoint: Endpoint = backend.endpoint.as_deref()?.parse().ok()?;
        let protocol = match endpoint.scheme {
            Scheme::Http | Scheme::Https => UpstreamProtocol::Http1,
            Scheme::H2c | Scheme::Grpc => UpstreamProtocol::Http2,
            Scheme::Tcp => UpstreamProtocol::Bytes,
            Scheme::Udp => {
                let message = "UDP is not carried yet: a tunnel is a byte stream; use tcp, http, https, h2c or grpc";
                problems.push(Problem::error(
                    format!("{path}.endpoint"),
                    Reason::UnsupportedProtocol,
                    message,
                ));
                return None;
            }
        };
        let server_name: Host = match backend.tls.as_ref().and_then(|t| t.hostname.as_deref()) {
            Some(name) => name.parse().ok()?,
            None => endpoint.address.host.clone(),
        };
        let transport = match &backend.connector {
            Some(reference) => {
                let path = format!("{path}.connector");
                let hints = self.select(&key.namespace, reference, &endpoint, &path, problems);
                if hints.is_empty() {
                    return None;
                }
                let connectors = hints.iter().map(|h| h.endpoint_id).collect();
                self.model.connectors.extend(hints);
                Transport::Adit(Target {
                    connectors,
                    service: endpoint.address,
                    protocol: match endpoint.scheme {
                        Scheme::Https => Protocol::Tls(Tls {
                            server_name,
                            ca: String::new(),
                            alpn: vec!["http/1.1".into()],
                        }),
                        _ => Protocol::Tcp,
                    },
                    deadline: self.options.deadline,
                    name: owner.into(),
                })
            }
            None if !self.reachable(&endpoint, &format!("{path}.endpoint"), problems) => {
                return None;
            }
            None if endpoint.scheme == Scheme::Https => {
                let ca_file = match &self.options.output {
                    Output::Files { ca_file } => ca_file.clone(),
                    Output::EnvoyGateway => None,
                };
                if ca_file.is_none() && self.options.output != Output::EnvoyGateway {
                    let message = "no certificate authorities to verify this service with: install ca-certificates, or give --ca-file";
                    problems.push(Problem::error(
                        format!("{path}.endpoint"),
                        Reason::Unsupported,
                        message,
                    ));
                    return None;
                }
                Transport::Tls {
                    address: endpoint.address,
                    server_name,
                    ca_file,
                }
            }
            None => Transport::Raw(endpoint.address),
        };
        Some(Cluster {
            owner: owner.into(),
            transport,
            protocol,
        })
    }
}

impl Compiler<'_> {
    /// Whether a backend without a connector can be written down at all:
    /// Envoy Gateway's Backend takes no name of one label.
    fn reachable(&self, endpoint: &Endpoint, path: &str, problems: &mut Vec<Problem>) -> bool {
        let Host::Name(name) = &endpoint.address.host else {
            return true;
        };
        let refused = self.options.output == Output::EnvoyGateway && !name.contains('.');
        if refused {
            let message = format!(
                "Envoy Gateway takes no host name of one label: write {name}.<namespace>.svc.cluster.local for a Service, or another full name"
            );
            problems.push(Problem::error(path, Reason::Unsupported, message));
        }
        !refused
    }
}

fn is_tcp(backend: &Backend) -> bool {
    let endpoint = backend
        .endpoint
        .as_deref()
        .and_then(|e| e.parse::<Endpoint>().ok());
    endpoint.is_some_and(|e| e.scheme == Scheme::Tcp)
}
