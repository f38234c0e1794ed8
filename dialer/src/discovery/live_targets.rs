//! The live targets, as the reconciler's EnvoyPatchPolicies name them.
//!
//! Only metadata is read: the annotation holds each policy's targets. While the
//! watch does not work nobody manages the list and no stream is closed for it:
//! a new route may be served that this process has not heard of.

use std::{
    collections::{BTreeMap, HashSet},
    pin::pin,
    time::Duration,
};

use adit_api::{
    envoy_gateway::EnvoyPatchPolicy,
    labels::{MANAGED_BY, MANAGED_BY_LABEL, TARGETS_ANNOTATION},
};
use adit_control::{Contact, Failure, pace};
use adit_tunnel::throttle::Throttle;
use adit_wire::Target;
use futures_util::{StreamExt as _, stream};
use kube::{
    Api, Client,
    core::PartialObjectMeta,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event},
    },
};

use super::{Source, Sources, State};

const STEP: &str = "watch EnvoyPatchPolicies";
/// More than Envoy has clusters. Beyond, the list is not managed at all: half
/// a list would close streams that are live.
const MAX_TARGETS: usize = 100_000;
/// Metadata is small.
const PAGE: u32 = 500;
/// Changes that come together are one change of the list.
const SETTLE: Duration = Duration::from_millis(50);

type Object = PartialObjectMeta<EnvoyPatchPolicy>;
/// By namespace and name.
type Known = BTreeMap<(String, String), Vec<Target>>;

/// One namespace's policies.
#[derive(Debug, Default)]
struct Place {
    known: Known,
    /// While they are listed.
    listed: Option<Known>,
    /// Whether `known` is all there is, as far as anybody knows.
    live: bool,
}

/// Follows the policies of these namespaces until the task is dropped.
pub async fn follow(client: Client, namespaces: Vec<String>, contact: Contact, to: Sources) {
    let watches = namespaces.iter().enumerate().map(|(place, namespace)| {
        let api: Api<Object> = Api::namespaced(client.clone(), namespace);
        let config = watcher::Config::default()
            // The reconciler's own; others' policies are nobody's business here.
            .labels(&format!("{MANAGED_BY_LABEL}={MANAGED_BY}"))
            .page_size(PAGE);
        watcher::watcher(api, config)
            .backoff(pace::WatchBackoff::default())
            .map(move |event| (place, event))
            .boxed()
    });
    let mut events = pin!(stream::select_all(watches));
    let mut places: Vec<Place> = namespaces.iter().map(|_| Place::default()).collect();
    let mut changed = false;
    loop {
        let next = tokio::time::timeout(
            match changed {
                true => SETTLE,
                // Nothing waits to be told.
                false => Duration::from_secs(3600),
            },
            events.next(),
        );
        match next.await {
            Ok(Some((place, Ok(event)))) => {
                contact.ok(STEP);
                places[place].on(event);
                changed = true;
            }
            Ok(Some((place, Err(error)))) => {
                contact.failed(STEP, Failure::from(&error));
                places[place].live = false;
                changed = true;
            }
            Ok(None) => return,
            Err(_) if changed => {
                changed = false;
                let state = State {
                    targets: list(&places),
                    ..State::default()
                };
                to.set(Source::Policies, state);
            }
            Err(_) => {}
        }
    }
}

impl Place {
    fn on(&mut self, event: Event<Object>) {
        match event {
            Event::Init => self.listed = Some(Known::new()),
            Event::InitApply(object) => {
                let (key, targets) = read(&object);
                self.listed.get_or_insert_default().insert(key, targets);
            }
            Event::InitDone => {
                self.known = self.listed.take().unwrap_or_default();
                self.live = true;
            }
            Event::Apply(object) => {
                let (key, targets) = read(&object);
                self.known.insert(key, targets);
                self.live = true;
            }
            Event::Delete(object) => {
                self.known.remove(&read(&object).0);
                self.live = true;
            }
        }
    }
}

/// All targets; `None` while they are not all known.
fn list(places: &[Place]) -> Option<HashSet<Target>> {
    if !places.iter().all(|place| place.live) {
        return None;
    }
    let all = places
        .iter()
        .flat_map(|place| place.known.values().flatten());
    let set: HashSet<Target> = all.take(MAX_TARGETS + 1).cloned().collect();
    if set.len() > MAX_TARGETS {
        tracing::error!(
            most = MAX_TARGETS,
            "EnvoyPatchPolicies name more targets than are followed: no stream is closed for them"
        );
        return None;
    }
    Some(set)
}

fn read(object: &Object) -> ((String, String), Vec<Target>) {
    static LOG: std::sync::LazyLock<Throttle> = std::sync::LazyLock::new(Throttle::default);
    let meta = &object.metadata;
    let key = (
        meta.namespace.clone().unwrap_or_default(),
        meta.name.clone().unwrap_or_default(),
    );
    let annotations = meta.annotations.as_ref();
    let text = annotations.and_then(|a| a.get(TARGETS_ANNOTATION));
    let entries = text.map(String::as_str).unwrap_or_default().split(',');
    let entries = entries.map(str::trim).filter(|e| !e.is_empty());
    let mut targets = Vec::new();
    for entry in entries {
        match Target::from_base64(entry) {
            Ok(target) => targets.push(target),
            Err(error) => {
                if let Some(left_out) = LOG.pass() {
                    tracing::warn!(
                        policy = %format!("{}/{}", key.0, key.1), %error, left_out,
                        "an entry of the annotation {TARGETS_ANNOTATION} is no target"
                    );
                }
            }
        }
    }
    (key, targets)
}

#[cfg(test)]
mod tests {
    use adit_wire::{EndpointId, Protocol};
    use serde_json::json;

    use super::*;

    fn target(port: u16) -> Target {
        Target {
            connectors: vec![EndpointId::from_bytes([9; 32])],
            service: format!("a.example:{port}").parse().unwrap(),
            protocol: Protocol::Tcp,
            deadline: Duration::from_secs(1),
            name: String::new(),
        }
    }

    fn policy(name: &str, annotation: &str) -> Object {
        serde_json::from_value(json!({
            "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
            "metadata": {"namespace": "gateways", "name": name, "annotations": {TARGETS_ANNOTATION: annotation}},
        }))
        .expect("metadata")
    }

    fn ports(places: &[Place]) -> Option<Vec<u16>> {
        list(places).map(|set| {
            let mut ports: Vec<_> = set.iter().map(|t| t.service.port).collect();
            ports.sort_unstable();
            ports
        })
    }

    #[test]
    fn a_list_counts_only_while_it_is_whole() {
        let both = format!("{}, {}", target(1).to_base64(), target(2).to_base64());
        let mut places = [Place::default(), Place::default()];
        assert_eq!(ports(&places), None, "nothing was listed yet");
        places[0].on(Event::Init);
        places[0].on(Event::InitApply(policy("a", &both)));
        assert_eq!(ports(&places), None, "half a list");
        places[0].on(Event::InitDone);
        assert_eq!(ports(&places), None, "the other namespace");
        places[1].on(Event::Init);
        places[1].on(Event::InitDone);
        assert_eq!(ports(&places), Some(vec![1, 2]));
        places[1].on(Event::Apply(policy("b", &target(3).to_base64())));
        assert_eq!(ports(&places), Some(vec![1, 2, 3]));
        places[0].live = false;
        assert_eq!(ports(&places), None, "the watch broke");
        places[0].on(Event::Delete(policy("a", "")));
        assert_eq!(ports(&places), Some(vec![3]));
    }

    #[test]
    fn an_entry_that_is_no_target_costs_only_itself() {
        let text = format!("!,{},,{}", target(1).to_base64(), "A".repeat(1 << 20));
        assert_eq!(read(&policy("a", &text)).1, [target(1)]);
        assert_eq!(read(&policy("a", "")).1, []);
    }
}
