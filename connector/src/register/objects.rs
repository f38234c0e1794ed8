//! The objects as this agent wants them, and whether they are so already.
//! Nothing here asks or waits.

use std::collections::{BTreeMap, BTreeSet};

use adit_api::{networking::CAPABILITY_CONNECT_TCP, validate};
use adit_wire::EndpointId;
use kube::core::DynamicObject;
use serde_json::{Map, Value, json};

use super::addresses::Details;
use crate::policy::Targets;

/// The field manager of all that the agent writes.
pub(crate) const MANAGER: &str = "adit-connector";
/// Of the kinds below.
pub(crate) const API_VERSION: &str = "networking.datumapis.com/v1alpha1";
/// The condition that says that two agents want to be this Connector.
pub(crate) const CONFLICT: &str = "AgentConflict";

/// Each list of an advertisement holds so many at most (the API's bounds).
const MAX_LIST: usize = 16;
/// More dialers than any deployment has; the rest is ignored.
const MAX_DIALERS: usize = 4096;

/// What the agent is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The Connector's name, and its advertisement's.
    pub name: String,
    /// The ConnectorClass.
    pub class: String,
    /// Labels of the Connector.
    pub labels: BTreeMap<String, String>,
    /// The machine's name.
    pub device_name: String,
    /// Its operating system.
    pub device_os: String,
}

/// The Connector as the API server has it.
#[derive(Debug, Clone)]
pub(crate) struct Seen(pub(crate) DynamicObject);

impl Identity {
    /// The Connector to apply. `disabled` is not named: an administrator may
    /// set it, and keeps it.
    pub(crate) fn connector(&self) -> Value {
        json!({
            "apiVersion": API_VERSION,
            "kind": "Connector",
            "metadata": {"name": self.name, "labels": self.labels},
            "spec": {
                "connectorClassName": self.class,
                "capabilities": [{"type": CAPABILITY_CONNECT_TCP}],
            },
        })
    }

    /// Whether the Connector is as [`Identity::connector`] says.
    pub(crate) fn is_written(&self, seen: &Seen) -> bool {
        let labels = seen.0.metadata.labels.as_ref();
        let spec = &seen.0.data["spec"];
        let label = |(key, value)| labels.is_some_and(|l| l.get(key) == Some(value));
        self.labels.iter().all(label)
            && spec["connectorClassName"] == self.class.as_str()
            && find(&spec["capabilities"], CAPABILITY_CONNECT_TCP).is_some()
    }

    /// The part of the status that is the agent's. `now` is for conditions
    /// that change.
    pub(crate) fn status(
        &self,
        seen: &Seen,
        details: &Details,
        contender: Option<&str>,
        now: &str,
    ) -> Value {
        let addresses = details.addresses.iter();
        let addresses: Vec<_> = addresses
            .map(|a| json!({"address": a.ip().to_string(), "port": a.port()}))
            .collect();
        let mut key = json!({
            "id": details.id,
            "discoveryMode": "DNS",
            "addresses": addresses,
        });
        if let Some(relay) = &details.relay {
            key["homeRelay"] = json!(relay);
        }
        let generation = seen.0.metadata.generation;
        let old = &seen.0.data["status"];
        let capability = seen.tcp_disabled();
        let works = match capability {
            false => ("True", "Enabled", "TCP tunnels are served."),
            true => (
                "False",
                "Disabled",
                "spec.capabilities disables TCP tunnels: set connectTCP.disabled to false to allow them.",
            ),
        };
        let old_capability = find(&old["capabilities"], CAPABILITY_CONNECT_TCP);
        let old_capability = old_capability.map_or(&Value::Null, |c| &c["conditions"]);
        let mut status = json!({
            "connectionDetails": {"type": "PublicKey", "publicKey": key},
            "capabilities": [{
                "type": CAPABILITY_CONNECT_TCP,
                "conditions": [condition(old_capability, "Ready", works, generation, now)],
            }],
            "device": {"name": self.device_name, "os": self.device_os},
        });
        if let Some(contender) = contender {
            let text = format!(
                "The agent {contender:?} also wants to be this Connector and stands back. Stop one of \
                 the two, or give one another --name and --key-file."
            );
            let conflict = ("True", "SecondAgent", text.as_str());
            status["conditions"] = json!([condition(
                &old["conditions"],
                CONFLICT,
                conflict,
                generation,
                now
            )]);
        }
        status
    }

    /// The object to apply for a status.
    pub(crate) fn with_status(&self, status: &Value) -> Value {
        json!({
            "apiVersion": API_VERSION,
            "kind": "Connector",
            "metadata": {"name": self.name},
            "status": status,
        })
    }

    /// The advertisement of what may be asked for, and what is left out.
    pub(crate) fn advertisement(&self, targets: &Targets) -> (Value, Vec<String>) {
        let (layer4, left_out) = layer4(targets);
        let mut spec = json!({"connectorRef": {"name": self.name}});
        if !layer4.is_empty() {
            spec["layer4"] = Value::Array(layer4);
        }
        let object = json!({
            "apiVersion": API_VERSION,
            "kind": "ConnectorAdvertisement",
            "metadata": {"name": self.name},
            "spec": spec,
        });
        (object, left_out)
    }
}

impl Seen {
    pub(crate) fn uid(&self) -> &str {
        self.0.metadata.uid.as_deref().unwrap_or_default()
    }

    /// The name of its Lease: as its controller says, or its own.
    pub(crate) fn lease(&self) -> &str {
        let said = self.0.data["status"]["leaseRef"]["name"].as_str();
        let own = self.0.metadata.name.as_deref().unwrap_or_default();
        said.unwrap_or(own)
    }

    /// The key that its status names.
    pub(crate) fn key(&self) -> Option<&str> {
        let key = &self.0.data["status"]["connectionDetails"]["publicKey"]["id"];
        key.as_str().filter(|key| !key.is_empty())
    }

    /// Whether the status holds all of `ours`, and no conflict that is over.
    pub(crate) fn has_status(&self, ours: &Value) -> bool {
        let status = &self.0.data["status"];
        let stale = ours["conditions"].is_null() && find(&status["conditions"], CONFLICT).is_some();
        let relay = |of: &Value| of["connectionDetails"]["publicKey"]["homeRelay"].clone();
        holds(status, ours) && relay(status) == relay(ours) && !stale
    }

    /// The dialers that the controller lets in. `None` when it has not spoken
    /// on this object yet, as after its creation: that is no empty list.
    pub(crate) fn dialers(&self) -> Option<(BTreeSet<EndpointId>, usize)> {
        let status = &self.0.data["status"];
        let list = status["allowedDialers"].as_array();
        let list = list.map(Vec::as_slice).unwrap_or_default();
        let accepted = find(&status["conditions"], "Accepted");
        let spoken =
            accepted.is_some_and(|c| matches!(c["status"].as_str(), Some("True" | "False")));
        if list.is_empty() && !spoken {
            return None;
        }
        let ids: BTreeSet<EndpointId> = list
            .iter()
            .take(MAX_DIALERS)
            .filter_map(|id| id.as_str()?.parse().ok())
            .filter(|id: &EndpointId| iroh::PublicKey::from_bytes(id.as_bytes()).is_ok())
            .collect();
        let ignored = list.len() - ids.len();
        Some((ids, ignored))
    }

    fn tcp_disabled(&self) -> bool {
        find(&self.0.data["spec"]["capabilities"], CAPABILITY_CONNECT_TCP)
            .is_some_and(|c| c["connectTCP"]["disabled"] == true)
    }
}

/// A condition whose time is the old one's unless its status changes.
fn condition(
    old: &Value,
    type_: &str,
    (status, reason, message): (&str, &str, &str),
    generation: Option<i64>,
    now: &str,
) -> Value {
    let old = find(old, type_).filter(|c| c["status"] == status);
    let since = old.and_then(|c| c["lastTransitionTime"].as_str());
    json!({
        "type": type_,
        "status": status,
        "reason": reason,
        "message": message,
        "observedGeneration": generation.unwrap_or(0),
        "lastTransitionTime": since.unwrap_or(now),
    })
}

/// The item of this `type` in a list.
fn find<'a>(list: &'a Value, type_: &str) -> Option<&'a Value> {
    list.as_array()?.iter().find(|item| item["type"] == type_)
}

/// Whether all of `ours` is in `theirs`. Lists whose items have a `type` may
/// hold other writers' items; other lists must be equal.
fn holds(theirs: &Value, ours: &Value) -> bool {
    match (theirs, ours) {
        (Value::Object(theirs), Value::Object(ours)) => {
            let theirs = |key: &String| theirs.get(key).unwrap_or(&Value::Null);
            ours.iter().all(|(key, own)| holds(theirs(key), own))
        }
        (theirs @ Value::Array(list), Value::Array(ours)) => {
            let keyed = !ours.is_empty() && ours.iter().all(|item| item["type"].is_string());
            if keyed {
                ours.iter().all(|own| {
                    let type_ = own["type"].as_str().unwrap_or_default();
                    find(theirs, type_).is_some_and(|item| holds(item, own))
                })
            } else {
                list.len() == ours.len() && list.iter().zip(ours).all(|(a, b)| holds(a, b))
            }
        }
        // An empty list is not stored by everybody.
        (Value::Null, Value::Array(ours)) => ours.is_empty(),
        (theirs, ours) => theirs == ours,
    }
}

/// What may be asked for as `layer4`, in lists that are short enough, and what
/// does not fit or cannot be said.
fn layer4(targets: &Targets) -> (Vec<Value>, Vec<String>) {
    let mut left_out = Vec::new();
    let mut by_address: BTreeMap<String, BTreeSet<u16>> = BTreeMap::new();
    for (address, port) in targets.requests() {
        match validate::advertised_address(&address) {
            Ok(_) => drop(by_address.entry(address).or_default().insert(port)),
            Err(_) => left_out.push(format!("{address}:{port}")),
        }
    }
    let mut services = Vec::new();
    for (address, ports) in by_address {
        let ports: Vec<_> = ports.into_iter().collect();
        for ports in ports.chunks(MAX_LIST) {
            if services.len() == MAX_LIST * MAX_LIST {
                left_out.extend(ports.iter().map(|port| format!("{address}:{port}")));
                continue;
            }
            let ports: Vec<_> = ports
                .iter()
                .map(|port| json!({"name": format!("tcp-{port}"), "port": port, "protocol": "TCP"}))
                .collect();
            services.push(json!({"address": address, "ports": ports}));
        }
    }
    let groups = services.chunks(MAX_LIST).enumerate();
    let groups = groups.map(|(i, services)| {
        let mut group = Map::new();
        group.insert("name".into(), json!(format!("targets-{}", i + 1)));
        group.insert("services".into(), json!(services));
        Value::Object(group)
    });
    (groups.collect(), left_out)
}

#[cfg(test)]
mod tests;
