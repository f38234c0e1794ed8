//! Namespaces for a dialer, and the agent's and the reconciler's parts.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use adit_tests::{
    bare::{self, Dialer},
    client::patiently,
    fake_connector::FakeConnector,
    keys::Key,
    kube::{ControlPlane, Kind, Objects},
};
use adit_wire::Target;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

/// Namespaces of its own: one with Connectors, one for the dialer's Lease, one
/// with the Gateway's policies.
pub struct Stage {
    pub objects: Objects,
    pub connectors: String,
    pub dialers: String,
    pub gateways: String,
    pub kubeconfig: PathBuf,
    pub key: Key,
    pub dir: TempDir,
}

impl Stage {
    pub async fn new(name: &str) -> Result<Self> {
        Self::on(ControlPlane::shared().await?, name).await
    }

    pub async fn on(plane: &ControlPlane, name: &str) -> Result<Self> {
        let objects = plane.admin().await?;
        let [connectors, dialers, gateways] =
            ["connectors", "dialers", "gateways"].map(|part| format!("{name}-{part}"));
        for namespace in [&connectors, &dialers, &gateways] {
            objects.make_namespace(namespace, &[]).await?;
        }
        let user = format!("{name}-dialer");
        let [everywhere, own, gateway] = rules()?;
        plane.user_with(&user, "", everywhere).await?;
        plane.user_with(&user, &dialers, own).await?;
        let kubeconfig = plane.user_with(&user, &gateways, gateway).await?;
        let dir = tempfile::Builder::new().prefix("adit-dialer-").tempdir()?;
        let key = Key::new(dir.path(), "dialer")?;
        Ok(Self {
            objects,
            connectors,
            dialers,
            gateways,
            kubeconfig,
            key,
            dir,
        })
    }

    /// The dialer, without a hint in its file.
    pub fn command(&self, flags: &[&str]) -> Result<Command> {
        let mut command = Dialer::command(self.dir.path(), &self.key, &[])?;
        command
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args(["--namespace", &self.dialers])
            .args(flags);
        Ok(command)
    }

    pub async fn start(&self, flags: &[&str]) -> Result<Dialer> {
        Dialer::run(self.dir.path(), self.command(flags)?).await
    }

    /// A Connector whose agent has said where it is.
    pub async fn connector(&self, namespace: &str, name: &str, details: Value) -> Result<()> {
        let version = "networking.datumapis.com/v1alpha1";
        let object = json!({
            "apiVersion": version, "kind": "Connector", "metadata": {"name": name},
            "spec": {"connectorClassName": "datum-connect"},
        });
        self.objects.apply(namespace, object).await?;
        let status = json!({"status": {"connectionDetails": details}});
        self.objects
            .merge(Kind::CONNECTOR, namespace, name, Some("status"), &status)
            .await
            .map(drop)
    }

    /// As the reconciler writes it, but for the patches, which nobody reads here.
    pub async fn policy(&self, name: &str, targets: &[&Target]) -> Result<()> {
        let targets: Vec<_> = targets.iter().map(|t| t.to_base64()).collect();
        let object = json!({
            "apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": "EnvoyPatchPolicy",
            "metadata": {
                "name": name,
                "labels": {"app.kubernetes.io/managed-by": "adit"},
                "annotations": {"networking.datumapis.com/targets": targets.join(",")},
            },
            "spec": {
                "type": "JSONPatch",
                "targetRef": {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "gw"},
                "jsonPatches": [{
                    "type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "name": "none",
                    "operation": {"op": "add", "path": "/connect_timeout", "value": "1s"},
                }],
            },
        });
        self.objects.apply(&self.gateways, object).await.map(drop)
    }
}

pub fn details(fake: &FakeConnector) -> Value {
    json!({"type": "PublicKey", "publicKey": {
        "id": fake.id, "discoveryMode": "DNS",
        "addresses": [{"address": fake.addr.ip().to_string(), "port": fake.addr.port()}],
    }})
}

/// The rules of the roles that are shipped: everywhere, in its own namespace, in
/// the Gateway's.
pub fn rules() -> Result<[Value; 3]> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("../envoy/kubernetes/rbac-dialer.yaml"))?;
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text)?;
    let find = |kind: &str, namespace: Option<&str>| {
        let found = documents
            .iter()
            .find(|d| d["kind"] == kind && d["metadata"]["namespace"].as_str() == namespace);
        found
            .map(|d| d["rules"].clone())
            .with_context(|| format!("a {kind} in {namespace:?}"))
    };
    Ok([
        find("ClusterRole", None)?,
        find("Role", Some("adit-dialers"))?,
        find("Role", Some("gateways"))?,
    ])
}

pub fn target(fake: &FakeConnector, port: u16) -> Result<Target> {
    let service = format!("service.internal.test:{port}");
    bare::target(&[&fake.id], &service, Duration::from_secs(5))
}

/// A request to the fake connector's service, and its answer.
pub async fn answers(stream: &mut UnixStream) -> Result<()> {
    patiently("an answer", async {
        stream
            .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            .await?;
        let mut got = Vec::new();
        while !got.ends_with(b"fake\n") {
            ensure!(
                stream.read_buf(&mut got).await? > 0,
                "closed before an answer"
            );
        }
        Ok(())
    })
    .await
}
