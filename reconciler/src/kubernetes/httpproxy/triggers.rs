//! Which HTTPProxies a change concerns: those it could change something for,
//! and no others.

use std::sync::Arc;

use adit_api::{
    Resource, ResourceExt as _,
    envoy_gateway::EnvoyProxy,
    networking::{Connector, HttpProxy},
    validate,
};
use adit_wire::Target;
use gateway_api::gateways::Gateway;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::view;
use crate::{
    emit::gateway::{
        MANAGED_BY, MANAGED_BY_LABEL, NAMESPACE_LABEL, PROXY_LABEL, UID_LABEL, patched_targets,
    },
    kubernetes::{
        conditions,
        connectors::ready,
        ground,
        kept::{Change, Health, Kept, Key},
        options::Config,
        queue::Queue,
        stores::Stores,
        written::Written,
    },
};

/// The HTTPProxies to look at.
pub type Proxies = Arc<Queue<Key>>;

/// Lets every kind say which HTTPProxies to look at.
pub fn register(stores: &Stores, config: &Config) -> Proxies {
    let queue: Proxies = Arc::new(Queue::new());
    let all = Concerned {
        stores: stores.clone(),
        config: Arc::new(config.clone()),
        queue: queue.clone(),
    };
    all.proxies();
    all.connectors();
    all.gateways();
    all.made(&stores.routes);
    all.made(&stores.backends);
    all.made(&stores.patches);
    all.policies(&stores.traffic, |old, new| old.spec == new.spec);
    all.policies(&stores.extensions, |_, _| false);
    all.policies(&stores.tls_policies, |old, new| old.spec == new.spec);
    queue
}

/// Looks at all HTTPProxies again when a kind that was missing is there.
pub async fn on_new_kinds(stores: &Stores, queue: &Proxies) {
    let wait = |mut health: tokio::sync::watch::Receiver<Health>| async move {
        loop {
            let was = health.borrow_and_update().clone();
            if health.changed().await.is_err() {
                return std::future::pending().await;
            }
            if was != Health::Synced || *health.borrow() != Health::Synced {
                for proxy in stores.proxies.all() {
                    queue.push(Key::of(&*proxy));
                }
            }
        }
    };
    let kinds = stores.gateway().into_iter().map(|(_, health)| wait(health));
    let _: Vec<()> = futures_util::future::join_all(kinds).await;
}

#[derive(Clone)]
struct Concerned {
    stores: Stores,
    config: Arc<Config>,
    queue: Proxies,
}

impl Concerned {
    /// Itself, and those that could claim the same requests.
    fn proxies(&self) {
        let all = self.clone();
        self.stores
            .proxies
            .on_change(move |change: &Change<HttpProxy>| {
                let (old, new) = (change.old.as_deref(), change.new.as_deref());
                if let (Some(old), Some(new)) = (old, new)
                    && same_wish(old, new)
                {
                    return;
                }
                all.queue.push(change.key.clone());
                let gateways = [old, new].map(|p| {
                    let wanted = ground::wanted(p?, &all.config).ok()?;
                    Some(wanted.place).filter(|_| !wanted.made)
                });
                all.push_if(&all.stores.proxies.all(), |other| {
                    [old, new].iter().zip(&gateways).any(|(p, gateway)| {
                        p.is_some_and(|p| {
                            gateway.is_some()
                                && view::share_a_hostname(p, other)
                                && Key::of(other) != change.key
                                && all.gateway(other) == *gateway
                        })
                    })
                });
            });
    }

    /// Those that name or select it.
    fn connectors(&self) {
        let all = self.clone();
        self.stores
            .connectors
            .on_change(move |change: &Change<Connector>| {
                let (old, new) = (change.old.as_deref(), change.new.as_deref());
                if old.is_some() && old.map(Aspect::of) == new.map(Aspect::of) {
                    return;
                }
                let near = all.stores.proxies.in_namespace(&change.key.namespace);
                all.push_if(&near, |proxy| {
                    let mut refs = view::references(proxy);
                    refs.any(|r| [old, new].into_iter().flatten().any(|c| view::refers(r, c)))
                });
                for connector in [old, new].into_iter().flatten() {
                    all.push_programmed(&change.key.namespace, connector);
                }
            });
        let all = self.clone();
        self.stores.advertisements.on_change(move |change| {
            let spec = |a: &Option<Arc<adit_api::networking::ConnectorAdvertisement>>| {
                a.as_ref()
                    .map(|a| (a.spec.clone(), a.metadata.deletion_timestamp.is_some()))
            };
            if spec(&change.old) == spec(&change.new) {
                return;
            }
            for object in change.old.iter().chain(&change.new) {
                let name = &object.spec.connector_ref.name;
                let key = Key::new(&change.key.namespace, name);
                let connector = all.stores.connectors.get(&key);
                let near = all.stores.proxies.in_namespace(&change.key.namespace);
                all.push_if(&near, |proxy| {
                    let mut refs = view::references(proxy);
                    refs.any(|r| match &connector {
                        Some(connector) => view::refers(r, connector),
                        None => r.name.as_ref() == Some(name),
                    })
                });
                if let Some(connector) = &connector {
                    all.push_programmed(&change.key.namespace, connector);
                }
            }
        });
        let all = self.clone();
        self.stores.classes.on_change(move |change| {
            let spec = |c: &Option<Arc<adit_api::networking::ConnectorClass>>| {
                c.as_ref().map(|c| c.spec.clone())
            };
            if spec(&change.old) == spec(&change.new) {
                return;
            }
            let name = &change.key.name;
            let connectors = &all.stores.connectors;
            for connector in connectors.filter(|c| c.spec.connector_class_name == *name) {
                let namespace = connector.namespace().unwrap_or_default();
                let near = all.stores.proxies.in_namespace(&namespace);
                all.push_if(&near, |proxy| {
                    view::references(proxy).any(|r| view::refers(r, &connector))
                });
                all.push_programmed(&namespace, &connector);
            }
        });
    }

    /// Those that are programmed there.
    fn gateways(&self) {
        let all = self.clone();
        self.stores
            .gateways
            .on_change(move |change: &Change<Gateway>| {
                let (old, new) = (change.old.as_deref(), change.new.as_deref());
                let same = match (old, new) {
                    (Some(old), Some(new)) => same_gateway(old, new),
                    _ => false,
                };
                if same || change.own {
                    return;
                }
                // One that was made has the name of its HTTPProxy.
                let own = all.stores.proxies.get(&change.key);
                let shared = all.stores.proxies.filter(|p| {
                    ground::wanted(p, &all.config).is_ok_and(|w| !w.made && w.place == change.key)
                });
                all.push_if(&shared, |_| true);
                all.push_if(own.as_slice(), |_| true);
            });
        let all = self.clone();
        self.stores.gateway_classes.on_change(move |change| {
            let spec = |c: &Option<Arc<gateway_api::gatewayclasses::GatewayClass>>| {
                c.as_ref().map(|c| c.spec.clone())
            };
            if spec(&change.old) != spec(&change.new) {
                all.push_class(&change.key.name);
            }
        });
        let all = self.clone();
        self.stores
            .envoy_proxies
            .on_change(move |change: &Change<EnvoyProxy>| {
                let parts = |p: &Option<Arc<EnvoyProxy>>| {
                    let spec = &p.as_ref()?.spec;
                    let merges = spec.rest.get("mergeType").cloned();
                    Some((spec.dynamic_modules.clone(), spec.merge_gateways, merges))
                };
                if parts(&change.old) == parts(&change.new) {
                    return;
                }
                // Rare: it is the whole fleet's set-up.
                all.push_if(&all.stores.proxies.all(), |_| true);
            });
        let all = self.clone();
        self.stores.namespaces.on_change(move |change| {
            let labels = |n: &Option<Arc<k8s_openapi::api::core::v1::Namespace>>| {
                n.as_ref().map(|n| n.labels().clone())
            };
            if change.old.is_some() && labels(&change.old) != labels(&change.new) {
                let near = all.stores.proxies.in_namespace(&change.key.name);
                all.push_if(&near, |_| true);
            }
        });
    }

    /// The HTTPProxy that an object was made for, when somebody else says
    /// something of it or changes it.
    fn made<K: Written>(&self, kept: &Kept<K>) {
        let all = self.clone();
        kept.on_change(move |change: &Change<K>| {
            if !change.own {
                all.push_owner(change);
            }
        });
    }

    /// The owner of a policy that was made here; for one of a user's, those
    /// near it. A user's policy is the same as long as `same` says so.
    fn policies<K: Written>(
        &self,
        kept: &Kept<K>,
        same: impl Fn(&K, &K) -> bool + Send + Sync + 'static,
    ) {
        let all = self.clone();
        kept.on_change(move |change: &Change<K>| {
            if change.own || all.push_owner(change) {
                return;
            }
            if let (Some(old), Some(new)) = (&change.old, &change.new)
                && same(old, new)
            {
                return;
            }
            let namespace = &change.key.namespace;
            all.push_if(&all.stores.proxies.all(), |proxy| {
                proxy.metadata.namespace.as_ref() == Some(namespace)
                    || all
                        .gateway(proxy)
                        .is_some_and(|g| g.namespace == *namespace)
            });
        });
    }

    /// Pushes the HTTPProxy that an object was made for; whether it was made
    /// for any.
    fn push_owner<K: Written>(&self, change: &Change<K>) -> bool {
        let mut owned = false;
        for object in change.old.iter().chain(&change.new) {
            let labels = object.labels();
            let ours = labels.get(MANAGED_BY_LABEL).map(String::as_str) == Some(MANAGED_BY);
            let Some(uid) = labels.get(UID_LABEL).filter(|_| ours) else {
                continue;
            };
            owned = true;
            if let Some(proxy) = self.stores.proxies.by_uid(uid) {
                self.queue.push(Key::of(&*proxy));
            }
        }
        owned
    }

    /// Those whose programmed routes reach a connector, whatever their newest
    /// version names: it may be invalid, unreadable, or not serve yet.
    fn push_programmed(&self, namespace: &str, connector: &Connector) {
        let Ok(hint) = ready::details(connector) else {
            return;
        };
        let near = self.stores.patches.filter(|patch| {
            let of = patch.labels().get(NAMESPACE_LABEL).map(String::as_str);
            of == Some(namespace)
        });
        let reaches = |t: &Target| t.connectors.contains(&hint.endpoint_id);
        let reach = near
            .iter()
            .filter(|patch| patched_targets(patch).is_none_or(|t| t.iter().any(reaches)));
        for name in reach.filter_map(|patch| patch.labels().get(PROXY_LABEL)) {
            self.queue.push(Key::new(namespace, name));
        }
    }

    fn push_class(&self, class: &str) {
        let gateways = self
            .stores
            .gateways
            .filter(|g| g.spec.gateway_class_name == class);
        let places: std::collections::BTreeSet<_> =
            gateways.iter().map(|g| Key::of(&**g)).collect();
        self.push_if(&self.stores.proxies.all(), |proxy| {
            self.gateway(proxy).is_some_and(|g| places.contains(&g))
        });
    }

    fn push_if(&self, proxies: &[Arc<HttpProxy>], concerned: impl Fn(&HttpProxy) -> bool) {
        for proxy in proxies.iter().filter(|p| concerned(p)) {
            self.queue.push(Key::of(&**proxy));
        }
    }

    fn gateway(&self, proxy: &HttpProxy) -> Option<Key> {
        let wanted = ground::wanted(proxy, &self.config).ok()?;
        Some(wanted.place)
    }
}

/// Whether nothing that this process reads of an HTTPProxy has changed.
fn same_wish(old: &HttpProxy, new: &HttpProxy) -> bool {
    old.metadata.uid == new.metadata.uid
        && old.spec == new.spec
        && old.annotations() == new.annotations()
        && old.metadata.deletion_timestamp == new.metadata.deletion_timestamp
}

/// What decides about routes, and what is said of readiness: not addresses,
/// nor who is let in.
#[derive(PartialEq)]
struct Aspect {
    uid: Option<String>,
    labels: std::collections::BTreeMap<String, String>,
    spec: adit_api::networking::ConnectorSpec,
    id: Option<String>,
    denied: Vec<(String, Vec<(String, String)>)>,
    ready: Option<(String, String, String)>,
    valid: bool,
    ending: bool,
}

impl Aspect {
    fn of(connector: &Connector) -> Self {
        let status = connector.status.as_ref();
        let said = |c: &Condition| (c.status.clone(), c.reason.clone(), c.message.clone());
        let ready = status.and_then(|s| conditions::find(&s.conditions, "Ready"));
        let capabilities = status.iter().flat_map(|s| &s.capabilities);
        let details = status.and_then(|s| s.connection_details.as_ref());
        let state = |c: &Condition| (c.type_.clone(), c.status.clone());
        Self {
            uid: connector.metadata.uid.clone(),
            labels: connector.labels().clone(),
            spec: connector.spec.clone(),
            id: details
                .and_then(|d| d.public_key.as_ref())
                .map(|k| k.id.clone()),
            denied: capabilities
                .map(|c| (c.type_.clone(), c.conditions.iter().map(state).collect()))
                .collect(),
            ready: ready.map(said),
            valid: validate::connector(connector).is_empty(),
            ending: connector.meta().deletion_timestamp.is_some(),
        }
    }
}

/// Whether nothing that this process reads of a Gateway has changed; the count
/// of its routes does with each of them.
fn same_gateway(old: &Gateway, new: &Gateway) -> bool {
    let said = |c: &Condition| {
        (
            c.type_.clone(),
            c.status.clone(),
            c.reason.clone(),
            c.message.clone(),
            c.observed_generation,
        )
    };
    let parts = |gateway: &Gateway| {
        let status = gateway.status.as_ref();
        let addresses = status.and_then(|s| s.addresses.clone());
        let listeners = status.iter().flat_map(|s| s.listeners.iter().flatten());
        let listeners: Vec<_> = listeners
            .map(|l| {
                let conditions: Vec<_> = l.conditions.iter().map(said).collect();
                (l.name.clone(), conditions)
            })
            .collect();
        (addresses, listeners)
    };
    old.metadata.uid == new.metadata.uid
        && old.spec == new.spec
        && old.labels() == new.labels()
        && old.annotations() == new.annotations()
        && old.metadata.deletion_timestamp == new.metadata.deletion_timestamp
        && parts(old) == parts(new)
}

#[cfg(test)]
#[path = "triggers_tests.rs"]
mod tests;
