//! Rules of Connector, ConnectorAdvertisement and ConnectorClass.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use adit_wire::{EndpointId, Host};

use super::{Checker, text};
use crate::{
    ConnectorHint, Problem,
    networking::{
        ConnectionDetailsType, Connector, ConnectorAdvertisement, ConnectorClass, PublicKeyDetails,
    },
};

/// Checks a Connector.
pub fn connector(object: &Connector) -> Vec<Problem> {
    let mut problems = Vec::new();
    let root = &mut Checker::new("", &mut problems);
    name(root, object.metadata.name.as_deref());
    if object.spec.connector_class_name.is_empty() {
        root.field("spec.connectorClassName")
            .invalid("the name of a ConnectorClass is needed");
    }
    let capabilities = &object.spec.capabilities;
    root.at_most("spec.capabilities", capabilities.len(), 16);
    let mut types = BTreeSet::new();
    for (i, capability) in capabilities.iter().enumerate() {
        if !types.insert(&capability.type_) {
            root.item("spec.capabilities", i)
                .invalid("this capability is listed twice");
        }
    }
    let details = object
        .status
        .as_ref()
        .and_then(|s| s.connection_details.as_ref());
    if let Some(details) = details {
        let at = &mut root.field("status.connectionDetails");
        match (&details.type_, &details.public_key) {
            (ConnectionDetailsType::PublicKey, Some(key)) => {
                public_key(&mut at.field("publicKey"), key);
            }
            (ConnectionDetailsType::PublicKey, None) => {
                at.invalid("publicKey is needed when type is PublicKey");
            }
        }
    }
    for (i, id) in object
        .status
        .iter()
        .flat_map(|s| &s.allowed_dialers)
        .enumerate()
    {
        if let Err(e) = id.parse::<EndpointId>() {
            root.item("status.allowedDialers", i).invalid(e.to_string());
        }
    }
    problems
}

fn public_key(at: &mut Checker<'_>, key: &PublicKeyDetails) {
    if let Err(e) = key.id.parse::<EndpointId>() {
        at.field("id").invalid(e.to_string());
    }
    if !key.home_relay.is_empty() && !is_relay(&key.home_relay) {
        at.field("homeRelay")
            .invalid("a relay is a URL such as https://relay.example");
    }
    at.at_most("addresses", key.addresses.len(), 16);
    for (i, address) in key.addresses.iter().enumerate() {
        let at = &mut at.item("addresses", i);
        if address.address.parse::<IpAddr>().is_err() {
            at.field("address").invalid("not an IP address");
        }
        if !(1..=65535).contains(&address.port) {
            at.field("port").invalid("a port is between 1 and 65535");
        }
    }
}

fn is_relay(text: &str) -> bool {
    url::Url::parse(text).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
    })
}

/// What a connector that passed [`connector`] says about where it is.
pub fn connection_details(object: &Connector) -> Option<ConnectorHint> {
    let details = object.status.as_ref()?.connection_details.as_ref()?;
    let key = details.public_key.as_ref()?;
    let addresses = key.addresses.iter().filter_map(|a| {
        let port = u16::try_from(a.port).ok()?;
        Some(SocketAddr::new(a.address.parse().ok()?, port))
    });
    Some(ConnectorHint {
        endpoint_id: key.id.parse().ok()?,
        relay: Some(key.home_relay.clone()).filter(|r| !r.is_empty()),
        addresses: addresses.collect(),
    })
}

/// Checks a ConnectorAdvertisement.
pub fn advertisement(object: &ConnectorAdvertisement) -> Vec<Problem> {
    let mut problems = Vec::new();
    let root = &mut Checker::new("", &mut problems);
    name(root, object.metadata.name.as_deref());
    if object.spec.connector_ref.name.is_empty() {
        root.field("spec.connectorRef.name")
            .invalid("the name of a Connector is needed");
    }
    root.at_most("spec.layer4", object.spec.layer4.len(), 16);
    for (i, group) in object.spec.layer4.iter().enumerate() {
        let at = &mut root.item("spec.layer4", i);
        at.at_most("services", group.services.len(), 16);
        for (j, service) in group.services.iter().enumerate() {
            let at = &mut at.item("services", j);
            if let Err(e) = advertised_address(&service.address) {
                at.field("address").invalid(e);
            }
            at.at_most("ports", service.ports.len(), 16);
            for (k, port) in service.ports.iter().enumerate() {
                let at = &mut at.item("ports", k);
                if !(1..=65535).contains(&port.port) {
                    at.field("port").invalid("a port is between 1 and 65535");
                }
                if !["TCP", "UDP"]
                    .iter()
                    .any(|p| port.protocol.eq_ignore_ascii_case(p))
                {
                    at.field("protocol").invalid("a protocol is TCP or UDP");
                }
            }
        }
    }
    problems
}

/// Reads an advertised address: any host (`None`), names below a suffix, or
/// one host. The boolean says that the host is a suffix.
pub fn advertised_address(address: &str) -> Result<Option<(Host, bool)>, String> {
    if address == "*" {
        return Ok(None);
    }
    let (host, suffix) = match address.strip_prefix("*.") {
        Some(suffix) => (suffix, true),
        None => (address, false),
    };
    match host.parse::<Host>() {
        Ok(Host::Ip(_)) if suffix => Err("a wildcard stands before a name, as in *.example".into()),
        Ok(host) => Ok(Some((host, suffix))),
        Err(e) => Err(e.to_string()),
    }
}

/// Checks a ConnectorClass.
pub fn class(object: &ConnectorClass) -> Vec<Problem> {
    let mut problems = Vec::new();
    let root = &mut Checker::new("", &mut problems);
    name(root, object.metadata.name.as_deref());
    if object.spec.controller_name.is_empty() {
        root.field("spec.controllerName")
            .invalid("a controller's name is needed");
    }
    problems
}

fn name(root: &mut Checker<'_>, name: Option<&str>) {
    let at = &mut root.field("metadata.name");
    at.check(text::subdomain(name.unwrap_or_default()));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> T {
        serde_json::from_value(value).expect("well formed")
    }

    fn paths(problems: &[Problem]) -> Vec<&str> {
        problems.iter().map(|p| p.path.as_str()).collect()
    }

    #[test]
    fn a_connector_with_wrong_details_names_each_field() {
        let object: Connector = read(json!({
            "apiVersion": "networking.datumapis.com/v1alpha1", "kind": "Connector",
            "metadata": {"name": "Shop"},
            "spec": {"connectorClassName": "", "capabilities": [{"type": "ConnectTCP"}, {"type": "ConnectTCP"}]},
            "status": {
                "connectionDetails": {"type": "PublicKey", "publicKey": {
                    "id": "abc", "homeRelay": "relay.example", "discoveryMode": "DNS",
                    "addresses": [{"address": "host", "port": 0}]}},
                "allowedDialers": ["x"],
            },
        }));
        assert_eq!(
            paths(&connector(&object)),
            [
                "metadata.name",
                "spec.connectorClassName",
                "spec.capabilities[1]",
                "status.connectionDetails.publicKey.id",
                "status.connectionDetails.publicKey.homeRelay",
                "status.connectionDetails.publicKey.addresses[0].address",
                "status.connectionDetails.publicKey.addresses[0].port",
                "status.allowedDialers[0]",
            ]
        );
        assert_eq!(connection_details(&object), None);
    }

    #[test]
    fn connection_details_become_a_hint() {
        let id = EndpointId::from_bytes([1; 32]);
        let object: Connector = read(json!({
            "apiVersion": "networking.datumapis.com/v1alpha1", "kind": "Connector",
            "metadata": {"name": "shop"}, "spec": {"connectorClassName": "datum-connect"},
            "status": {"connectionDetails": {"type": "PublicKey", "publicKey": {
                "id": id.to_string(), "addresses": [{"address": "::1", "port": 7}]}}},
        }));
        assert_eq!(connector(&object), []);
        let hint = connection_details(&object).expect("details");
        assert_eq!(hint.endpoint_id, id);
        assert_eq!(hint.relay, None);
        assert_eq!(hint.addresses, ["[::1]:7".parse().expect("valid")]);
    }

    #[test]
    fn an_advertisement_with_wrong_services_names_each_field() {
        let object: ConnectorAdvertisement = read(json!({
            "apiVersion": "networking.datumapis.com/v1alpha1", "kind": "ConnectorAdvertisement",
            "metadata": {"name": "shop"},
            "spec": {"connectorRef": {"name": ""}, "layer4": [{"name": "a", "services": [
                {"address": "0177.1", "ports": [{"name": "p", "port": 70000, "protocol": "SCTP"}]},
                {"address": "*.10.0.0.1", "ports": []},
                {"address": "*.example", "ports": [{"name": "p", "port": 1, "protocol": "tcp"}]},
            ]}]},
        }));
        let at = "spec.layer4[0].services";
        assert_eq!(
            paths(&advertisement(&object)),
            [
                "spec.connectorRef.name".to_owned(),
                format!("{at}[0].address"),
                format!("{at}[0].ports[0].port"),
                format!("{at}[0].ports[0].protocol"),
                format!("{at}[1].address"),
            ]
        );
    }
}
