//! Every kind that the reconciler looks at: one watch each, shared by all.

use std::{collections::BTreeSet, fmt::Debug, sync::Arc};

use adit_api::{
    envoy_gateway::{
        Backend, BackendTrafficPolicy, EnvoyExtensionPolicy, EnvoyPatchPolicy, EnvoyProxy,
    },
    labels::{DIALER_LABEL, MANAGED_BY, MANAGED_BY_LABEL},
    networking::{Connector, ConnectorAdvertisement, ConnectorClass, HttpProxy},
};
use gateway_api::{
    backendtlspolicies::BackendTlsPolicy, gatewayclasses::GatewayClass, gateways::Gateway,
    httproutes::HttpRoute, referencegrants::ReferenceGrant,
};
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Namespace};
use kube::{Api, Client, Resource, core::NamespaceResourceScope, runtime::watcher};
use serde::de::DeserializeOwned;
use tokio::sync::watch as health;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    kept::{Health, Kept},
    metrics::Metrics,
    watch,
};

/// Which namespaces are looked at.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// Those of users' objects; none means all.
    pub namespaces: Vec<String>,
    /// That of the Gateway that HTTPProxies use by default, if there is one.
    pub gateway: Option<String>,
    /// Where dialers' Leases are trusted.
    pub dialers: String,
}

/// Every kind. Clones share the objects.
#[derive(Clone, Default)]
pub struct Stores {
    /// HTTPProxies.
    pub proxies: Kept<HttpProxy>,
    /// Connectors.
    pub connectors: Kept<Connector>,
    /// Their classes.
    pub classes: Kept<ConnectorClass>,
    /// Their advertisements.
    pub advertisements: Kept<ConnectorAdvertisement>,
    /// The Leases with [`MANAGED_BY_LABEL`]: those of Connectors.
    pub leases: Kept<Lease>,
    /// The Leases of dialers, in their namespace only.
    pub dialers: Kept<Lease>,
    /// Namespaces: their labels decide which Gateways they may use.
    pub namespaces: Kept<Namespace>,
    /// Gateways.
    pub gateways: Kept<Gateway>,
    /// Their classes.
    pub gateway_classes: Kept<GatewayClass>,
    /// How their Envoys are run.
    pub envoy_proxies: Kept<EnvoyProxy>,
    /// The HTTPRoutes that are made here.
    pub routes: Kept<HttpRoute>,
    /// The Backends that are made here.
    pub backends: Kept<Backend>,
    /// The EnvoyPatchPolicies that are made here.
    pub patches: Kept<EnvoyPatchPolicy>,
    /// The ReferenceGrants that are made here.
    pub grants: Kept<ReferenceGrant>,
    /// All BackendTrafficPolicies: users' may displace what is programmed.
    pub traffic: Kept<BackendTrafficPolicy>,
    /// All EnvoyExtensionPolicies.
    pub extensions: Kept<EnvoyExtensionPolicy>,
    /// All BackendTLSPolicies.
    pub tls_policies: Kept<BackendTlsPolicy>,
}

/// What the watches need.
pub struct Watching<'a> {
    /// The API server.
    pub client: Client,
    /// Which namespaces.
    pub scope: &'a Scope,
    /// Where the watches run.
    pub tasks: &'a TaskTracker,
    /// Ends them.
    pub shutdown: &'a CancellationToken,
    /// Counts the errors of watches.
    pub metrics: Arc<Metrics>,
}

impl Stores {
    /// Starts all watches. Whoever wants to hear of every change registers
    /// with [`Kept::on_change`] before.
    pub fn watch(&self, watching: &Watching<'_>) {
        let every = watcher::Config::default;
        let ours =
            || watcher::Config::default().labels(&format!("{MANAGED_BY_LABEL}={MANAGED_BY}"));
        let users = watching.users();
        let gateways = watching.gateways();
        watching.cluster(&self.classes, every());
        watching.cluster(&self.gateway_classes, every());
        watching.cluster(&self.namespaces, every());
        // A GatewayClass may name an EnvoyProxy in any namespace.
        watching.namespaced(&self.envoy_proxies, every(), &[None]);
        watching.namespaced(&self.proxies, every(), &users);
        watching.namespaced(&self.connectors, every(), &users);
        watching.namespaced(&self.advertisements, every(), &users);
        watching.namespaced(&self.leases, ours(), &users);
        watching.namespaced(&self.routes, ours(), &users);
        watching.namespaced(&self.backends, ours(), &users);
        watching.namespaced(&self.grants, ours(), &users);
        watching.namespaced(&self.tls_policies, every(), &users);
        watching.namespaced(&self.traffic, every(), &gateways);
        watching.namespaced(&self.gateways, every(), &gateways);
        watching.namespaced(&self.patches, ours(), &gateways);
        watching.namespaced(&self.extensions, every(), &gateways);
        let dialers = Some(watching.scope.dialers.clone());
        let labelled = every().labels(&format!("{DIALER_LABEL}=true"));
        watching.namespaced(&self.dialers, labelled, &[dialers]);
    }

    /// The kinds without which nothing can be done: those of Adit's own API,
    /// and Leases.
    pub fn own(&self) -> Vec<(&'static str, health::Receiver<Health>)> {
        vec![
            ("HTTPProxy", self.proxies.health()),
            ("Connector", self.connectors.health()),
            ("ConnectorClass", self.classes.health()),
            ("ConnectorAdvertisement", self.advertisements.health()),
            ("Lease", self.leases.health()),
            ("Lease (dialers)", self.dialers.health()),
        ]
    }

    /// The kinds that a gateway is programmed with: absent where Envoy Gateway
    /// is not installed.
    pub fn gateway(&self) -> Vec<(&'static str, health::Receiver<Health>)> {
        vec![
            ("Namespace", self.namespaces.health()),
            ("Gateway", self.gateways.health()),
            ("GatewayClass", self.gateway_classes.health()),
            ("HTTPRoute", self.routes.health()),
            ("ReferenceGrant", self.grants.health()),
            ("EnvoyProxy", self.envoy_proxies.health()),
            ("Backend", self.backends.health()),
            ("EnvoyPatchPolicy", self.patches.health()),
            ("EnvoyExtensionPolicy", self.extensions.health()),
            ("BackendTrafficPolicy", self.traffic.health()),
        ]
    }

    /// Waits until every object of Adit's own kinds is known, and of the
    /// others either every object or that (and why) they are not.
    pub async fn settled(&self) {
        for (_, mut health) in self.own() {
            // The sender lives as long as the store.
            let _ = health.wait_for(|h| *h == Health::Synced).await;
        }
        for (_, mut health) in self.gateway() {
            let _ = health.wait_for(|h| *h != Health::Starting).await;
        }
    }

    /// Why no gateway can be programmed: the kinds that are not known.
    pub fn unknown(&self) -> Vec<(&'static str, Health)> {
        let kinds = self.gateway().into_iter();
        let kinds = kinds.map(|(kind, health)| (kind, health.borrow().clone()));
        kinds.filter(|(_, h)| *h != Health::Synced).collect()
    }
}

impl Watching<'_> {
    fn users(&self) -> Vec<Option<String>> {
        match self.scope.namespaces.as_slice() {
            [] => vec![None],
            some => unique(some.iter()),
        }
    }

    fn gateways(&self) -> Vec<Option<String>> {
        match self.scope.namespaces.as_slice() {
            [] => vec![None],
            some => unique(some.iter().chain(&self.scope.gateway)),
        }
    }

    fn cluster<K>(&self, kept: &Kept<K>, config: watcher::Config)
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    {
        self.spawn(kept, Api::all(self.client.clone()), config, None);
    }

    fn namespaced<K>(&self, kept: &Kept<K>, config: watcher::Config, namespaces: &[Option<String>])
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned
            + Send
            + Sync
            + 'static,
    {
        for namespace in namespaces {
            let api = match namespace {
                None => Api::all(self.client.clone()),
                Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            };
            self.spawn(kept, api, config.clone(), namespace.clone());
        }
    }

    fn spawn<K>(
        &self,
        kept: &Kept<K>,
        api: Api<kube::core::DeserializeGuard<K>>,
        config: watcher::Config,
        namespace: Option<String>,
    ) where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    {
        let metrics = self.metrics.clone();
        let kind = K::kind(&()).into_owned();
        metrics.watches(&kind);
        self.tasks.spawn(watch::watch(
            kept.clone(),
            api,
            config,
            namespace,
            move || metrics.watch_failed(&kind),
            self.shutdown.clone(),
        ));
    }
}

fn unique<'a>(names: impl Iterator<Item = &'a String>) -> Vec<Option<String>> {
    let names: BTreeSet<_> = names.cloned().collect();
    names.into_iter().map(Some).collect()
}
