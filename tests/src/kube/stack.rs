//! The whole: a control plane, Envoy Gateway, and classes of Gateways to choose
//! from.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::{
    ControlPlane, Kind, Objects,
    envoy_gateway::{CONTROLLER, EnvoyGateway, Extensions, NAMESPACE, ProxyProcess},
    objects::is_true,
};
use crate::{admin::Admin, binaries, envoy, process::until};

/// The name under which every class but [`Class::NoModule`] allows the module.
pub const MODULE: &str = "adit";

/// A GatewayClass of the stack. Each has an EnvoyProxy of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Envoy 1.39.3 with the module in the allow-list.
    Envoy139,
    /// Envoy 1.40.0 with the module in the allow-list.
    Envoy140,
    /// Envoy 1.40.0, and the EnvoyProxy lists no module.
    NoModule,
    /// Envoy 1.40.0 with the module, and one Envoy for all Gateways.
    Merged,
}

impl Class {
    const ALL: [Self; 4] = [Self::Envoy139, Self::Envoy140, Self::NoModule, Self::Merged];

    /// The class for an Envoy version of [`binaries::ENVOYS`].
    pub fn of(version: &str) -> Result<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|class| class.envoy() == version)
            .with_context(|| format!("no class with Envoy {version}"))
    }

    /// The GatewayClass' name; its EnvoyProxy has the same.
    pub fn name(self) -> &'static str {
        match self {
            Self::Envoy139 => "envoy-1-39",
            Self::Envoy140 => "envoy-1-40",
            Self::NoModule => "no-module",
            Self::Merged => "merged",
        }
    }

    fn envoy(self) -> &'static str {
        match self {
            Self::Envoy139 => "1.39.3",
            Self::Envoy140 | Self::NoModule | Self::Merged => "1.40.0",
        }
    }

    fn proxy(self) -> Result<Value> {
        let mut spec = json!({
            "provider": {"type": "Host", "host": {"envoyVersion": self.envoy()}},
            "concurrency": binaries::concurrency(),
            "mergeGateways": self == Self::Merged,
            "logging": {"level": {"default": "info"}},
            // Else the second Envoy in one network namespace finds the first
            // one's hot-restart socket and ends.
            "extraArgs": ["--disable-hot-restart"],
            // A Gateway that is deleted takes its Envoy with it at once.
            "shutdown": {"drainTimeout": "0s", "minDrainDuration": "0s"},
        });
        if self != Self::NoModule {
            spec["dynamicModules"] = json!([{
                "name": MODULE,
                "source": {"type": "Local", "local": {"path": binaries::module()?}},
                "doNotClose": true,
            }]);
        }
        Ok(json!({
            "apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": "EnvoyProxy",
            "metadata": {"name": self.name()}, "spec": spec,
        }))
    }

    fn gateway_class(self) -> Value {
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass",
            "metadata": {"name": self.name()},
            "spec": {"controllerName": CONTROLLER, "parametersRef": {
                "group": "gateway.envoyproxy.io", "kind": "EnvoyProxy",
                "name": self.name(), "namespace": NAMESPACE,
            }},
        })
    }
}

/// A control plane with Envoy Gateway on it. How it differs from a cluster:
///
/// - Envoy Gateway's infrastructure is "Host": no Deployment, no pod, no Service,
///   no sidecar, no init container. A Gateway's `Programmed` becomes true only
///   when [`Stack::pretend_deployed`] has made what Envoy Gateway looks for.
/// - Every Gateway's Envoy is on this machine's (this namespace's) loopback: two
///   Gateways cannot listen on one port.
/// - A Backend may name a loopback address; a cluster refuses that.
pub struct Stack {
    /// The Kubernetes API.
    pub plane: ControlPlane,
    gateway: Mutex<Option<EnvoyGateway>>,
}

impl Stack {
    /// Starts one, of which a network namespace holds only one ([`super::enter`]).
    pub async fn start(extensions: Extensions) -> Result<Self> {
        ensure!(
            super::is_inside(),
            "a Stack needs a network namespace of its own: call adit_tests::kube::enter() first"
        );
        let stack = Self {
            plane: ControlPlane::start().await?,
            gateway: Mutex::default(),
        };
        let objects = stack.plane.admin().await?;
        objects.make_namespace(NAMESPACE, &[]).await?;
        for class in Class::ALL {
            objects.apply(NAMESPACE, class.proxy()?).await?;
            objects.apply("", class.gateway_class()).await?;
        }
        stack.start_envoy_gateway(extensions).await?;
        for class in Class::ALL {
            objects
                .until(Kind::GATEWAY_CLASS, "", class.name(), "Accepted", |class| {
                    is_true(class, "Accepted")
                })
                .await
                .with_context(|| stack.last_words())?;
        }
        Ok(stack)
    }

    /// The one that all tests of this binary share; it ends with the process.
    pub async fn shared() -> Result<&'static Self> {
        static SHARED: OnceCell<Stack> = OnceCell::const_new();
        super::enter()?;
        SHARED
            .get_or_try_init(|| Self::start(Extensions::default()))
            .await
    }

    /// Runs a test on the shared stack; a failure says what each child said last.
    pub async fn run(test: impl AsyncFnOnce(&'static Self) -> Result<()>) -> Result<()> {
        let stack = Self::shared().await?;
        test(stack)
            .await
            .map_err(|error| error.context(format!("{}\n", stack.last_words())))
    }

    /// The objects, seen by one who may do everything; for this test's runtime.
    pub async fn admin(&self) -> Result<Objects> {
        self.plane.admin().await
    }

    /// Starts Envoy Gateway, where it was stopped, perhaps with other extensions.
    pub async fn start_envoy_gateway(&self, extensions: Extensions) -> Result<()> {
        let dir = self.envoy_gateway_dir();
        let started = EnvoyGateway::start(&dir, &self.plane.kubeconfig(), extensions).await?;
        *self.lock() = Some(started);
        Ok(())
    }

    /// Stops Envoy Gateway and its Envoys.
    pub async fn stop_envoy_gateway(&self) -> Result<()> {
        let running = self.lock().take();
        if let Some(mut gateway) = running {
            gateway.process.terminate().await?;
        }
        Ok(())
    }

    /// Where Envoy Gateway keeps its files and its log.
    pub fn envoy_gateway_dir(&self) -> PathBuf {
        self.plane.dir().join("envoy-gateway")
    }

    /// A Gateway with one HTTP listener on a port that is free now, whose routes
    /// may come from every namespace; waits until the listener is programmed and
    /// Envoy listens.
    pub async fn make_gateway(&self, class: Class, namespace: &str, name: &str) -> Result<Gateway> {
        let port = std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?
            .local_addr()?
            .port();
        let objects = self.admin().await?;
        let gateway = json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
            "metadata": {"name": name},
            "spec": {"gatewayClassName": class.name(), "listeners": [{
                "name": "http", "port": port, "protocol": "HTTP",
                "allowedRoutes": {"namespaces": {"from": "All"}},
            }]},
        });
        objects.apply(namespace, gateway).await?;
        objects
            .until(Kind::GATEWAY, namespace, name, "listener", |gateway| {
                let listeners = &gateway["status"]["listeners"];
                listeners[0]["conditions"].as_array().is_some_and(|all| {
                    all.iter()
                        .any(|c| c["type"] == "Programmed" && c["status"] == "True")
                })
            })
            .await?;
        let of = match class {
            Class::Merged => class.name().to_owned(),
            _ => format!("{namespace}/{name}"),
        };
        Ok(Gateway {
            addr: (Ipv4Addr::LOCALHOST, port).into(),
            of,
        })
    }

    /// The Envoy of a Gateway (`<namespace>/<name>`) or of a merged class; waits
    /// until it is ready.
    pub async fn proxy(&self, of: &str) -> Result<ProxyProcess> {
        let found = until("ready Envoy", async || {
            let found = self.lock().as_ref()?.proxy(of)?;
            let ready = found.admin.get("/ready").await.ok()?;
            (ready.trim() == "LIVE").then_some(found)
        });
        found.await.with_context(|| format!("Envoy of {of}"))
    }

    /// Makes what Envoy Gateway looks for before it calls a Gateway programmed: a
    /// Service with an address and a Deployment with a replica, labelled as its
    /// own (internal/provider/kubernetes/predicates.go). In a cluster it makes
    /// them itself.
    pub async fn pretend_deployed(&self, class: Class, namespace: &str, name: &str) -> Result<()> {
        let objects = self.admin().await?;
        let prefix = "gateway.envoyproxy.io/owning-gateway";
        let labels = match class {
            Class::Merged => json!({format!("{prefix}class"): class.name()}),
            _ => json!({
                format!("{prefix}-namespace"): namespace,
                format!("{prefix}-name"): name,
            }),
        };
        let stub = match class {
            Class::Merged => format!("envoy-{}", class.name()),
            _ => format!("envoy-{namespace}-{name}"),
        };
        let metadata = json!({"name": stub, "labels": labels});
        let selector = json!({"app": stub});
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": metadata,
            "spec": {"type": "ClusterIP", "selector": selector, "ports": [{"port": 80}]},
        });
        objects.apply(NAMESPACE, service).await?;
        let deployment = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata,
            "spec": {"selector": {"matchLabels": selector}, "template": {
                "metadata": {"labels": selector},
                "spec": {"containers": [{"name": "envoy", "image": "envoy"}]},
            }},
        });
        objects.apply(NAMESPACE, deployment).await?;
        let running = json!({"status": {
            "replicas": 1, "readyReplicas": 1, "updatedReplicas": 1, "availableReplicas": 1,
        }});
        objects
            .merge(Kind::DEPLOYMENT, NAMESPACE, &stub, Some("status"), &running)
            .await?;
        objects
            .until(Kind::GATEWAY, namespace, name, "Programmed", |gateway| {
                is_true(gateway, "Programmed")
            })
            .await
            .map(drop)
    }

    /// The last lines of every child's log.
    pub fn last_words(&self) -> String {
        let mut words = self.plane.last_words();
        if let Some(gateway) = self.lock().as_ref() {
            words += "--- envoy-gateway\n";
            words += &gateway.process.last_words();
        }
        words
    }

    fn lock(&self) -> MutexGuard<'_, Option<EnvoyGateway>> {
        self.gateway.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A Gateway that has its Envoy.
#[derive(Debug, Clone)]
pub struct Gateway {
    /// Where its listener is, for clients.
    pub addr: SocketAddr,
    /// What [`Stack::proxy`] wants.
    pub of: String,
}

/// A dynamic cluster or ClusterLoadAssignment of an Envoy as it has it now;
/// `section` is `dynamic_active_clusters` or `dynamic_endpoint_configs`.
pub async fn configured(admin: &Admin, resource: &str, name: &str) -> Result<Option<Value>> {
    let dump = admin
        .json(&format!("/config_dump?include_eds&resource={resource}"))
        .await?;
    let found = dump["configs"]
        .as_array()
        .into_iter()
        .flatten()
        .find_map(|entry| {
            let inner = ["cluster", "endpoint_config", "route_config"]
                .into_iter()
                .find_map(|key| entry.get(key))?;
            let own = [&inner["name"], &inner["cluster_name"]];
            own.iter().any(|n| **n == name).then(|| inner.clone())
        });
    Ok(found)
}

/// A counter or gauge of the Envoy of a Gateway.
pub async fn stat(proxy: &ProxyProcess, name: &str) -> Result<u64> {
    envoy::stat(&proxy.admin, name).await
}
