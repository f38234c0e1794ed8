//! What the dialer is told by the reconciler: a small JSON file, replaced whole.

use std::net::SocketAddr;

use adit_wire::{EndpointId, Target};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Where connectors are, and which targets are live.
///
/// It is kept out of Envoy's configuration on purpose: a changed cluster drops
/// every pooled connection, a changed file drops nothing.
///
/// ```json
/// {"connectors": [{"endpointId": "<64 hex>", "relay": "https://…", "addresses": ["192.0.2.1:7"]}],
///  "targets": ["<base64 of a Target>"]}
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DialerState {
    /// Hints where a connector is; the dialer asks discovery as well.
    #[serde(default)]
    pub connectors: Vec<ConnectorHint>,
    /// The targets that routes use now. When one leaves the list, the dialer
    /// closes its streams after a drain time. `None`: nobody manages the list,
    /// no stream is closed for it.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "targets")]
    pub targets: Option<Vec<Target>>,
}

/// Where one connector may be found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConnectorHint {
    /// The connector's key.
    #[serde(serialize_with = "show_id", deserialize_with = "read_id")]
    pub endpoint_id: EndpointId,
    /// Its home relay, a URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<String>,
    /// Its direct addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<SocketAddr>,
}

fn show_id<S: Serializer>(id: &EndpointId, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(id)
}

fn read_id<'de, D: Deserializer<'de>>(from: D) -> Result<EndpointId, D::Error> {
    String::deserialize(from)?.parse().map_err(D::Error::custom)
}

/// Targets in their base64 form.
mod targets {
    use super::*;

    pub fn serialize<S: Serializer>(list: &Option<Vec<Target>>, to: S) -> Result<S::Ok, S::Error> {
        match list {
            Some(list) => to.collect_seq(list.iter().map(Target::to_base64)),
            None => to.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Vec<Target>>, D::Error> {
        let Some(list) = Option::<Vec<String>>::deserialize(from)? else {
            return Ok(None);
        };
        let parsed = list.iter().map(|text| Target::from_base64(text));
        parsed
            .collect::<Result<_, _>>()
            .map(Some)
            .map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use adit_wire::Protocol;

    use super::*;

    #[test]
    fn a_state_reads_back_and_keeps_its_published_names() {
        let id = EndpointId::from_bytes([9; 32]);
        let state = DialerState {
            connectors: vec![ConnectorHint {
                endpoint_id: id,
                relay: Some("https://relay.example".into()),
                addresses: vec!["[::1]:7".parse().expect("valid")],
            }],
            targets: Some(vec![Target {
                connectors: vec![id],
                service: "a.example:1".parse().expect("valid"),
                protocol: Protocol::Tcp,
                deadline: Duration::from_secs(1),
                name: String::new(),
            }]),
        };
        let json = serde_json::to_value(&state).expect("serializes");
        assert_eq!(json["connectors"][0]["endpointId"], id.to_string());
        assert_eq!(json["connectors"][0]["addresses"][0], "[::1]:7");
        assert_eq!(
            serde_json::from_value::<DialerState>(json).expect("reads"),
            state
        );
    }

    #[test]
    fn an_unmanaged_list_is_absent_and_an_empty_one_is_empty() {
        let none = serde_json::to_string(&DialerState::default()).expect("serializes");
        assert_eq!(none, r#"{"connectors":[]}"#);
        let read: DialerState = serde_json::from_str(r#"{"targets":[]}"#).expect("reads");
        assert_eq!(read.targets, Some(Vec::new()));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for text in [
            r#"{"conectors":[]}"#,
            r#"{"connectors":[{"endpointId":"zz"}]}"#,
            r#"{"targets":["!"]}"#,
            r#"{"connectors":[{"endpointId":"00","relays":1}]}"#,
        ] {
            assert!(serde_json::from_str::<DialerState>(text).is_err(), "{text}");
        }
    }
}
