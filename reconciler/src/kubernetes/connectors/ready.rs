//! What a Connector is told about itself: pure.

use adit_api::{
    ConnectorHint,
    networking::{Connector, ConnectorClass, DEFAULT_CONTROLLER},
    validate,
};

use super::{
    super::conditions::{Conditions, State, bounded},
    liveness,
};

/// The names by which the controller of agents of this kind is known: what is
/// deployed, and what it is called now.
const CONTROLLERS: [&str; 2] = [
    DEFAULT_CONTROLLER,
    "networking.datumapis.com/iroh-quic-tunnel",
];
/// Problems that a message names.
const MAX_PROBLEMS: usize = 3;

/// The condition of a class that exists.
pub const ACCEPTED: &str = "Accepted";
/// The condition of an agent that can be reached.
pub const READY: &str = "Ready";
/// The condition of records in DNS.
pub const DNS_PUBLISHED: &str = "DNSPublished";

/// Whose a Connector is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// It names a class that does not exist.
    Missing,
    /// Its class is another controller's.
    Foreign,
    /// Its class is ours.
    Ours,
}

/// What is known of a Connector's Lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseState {
    /// It was never made.
    NotMade,
    /// The name is taken by a Lease that is not this Connector's.
    Taken,
    /// It is there.
    There(liveness::State),
}

/// Whose a Connector of this class is.
pub fn class_of(class: Option<&ConnectorClass>) -> Class {
    match class {
        None => Class::Missing,
        Some(class) if CONTROLLERS.contains(&class.spec.controller_name.as_str()) => Class::Ours,
        Some(_) => Class::Foreign,
    }
}

/// Sets `Accepted`.
pub fn accepted(conditions: &mut Conditions<'_>, connector: &Connector, class: Class) {
    let name = bounded(&connector.spec.connector_class_name, 253);
    match class {
        Class::Ours => {
            conditions.set(
                ACCEPTED,
                State::True,
                "Accepted",
                "Connector class resolved",
            );
        }
        _ if name.is_empty() => {
            let message = "connectorClassName is required";
            conditions.set(ACCEPTED, State::False, "Pending", message);
        }
        _ => {
            let message = format!(
                "ConnectorClass \"{name}\" not found: create it, or name one that exists in spec.connectorClassName"
            );
            conditions.set(ACCEPTED, State::False, "ConnectorClassNotFound", &message);
        }
    }
}

/// Sets `Ready`; whether it is.
pub fn ready(
    conditions: &mut Conditions<'_>,
    connector: &Connector,
    class: Class,
    lease: LeaseState,
    was_ready: bool,
    contested: bool,
) -> bool {
    let why_not = if class != Class::Ours {
        Some("Waiting for ConnectorClass to be resolved.".to_owned())
    } else {
        not_alive(connector, lease, was_ready).or_else(|| details(connector).err())
    };
    let ready = why_not.is_none();
    let mut message = why_not.unwrap_or_else(|| "The connector is ready to tunnel traffic.".into());
    if contested {
        message.push_str(
            " Several agents renew its Lease in turn: give each a key and a Connector of its own.",
        );
    }
    let reason = if ready {
        "ConnectorReady"
    } else {
        "ConnectorNotReady"
    };
    conditions.set(READY, ready.into(), reason, &message);
    ready
}

fn not_alive(connector: &Connector, lease: LeaseState, was_ready: bool) -> Option<String> {
    let name = connector.metadata.name.as_deref().unwrap_or_default();
    let text = match lease {
        LeaseState::NotMade => "Connector lease has not been created yet.".into(),
        LeaseState::Taken => format!(
            "A Lease {name} exists in this namespace that is not this connector's: rename the connector, or remove that Lease."
        ),
        LeaseState::There(state) if state.is_alive(was_ready) => return None,
        LeaseState::There(liveness::State::Never) => format!(
            "Connector lease has not been renewed yet: start the agent (adit connector --name {name})."
        ),
        LeaseState::There(liveness::State::Released) => {
            "The agent has ended and released its lease.".into()
        }
        LeaseState::There(_) => "Connector lease has expired. Agent may be offline.".into(),
    };
    Some(text)
}

/// Where a Connector says it is.
///
/// # Errors
/// What is missing or wrong, for a person.
pub fn details(connector: &Connector) -> Result<ConnectorHint, String> {
    let there = connector
        .status
        .as_ref()
        .and_then(|s| s.connection_details.as_ref());
    if there.is_none() {
        return Err("The agent has not reported connection details yet.".into());
    }
    const PREFIX: &str = "status.connectionDetails";
    let problems = validate::connector(connector);
    let wrong: Vec<_> = problems
        .iter()
        .filter(|p| p.path.starts_with(PREFIX))
        .take(MAX_PROBLEMS)
        .map(|p| format!("{}: {}", p.path, p.message))
        .collect();
    if !wrong.is_empty() {
        return Err(format!(
            "The agent reports connection details that are not valid: {}.",
            wrong.join("; ")
        ));
    }
    let hint = validate::connection_details(connector)
        .ok_or("The agent reports connection details without a public key.")?;
    if hint.relay.is_none() && hint.addresses.is_empty() {
        return Err(
            "The agent reports neither a relay nor an address: is it online, and may it use UDP?"
                .into(),
        );
    }
    Ok(hint)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use k8s_openapi::jiff::Timestamp;
    use serde_json::json;

    use super::*;

    const OWNED: &[&str] = &[ACCEPTED, READY];
    const FRESH: LeaseState = LeaseState::There(liveness::State::Fresh(Duration::from_secs(9)));

    fn connector(details: serde_json::Value) -> Connector {
        serde_json::from_value(json!({
            "apiVersion": "networking.datumapis.com/v1alpha1", "kind": "Connector",
            "metadata": {"name": "till"}, "spec": {"connectorClassName": "datum-connect"},
            "status": {"connectionDetails": details},
        }))
        .expect("well formed")
    }

    fn good() -> serde_json::Value {
        json!({"type": "PublicKey", "publicKey": {
            "id": "07".repeat(32), "homeRelay": "https://relay.example/", "addresses": []}})
    }

    fn said(object: &Connector, class: Class, lease: LeaseState) -> (bool, String, String) {
        let mut conditions = Conditions::new(OWNED, &[], None, Timestamp::UNIX_EPOCH);
        let ready = ready(&mut conditions, object, class, lease, false, false);
        let (list, _) = conditions.finish();
        (ready, list[0].reason.clone(), list[0].message.clone())
    }

    #[test]
    fn a_connector_is_ready_with_class_lease_and_details() {
        let object = connector(good());
        let (ready, reason, message) = said(&object, Class::Ours, FRESH);
        assert!(ready);
        assert_eq!(reason, "ConnectorReady");
        assert_eq!(message, "The connector is ready to tunnel traffic.");
    }

    #[test]
    fn each_thing_that_is_missing_has_its_message() {
        let object = connector(good());
        let there = LeaseState::There;
        for (class, lease, start) in [
            (Class::Missing, FRESH, "Waiting for ConnectorClass"),
            (
                Class::Ours,
                LeaseState::NotMade,
                "Connector lease has not been created",
            ),
            (Class::Ours, LeaseState::Taken, "A Lease till exists"),
            (
                Class::Ours,
                there(liveness::State::Never),
                "Connector lease has not been renewed",
            ),
            (
                Class::Ours,
                there(liveness::State::Expired),
                "Connector lease has expired.",
            ),
            (
                Class::Ours,
                there(liveness::State::Released),
                "The agent has ended",
            ),
        ] {
            let (ready, reason, message) = said(&object, class, lease);
            assert!(!ready);
            assert_eq!(reason, "ConnectorNotReady");
            assert!(message.starts_with(start), "{message}");
        }
    }

    #[test]
    fn connection_details_that_are_not_valid_are_not_ready_and_named() {
        for (details, part) in [
            (json!(null), "has not reported"),
            (json!({"type": "PublicKey"}), "publicKey is needed"),
            (
                json!({"type": "PublicKey", "publicKey": {"id": "xyz", "homeRelay": "https://r.example"}}),
                "publicKey.id",
            ),
            (
                json!({"type": "PublicKey", "publicKey": {"id": "07".repeat(32), "homeRelay": "relay"}}),
                "publicKey.homeRelay",
            ),
            (
                json!({"type": "PublicKey", "publicKey": {"id": "07".repeat(32),
                "addresses": [{"address": "1.2.3", "port": 7}]}}),
                "addresses[0].address",
            ),
            (
                json!({"type": "PublicKey", "publicKey": {"id": "07".repeat(32)}}),
                "neither a relay nor an address",
            ),
        ] {
            let (ready, _, message) = said(&connector(details), Class::Ours, FRESH);
            assert!(!ready && message.contains(part), "{part}: {message}");
        }
    }

    #[test]
    fn a_class_is_ours_under_either_name_and_foreign_under_any_other() {
        let class = |controller: &str| -> ConnectorClass {
            serde_json::from_value(json!({
                "apiVersion": "networking.datumapis.com/v1alpha1", "kind": "ConnectorClass",
                "metadata": {"name": "c"}, "spec": {"controllerName": controller},
            }))
            .expect("well formed")
        };
        for controller in CONTROLLERS {
            assert_eq!(class_of(Some(&class(controller))), Class::Ours);
        }
        assert_eq!(class_of(Some(&class("example.com/x"))), Class::Foreign);
        assert_eq!(class_of(None), Class::Missing);
    }

    #[test]
    fn a_class_that_is_missing_is_named() {
        let object = connector(good());
        let mut conditions = Conditions::new(OWNED, &[], None, Timestamp::UNIX_EPOCH);
        accepted(&mut conditions, &object, Class::Missing);
        let (list, _) = conditions.finish();
        assert_eq!(list[0].reason, "ConnectorClassNotFound");
        assert!(
            list[0]
                .message
                .starts_with("ConnectorClass \"datum-connect\" not found")
        );
    }
}
