//! A namespace, the reconciler that watches it, and what people put there.

use adit_tests::{
    admin::Admin,
    keys::Key,
    kube::{
        Class, ControlPlane, Kind, Objects, Stack,
        objects::{condition, is_true},
        reconciler,
    },
    process::{Process, until},
};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The label of everything that is made.
pub const OURS: &str = "app.kubernetes.io/managed-by=adit";
/// What is made for an HTTPProxy.
pub const MADE: [Kind; 4] = [
    Kind::HTTP_ROUTE,
    Kind::BACKEND,
    Kind::ENVOY_PATCH_POLICY,
    Kind::BACKEND_TRAFFIC_POLICY,
];

/// A namespace and the reconciler that watches it.
pub struct Place {
    pub namespace: String,
    pub objects: Objects,
    pub reconciler: Process,
    pub admin: Admin,
    /// The EndpointId of every connector here.
    id: String,
    _dir: TempDir,
}

impl Place {
    pub async fn start(plane: &ControlPlane, namespace: &str, flags: &[&str]) -> Result<Self> {
        let objects = plane.admin().await?;
        objects.make_namespace(namespace, &[]).await?;
        let dir = tempfile::Builder::new().prefix("reconcile-").tempdir()?;
        let mut all = vec!["--watch-namespace", namespace];
        all.extend(flags);
        let (reconciler, admin) =
            reconciler::start(dir.path(), &plane.kubeconfig(), namespace, &all).await?;
        let class = class(namespace);
        objects.apply("", class).await?;
        Ok(Self {
            namespace: namespace.to_owned(),
            objects,
            reconciler,
            admin,
            id: Key::new(dir.path(), "box")?.id,
            _dir: dir,
        })
    }

    pub async fn apply(&self, object: Value) -> Result<Value> {
        self.objects.apply(&self.namespace, object).await
    }

    /// A connector that advertises ports 80 and 81 of `localhost`.
    pub async fn connector(&self, name: &str) -> Result<()> {
        for object in connector(&self.namespace, name) {
            self.apply(object).await?;
        }
        self.connect(name, "192.0.2.1").await
    }

    /// What an agent says of itself.
    pub async fn connect(&self, name: &str, address: &str) -> Result<()> {
        let status = details(&self.id, address);
        let kind = Kind::CONNECTOR;
        self.objects
            .merge(kind, &self.namespace, name, Some("status"), &status)
            .await
            .map(drop)
    }

    pub async fn until(
        &self,
        kind: Kind,
        name: &str,
        what: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        self.objects
            .until(kind, &self.namespace, name, what, wanted)
            .await
            .with_context(|| self.reconciler.last_words())
    }

    pub async fn programmed(&self, proxy: &str) -> Result<Value> {
        let wanted = |object: &Value| is_true(object, "Programmed");
        self.until(Kind::HTTP_PROXY, proxy, "Programmed", wanted)
            .await
    }

    pub async fn refused(&self, proxy: &str, type_: &str, reason: &str) -> Result<Value> {
        let what = format!("{type_}=False/{reason}");
        self.until(Kind::HTTP_PROXY, proxy, &what, |object| {
            condition(object, type_)
                .is_some_and(|c| c["status"] == "False" && c["reason"] == reason)
        })
        .await
    }

    /// How often HTTPProxies were looked at, when nothing waits any more.
    pub async fn looks(&self) -> Result<u64> {
        let mut before = u64::MAX;
        let mut calm = 0;
        until("a calm reconciler", async || {
            let now = self.count().await.ok()?;
            calm = if now == before { calm + 1 } else { 0 };
            before = now;
            (calm >= 10).then_some(now)
        })
        .await
    }

    pub async fn count(&self) -> Result<u64> {
        let text = self.admin.get("/metrics").await?;
        let name = "adit_reconciler_reconciles_total{kind=\"HTTPProxy\"} ";
        let line = text.lines().find_map(|l| l.strip_prefix(name));
        Ok(line.map_or(Ok(0), str::parse)?)
    }

    pub async fn names(&self, kind: Kind) -> Result<Vec<String>> {
        let all = self.objects.list(kind, &self.namespace, OURS).await?;
        let mut names: Vec<_> = all.iter().map(name_of).collect();
        names.sort();
        Ok(names)
    }

    pub async fn reconciler_ends(mut self) -> Result<()> {
        let status = self.reconciler.terminate().await?;
        ensure!(status.success(), "{}", self.reconciler.last_words());
        Ok(())
    }

    pub async fn end(mut self) -> Result<()> {
        self.objects
            .delete_namespace(&self.namespace)
            .await
            .with_context(|| self.reconciler.last_words())?;
        let status = self.reconciler.terminate().await?;
        // Its own Lease went with the namespace, and it may have seen that first.
        let said = self.reconciler.last_words();
        ensure!(
            status.success() || said.contains("the Lease was deleted"),
            "{said}"
        );
        Ok(())
    }
}

pub fn name_of(object: &Value) -> String {
    let name = object["metadata"]["name"].as_str();
    name.unwrap_or_default().to_owned()
}

/// Classes have no namespace: each test has one of its own.
pub fn class(name: &str) -> Value {
    json!({
        "apiVersion": "networking.datumapis.com/v1alpha1", "kind": "ConnectorClass",
        "metadata": {"name": name}, "spec": {},
    })
}

pub fn connector(class: &str, name: &str) -> [Value; 2] {
    let version = "networking.datumapis.com/v1alpha1";
    let ports = json!([{"name": "a", "port": 80}, {"name": "b", "port": 81}]);
    let services = json!([{"address": "localhost", "ports": ports}]);
    [
        json!({
            "apiVersion": version, "kind": "Connector", "metadata": {"name": name},
            "spec": {"connectorClassName": class},
        }),
        json!({
            "apiVersion": version, "kind": "ConnectorAdvertisement", "metadata": {"name": name},
            "spec": {
                "connectorRef": {"name": name},
                "layer4": [{"name": "all", "services": services}],
            },
        }),
    ]
}

pub fn details(id: &str, address: &str) -> Value {
    json!({"status": {"connectionDetails": {"type": "PublicKey", "publicKey": {
        "id": id, "homeRelay": "https://relay.example.com/", "discoveryMode": "DNS",
        "addresses": [{"address": address, "port": 4242}],
    }}}})
}

pub fn proxy(name: &str, host: &str, port: u16) -> Value {
    let endpoint = format!("http://localhost:{port}");
    json!({
        "apiVersion": "networking.datumapis.com/v1alpha", "kind": "HTTPProxy",
        "metadata": {"name": name},
        "spec": {"hostnames": [host], "rules": [{
            "backends": [{"endpoint": endpoint, "connector": {"name": "box"}}],
        }]},
    })
}

/// A place with a Gateway of its own named `edge` and the HTTPProxy `web`.
pub async fn one_proxy(stack: &Stack, namespace: &str) -> Result<Place> {
    let objects = stack.admin().await?;
    objects.make_namespace(namespace, &[]).await?;
    stack
        .make_gateway(Class::Envoy140, namespace, "edge")
        .await?;
    let gateway = format!("{namespace}/edge");
    let place = Place::start(&stack.plane, namespace, &["--gateway", &gateway]).await?;
    place.connector("box").await?;
    place.apply(proxy("web", "web.test", 80)).await?;
    place.programmed("web").await?;
    Ok(place)
}
