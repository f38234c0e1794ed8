//! Namespaces, a class and a reconciler of one test, and the agent's part.

use adit_reconciler::kubernetes::{self, options::Options};
use adit_tests::{
    client::PATIENCE,
    kube::{ControlPlane, Kind, Objects},
};
use adit_wire::EndpointId;
use anyhow::{Context as _, Result};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// What one test works with. Dropped without [`Site::end`], its reconciler ends
/// with the test's runtime.
pub struct Site {
    pub plane: &'static ControlPlane,
    pub objects: Objects,
    /// Of Connectors.
    pub namespace: String,
    /// Of more Connectors.
    pub second: String,
    /// Where dialers are trusted.
    pub dialers: String,
    reconciler: Option<(CancellationToken, JoinHandle<Result<()>>)>,
}

/// The EndpointId of 32 times this byte.
pub fn id(byte: u8) -> String {
    EndpointId::from_bytes([byte; 32]).to_string()
}

/// A Connector of a class.
pub fn connector(name: &str, class: &str) -> Value {
    json!({
        "apiVersion": "networking.datumapis.com/v1alpha1", "kind": "Connector",
        "metadata": {"name": name}, "spec": {"connectorClassName": class},
    })
}

impl Site {
    pub async fn new(name: &str) -> Result<Self> {
        Self::with(name, json!({})).await
    }

    /// With options of `adit reconciler`, as in its file.
    pub async fn with(name: &str, options: Value) -> Result<Self> {
        let plane = ControlPlane::shared().await?;
        let objects = plane.admin().await?;
        let mut site = Self {
            plane,
            objects,
            namespace: name.into(),
            second: format!("{name}-2"),
            dialers: format!("{name}-dialers"),
            reconciler: None,
        };
        for namespace in [&site.namespace, &site.second, &site.dialers] {
            site.objects.make_namespace(namespace, &[]).await?;
        }
        let class = json!({
            "apiVersion": "networking.datumapis.com/v1alpha1", "kind": "ConnectorClass",
            "metadata": {"name": "datum-connect"},
            "spec": {"controllerName": "networking.datumapis.com/datum-connect"},
        });
        site.objects.apply("", class).await?;
        site.start(options).await?;
        Ok(site)
    }

    /// Starts the reconciler.
    pub async fn start(&mut self, options: Value) -> Result<()> {
        let mut all = json!({
            "kubeconfig": self.plane.kubeconfig(),
            "namespace": self.dialers,
            "watch-namespace": [self.namespace, self.second],
            "leader-election": false,
            "admin": "127.0.0.1:0",
            "grace-period": "2s",
        });
        for (key, value) in options.as_object().context("options")? {
            all[key] = value.clone();
        }
        let options: Options = serde_json::from_value(all)?;
        let config = options.resolve()?;
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let task = tokio::spawn(async move { Ok(kubernetes::run(config, stopped).await?) });
        self.reconciler = Some((stop, task));
        Ok(())
    }

    /// Stops the reconciler and waits for its end.
    pub async fn stop(&mut self) -> Result<()> {
        if let Some((stop, task)) = self.reconciler.take() {
            stop.cancel();
            tokio::time::timeout(PATIENCE, task)
                .await
                .context("the reconciler does not end")???;
        }
        Ok(())
    }

    pub async fn end(mut self) -> Result<()> {
        self.stop().await
    }

    /// A Connector of our class.
    pub async fn connector(&self, namespace: &str, name: &str) -> Result<Value> {
        self.objects
            .apply(namespace, connector(name, "datum-connect"))
            .await
    }

    pub async fn advertisement(&self, namespace: &str, name: &str, of: &str) -> Result<Value> {
        let object = json!({
            "apiVersion": "networking.datumapis.com/v1alpha1", "kind": "ConnectorAdvertisement",
            "metadata": {"name": name},
            "spec": {"connectorRef": {"name": of}, "layer4": [{"name": "all", "services": [
                {"address": "127.0.0.1", "ports": [{"name": "http", "port": 8080}]}]}]},
        });
        self.objects
            .apply_as("adit-connector", namespace, object)
            .await
    }

    /// The agent reports where it is: the key of 32 times `byte`.
    pub async fn report(
        &self,
        namespace: &str,
        name: &str,
        byte: u8,
        addresses: &[&str],
    ) -> Result<()> {
        let addresses: Vec<_> = addresses
            .iter()
            .map(|a| {
                let a: std::net::SocketAddr = a.parse().expect("an address");
                json!({"address": a.ip().to_string(), "port": a.port()})
            })
            .collect();
        let details = json!({"type": "PublicKey", "publicKey": {
            "id": id(byte), "discoveryMode": "DNS",
            "homeRelay": "https://relay.example/", "addresses": addresses}});
        self.report_details(namespace, name, details).await
    }

    /// The agent reports these connection details.
    pub async fn report_details(&self, namespace: &str, name: &str, details: Value) -> Result<()> {
        let status = json!({
            "apiVersion": "networking.datumapis.com/v1alpha1", "kind": "Connector",
            "metadata": {"name": name, "namespace": namespace},
            "status": {
                "connectionDetails": details,
                "capabilities": [{"type": "ConnectTCP"}],
            },
        });
        let params = PatchParams::apply("adit-connector").force();
        let api = self.objects.api(Kind::CONNECTOR, namespace);
        api.patch_status(name, &params, &Patch::Apply(&status))
            .await?;
        Ok(())
    }

    /// The agent renews its Lease.
    pub async fn renew(&self, namespace: &str, name: &str, holder: Option<&str>) -> Result<()> {
        self.renew_at(namespace, name, holder, 0).await
    }

    /// The same, by a clock that is wrong by so many seconds.
    pub async fn renew_at(
        &self,
        namespace: &str,
        name: &str,
        holder: Option<&str>,
        wrong: i64,
    ) -> Result<()> {
        let patch = json!({"spec": {"renewTime": time(wrong), "holderIdentity": holder}});
        self.objects
            .merge(Kind::LEASE, namespace, name, None, &patch)
            .await?;
        Ok(())
    }

    /// A dialer says who it is, where dialers are trusted.
    pub async fn dialer(&self, name: &str, holder: &str) -> Result<()> {
        self.dialer_in(&self.dialers, name, holder).await
    }

    pub async fn dialer_in(&self, namespace: &str, name: &str, holder: &str) -> Result<()> {
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": name, "labels": {"networking.datumapis.com/dialer": "true"}},
            "spec": {"holderIdentity": holder, "leaseDurationSeconds": 30, "renewTime": time(0)},
        });
        self.objects
            .apply_as("adit-dialer", namespace, lease)
            .await?;
        Ok(())
    }
}

fn time(wrong: i64) -> String {
    let at = Timestamp::now() + SignedDuration::from_secs(wrong);
    at.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}
