//! Which connectors serve a backend, in which order.

use std::collections::BTreeSet;

use adit_api::{
    ConnectorHint, Endpoint, LabelSelector, Problem, Reason, ResourceExt as _, labels,
    networking::{CAPABILITY_CONNECT_TCP, Connector, ConnectorAdvertisement, ConnectorReference},
    validate,
};
use adit_wire::{Host, HostPort, MAX_CONNECTORS};

use super::{Compiler, Index};

/// Why one connector cannot serve.
pub(super) struct Unfit {
    reason: Reason,
    message: String,
}

impl Compiler<'_> {
    /// The connectors of a reference that can serve the endpoint: the oldest
    /// first, then by name. Those that cannot are left out and said.
    pub(super) fn select(
        &self,
        namespace: &str,
        reference: &ConnectorReference,
        endpoint: &Endpoint,
        path: &str,
        problems: &mut Vec<Problem>,
    ) -> Vec<ConnectorHint> {
        let candidates = self.candidates(namespace, reference);
        if candidates.is_empty() {
            let message = match (&reference.name, &reference.selector) {
                (Some(name), _) => {
                    format!("Connector {name:?} not found in namespace {namespace:?}")
                }
                (None, selector) => format!(
                    "no Connector in namespace {namespace:?} has the labels {}",
                    selector.as_ref().map(show_selector).unwrap_or_default()
                ),
            };
            problems.push(Problem::error(path, Reason::ConnectorNotFound, message));
            return Vec::new();
        }
        let mut fit: Vec<ConnectorHint> = Vec::new();
        let mut taken = BTreeSet::new();
        let mut unfit = Vec::new();
        for connector in candidates {
            match self.index.judge(connector, &endpoint.address) {
                Ok(hint) if !taken.insert(hint.endpoint_id) => {}
                Ok(hint) => fit.push(hint),
                Err(why) => unfit.push(why),
            }
        }
        if fit.len() > MAX_CONNECTORS {
            let message = format!(
                "{} connectors match; the first {MAX_CONNECTORS} are used",
                fit.len()
            );
            problems.push(Problem::warning(path, Reason::Unsupported, message));
            fit.truncate(MAX_CONNECTORS);
        }
        for Unfit { reason, message } in unfit {
            problems.push(match fit.is_empty() {
                true => Problem::error(path, reason, message),
                false => Problem::warning(path, reason, format!("{message}; the others serve")),
            });
        }
        fit
    }

    fn candidates(&self, namespace: &str, reference: &ConnectorReference) -> Vec<&Connector> {
        match (&reference.name, &reference.selector) {
            (Some(name), _) => self.index.connector(namespace, name).into_iter().collect(),
            (None, Some(selector)) => {
                let all = self.index.connectors(namespace).iter().copied();
                all.filter(|c| selects(selector, c)).collect()
            }
            (None, None) => Vec::new(),
        }
    }
}

impl Index<'_> {
    /// Whether a connector serves a service, and how it is reached.
    pub(super) fn judge(
        &self,
        connector: &Connector,
        service: &HostPort,
    ) -> Result<ConnectorHint, Unfit> {
        let name = connector.name_any();
        let unfit = |reason, message| Err(Unfit { reason, message });
        let class = &connector.spec.connector_class_name;
        if !self.has_class(class) {
            return unfit(
                Reason::ConnectorClassNotFound,
                format!("Connector {name:?}: ConnectorClass {class:?} not found"),
            );
        }
        if tcp_disabled(connector) {
            return unfit(
                Reason::CapabilityDisabled,
                format!("Connector {name:?} has the capability {CAPABILITY_CONNECT_TCP} disabled"),
            );
        }
        let namespace = connector.namespace().unwrap_or_default();
        let mut advertisements = self.advertisements(&namespace, &name).iter();
        if !advertisements.any(|a| covers(a, service)) {
            return unfit(
                Reason::NotAdvertised,
                format!(
                    "Connector {name:?} does not advertise {service} (TCP); add it to a ConnectorAdvertisement of this connector"
                ),
            );
        }
        validate::connection_details(connector).ok_or_else(|| Unfit {
            reason: Reason::ConnectorNotReady,
            message: format!("Connector {name:?} has no status.connectionDetails yet: its agent has not said how to reach it"),
        })
    }
}

fn tcp_disabled(connector: &Connector) -> bool {
    let in_spec = connector.spec.capabilities.iter().any(|c| {
        c.type_ == CAPABILITY_CONNECT_TCP && c.connect_tcp.as_ref().is_some_and(|t| t.disabled)
    });
    let denied = connector
        .status
        .iter()
        .flat_map(|s| &s.capabilities)
        .any(|c| {
            c.type_ == CAPABILITY_CONNECT_TCP && c.conditions.iter().any(|c| c.status == "False")
        });
    in_spec || denied
}

/// Whether an advertisement offers the service's host and port over TCP.
fn covers(advertisement: &ConnectorAdvertisement, wanted: &HostPort) -> bool {
    let services = advertisement
        .spec
        .layer4
        .iter()
        .flat_map(|group| &group.services);
    services.into_iter().any(|service| {
        let port = service
            .ports
            .iter()
            .any(|p| p.port == i32::from(wanted.port) && p.protocol.eq_ignore_ascii_case("TCP"));
        let host = match validate::advertised_address(&service.address) {
            Ok(None) => true,
            Ok(Some((host, false))) => host == wanted.host,
            Ok(Some((suffix, true))) => below(&wanted.host, &suffix),
            Err(_) => false,
        };
        port && host
    })
}

/// Whether a name has at least one label more than the suffix.
fn below(host: &Host, suffix: &Host) -> bool {
    let (Host::Name(name), Host::Name(suffix)) = (host, suffix) else {
        return false;
    };
    name.strip_suffix(suffix.as_str())
        .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
}

/// Whether a selector means a connector.
pub fn selects(selector: &LabelSelector, connector: &Connector) -> bool {
    let equal = selector.match_labels.iter().flatten();
    let requirements = selector.match_expressions.iter().flatten();
    labels::selected(connector.labels(), equal, requirements.map(Into::into))
}

fn show_selector(selector: &LabelSelector) -> String {
    let equal = selector
        .match_labels
        .iter()
        .flatten()
        .map(|(k, v)| format!("{k}={v}"));
    let other = selector.match_expressions.iter().flatten().map(|e| {
        let values = e
            .values
            .iter()
            .flatten()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(",");
        format!("{} {} [{values}]", e.key, e.operator)
    });
    equal.chain(other).collect::<Vec<_>>().join(" and ")
}
