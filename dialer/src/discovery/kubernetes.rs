//! Connectors of a Kubernetes API as hints where they are.
//!
//! Whoever may write a Connector's status writes what is read here, so nothing
//! of it is trusted: it is bounded, an object that makes no sense costs only
//! itself, and of two objects that name one key none can crowd the other out.
//! Who answers at an address must prove the key anyway.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use adit_api::networking::GROUP;
use adit_control::{Contact, Failure, pace};
use adit_wire::EndpointId;
use futures_util::StreamExt as _;
use iroh::TransportAddr;
use kube::{
    Api, Client,
    core::{ApiResource, DynamicObject},
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event},
    },
};
use serde_json::Value;
use tokio::sync::Notify;

use super::{Addresses, Source, Sources, State, relay_url};

const STEP: &str = "watch Connectors";
/// As the API bounds the list.
const MAX_ADDRESSES: usize = 16;
/// Longer than any URL of a relay.
const MAX_URL: usize = 2048;
/// Far more than one gateway serves.
const MAX_CONNECTORS: usize = 100_000;
/// An object may have more than a megabyte; this many are held at once while
/// they are listed.
const PAGE: u32 = 100;
/// Changes that come together are one change of the hints.
const SETTLE: Duration = Duration::from_millis(50);

/// What is kept of one Connector.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Hint {
    id: EndpointId,
    /// The relay first, then addresses.
    addresses: Vec<TransportAddr>,
}

/// Older objects first, as everywhere; then by name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    created: String,
    namespace: String,
    name: String,
}

type Known = BTreeMap<Key, Hint>;

/// What all watches know, each in its place.
#[derive(Debug)]
struct Shared {
    known: Mutex<Vec<Known>>,
    changed: Notify,
}

/// Follows Connectors of these namespaces (none: of all) until the task is
/// dropped. What was known stays known while the server is away.
pub async fn follow(client: Client, namespaces: Vec<String>, contact: Contact, to: Sources) {
    let resource = ApiResource {
        group: GROUP.to_owned(),
        version: "v1alpha1".to_owned(),
        api_version: format!("{GROUP}/v1alpha1"),
        kind: "Connector".to_owned(),
        plural: "connectors".to_owned(),
    };
    let apis: Vec<Api<DynamicObject>> = match namespaces.is_empty() {
        true => vec![Api::all_with(client, &resource)],
        false => namespaces
            .iter()
            .map(|n| Api::namespaced_with(client.clone(), n, &resource))
            .collect(),
    };
    let shared = Arc::new(Shared {
        known: Mutex::new(vec![Known::new(); apis.len()]),
        changed: Notify::new(),
    });
    let watches = apis
        .into_iter()
        .enumerate()
        .map(|(place, api)| watch(api, place, shared.clone(), contact.clone()));
    let publish = async {
        loop {
            shared.changed.notified().await;
            tokio::time::sleep(SETTLE).await;
            let hints = {
                let known = shared.known.lock().unwrap_or_else(PoisonError::into_inner);
                hints(known.iter().flatten())
            };
            tracing::debug!(connectors = hints.len(), "Connectors were read");
            to.set(
                Source::Connectors,
                State {
                    hints,
                    targets: None,
                },
            );
        }
    };
    tokio::join!(futures_util::future::join_all(watches), publish);
}

async fn watch(api: Api<DynamicObject>, place: usize, shared: Arc<Shared>, contact: Contact) {
    let config = watcher::Config::default().page_size(PAGE);
    let stream = watcher::watcher(api, config).backoff(pace::WatchBackoff::default());
    let mut stream = pin!(stream);
    let mut listed = None;
    let mut full = false;
    while let Some(event) = stream.next().await {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                contact.failed(STEP, Failure::from(&error));
                continue;
            }
        };
        contact.ok(STEP);
        let mut all = shared.known.lock().unwrap_or_else(PoisonError::into_inner);
        let others: usize = all.iter().map(Known::len).sum();
        let known = &mut all[place];
        match event {
            Event::Init => {
                listed = Some(Known::new());
                continue;
            }
            Event::InitApply(object) => {
                if let Some(listed) = &mut listed
                    && let (key, Some(hint)) = read(&object)
                    && listed.len() < MAX_CONNECTORS
                {
                    listed.insert(key, hint);
                }
                continue;
            }
            Event::InitDone => {
                let listed = listed.take().unwrap_or_default();
                if *known == listed {
                    continue;
                }
                *known = listed;
            }
            Event::Apply(object) => {
                let (key, hint) = read(&object);
                if known.get(&key) == hint.as_ref() {
                    continue;
                }
                match hint {
                    Some(hint) if others < MAX_CONNECTORS || known.contains_key(&key) => {
                        known.insert(key, hint);
                    }
                    Some(_) => {
                        if !std::mem::replace(&mut full, true) {
                            tracing::warn!(
                                most = MAX_CONNECTORS,
                                "there are more Connectors than are followed: watch fewer namespaces"
                            );
                        }
                        continue;
                    }
                    None => drop(known.remove(&key)),
                }
            }
            Event::Delete(object) => {
                if known.remove(&read(&object).0).is_none() {
                    continue;
                }
            }
        }
        drop(all);
        shared.changed.notify_one();
    }
}

/// What of an object counts; no hint when it says nothing usable.
fn read(object: &DynamicObject) -> (Key, Option<Hint>) {
    let meta = &object.metadata;
    let created = meta.creation_timestamp.as_ref();
    let key = Key {
        created: created.map(|at| at.0.to_string()).unwrap_or_default(),
        namespace: meta.namespace.clone().unwrap_or_default(),
        name: meta.name.clone().unwrap_or_default(),
    };
    (key, hint(&object.data["status"]["connectionDetails"]))
}

fn hint(details: &Value) -> Option<Hint> {
    if details["type"] != "PublicKey" {
        return None;
    }
    let key = &details["publicKey"];
    let id = key["id"].as_str()?.parse().ok()?;
    let relay = key["homeRelay"]
        .as_str()
        .filter(|url| url.len() <= MAX_URL)
        .and_then(relay_url)
        .map(TransportAddr::Relay);
    let list = key["addresses"].as_array().map(Vec::as_slice);
    let direct = list.unwrap_or_default().iter().take(MAX_ADDRESSES);
    let direct = direct.filter_map(address).map(TransportAddr::Ip);
    let addresses: Vec<_> = relay.into_iter().chain(direct).collect();
    (!addresses.is_empty()).then_some(Hint { id, addresses })
}

fn address(entry: &Value) -> Option<SocketAddr> {
    let ip: IpAddr = entry["address"].as_str()?.parse().ok()?;
    let port = u16::try_from(entry["port"].as_u64()?).ok()?;
    let usable = !ip.is_unspecified() && !ip.is_multicast() && port != 0;
    usable.then_some(SocketAddr::new(ip.to_canonical(), port))
}

/// By key. Where several objects name one, they take turns until there are
/// enough addresses.
fn hints<'a>(known: impl Iterator<Item = (&'a Key, &'a Hint)>) -> HashMap<EndpointId, Addresses> {
    let mut by_id: HashMap<EndpointId, Vec<&Hint>> = HashMap::new();
    for (_, hint) in known {
        by_id.entry(hint.id).or_default().push(hint);
    }
    let merged = by_id.into_iter().map(|(id, all)| {
        let mut addresses = Addresses::default();
        for turn in 0..=MAX_ADDRESSES {
            for hint in &all {
                if let Some(addr) = hint.addresses.get(turn) {
                    addresses.add(addr.clone());
                }
            }
        }
        (id, addresses)
    });
    merged.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn details(id: &str, relay: &str, addresses: &[(&str, i64)]) -> Value {
        let addresses = addresses.iter();
        let addresses: Vec<_> = addresses
            .map(|(address, port)| json!({"address": address, "port": port}))
            .collect();
        json!({"type": "PublicKey", "publicKey": {
            "id": id, "homeRelay": relay, "discoveryMode": "DNS", "addresses": addresses,
        }})
    }

    fn object(name: &str, created: &str, details: Value) -> DynamicObject {
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "n", "creationTimestamp": created},
            "status": {"connectionDetails": details},
        }))
        .expect("an object")
    }

    fn id(byte: u8) -> String {
        EndpointId::from_bytes([byte; 32]).to_string()
    }

    #[test]
    fn a_connector_is_a_hint() {
        let details = details(
            &id(9),
            "https://relay.example",
            &[("192.0.2.1", 7), ("2001:db8::1", 8)],
        );
        let (key, hint) = read(&object("shop", "2026-01-01T00:00:00Z", details));
        let all = hints([(&key, &hint.expect("usable"))].into_iter());
        assert_eq!(
            all[&EndpointId::from_bytes([9; 32])].to_string(),
            "https://relay.example/, 192.0.2.1:7, [2001:db8::1]:8"
        );
    }

    #[test]
    fn what_makes_no_sense_is_left_out_and_the_rest_is_used() {
        let some = [
            ("x", 7),
            ("0.0.0.0", 7),
            ("192.0.2.1", 0),
            ("192.0.2.1", 70_000),
            ("192.0.2.9", 7),
        ];
        let hint = hint(&details(&id(9), "ftp://relay", &some)).expect("one address");
        assert_eq!(
            hint.addresses,
            [TransportAddr::Ip("192.0.2.9:7".parse().unwrap())]
        );
        for nonsense in [
            json!(null),
            json!({"type": "PublicKey"}),
            json!({"type": "Later", "publicKey": {"id": id(9)}}),
            details("zz", "https://relay.example", &[]),
            details(&"f".repeat(1 << 20), "https://relay.example", &[]),
            details(&id(9), "", &[]),
            details(&id(9), &format!("https://{}", "a".repeat(1 << 20)), &[]),
            json!({"type": "PublicKey", "publicKey": {"id": 7, "addresses": "x"}}),
            json!([[[]]]),
        ] {
            assert_eq!(super::hint(&nonsense), None);
        }
    }

    #[test]
    fn thousands_of_addresses_are_bounded_before_they_are_read() {
        let many: Vec<_> = (1..=5000).map(|port| ("192.0.2.1", port)).collect();
        let hint = hint(&details(&id(9), "https://relay.example", &many)).expect("usable");
        assert_eq!(hint.addresses.len(), 1 + MAX_ADDRESSES);
    }

    #[test]
    fn an_object_that_names_somebodys_key_cannot_crowd_its_addresses_out() {
        let many: Vec<_> = (1..=16).map(|port| ("198.51.100.1", port)).collect();
        let hostile: Vec<_> = (0..50)
            .map(|i| {
                object(
                    &format!("bad-{i}"),
                    "2020-01-01T00:00:00Z",
                    details(&id(9), "", &many),
                )
            })
            .collect();
        let own = object(
            "own",
            "2026-01-01T00:00:00Z",
            details(&id(9), "", &[("192.0.2.1", 7)]),
        );
        let known: Known = hostile
            .iter()
            .chain([&own])
            .filter_map(|object| {
                let (key, hint) = read(object);
                Some((key, hint?))
            })
            .collect();
        let all = hints(known.iter());
        let shown = all[&EndpointId::from_bytes([9; 32])].to_string();
        assert!(shown.contains("192.0.2.1:7"), "{shown}");
    }
}
