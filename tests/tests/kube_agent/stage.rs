//! An agent in a namespace of its own, and the reconciler's part.

use std::{fs, path::PathBuf};

use adit_tests::{
    client::patiently,
    connector::Connector,
    kube::{ControlPlane, Kind, Objects},
    services::tcp::{Manner, TcpService},
};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

/// The name in the role.
pub const EDGE: &str = "edge";

/// A namespace of its own, and the agent in it.
pub struct Stage {
    pub objects: Objects,
    pub namespace: String,
    pub agent: Connector,
    pub echo: TcpService,
    pub dir: TempDir,
}

impl Stage {
    pub async fn new(namespace: &str) -> Result<Self> {
        let plane = ControlPlane::shared().await?;
        Self::on(plane, namespace).await
    }

    pub async fn on(plane: &ControlPlane, namespace: &str) -> Result<Self> {
        let objects = plane.admin().await?;
        objects.make_namespace(namespace, &[]).await?;
        let role = rules()?;
        let user = format!("{namespace}-agent");
        let kubeconfig = plane.user_with(&user, namespace, role).await?;
        let dir = tempfile::Builder::new().prefix("adit-agent-").tempdir()?;
        let echo = TcpService::start(Manner::Echo)?;
        let agent = agent(&dir, "agent", &kubeconfig, namespace, &echo)?;
        Ok(Self {
            objects,
            namespace: namespace.to_owned(),
            agent,
            echo,
            dir,
        })
    }

    pub async fn connector(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let found = self
            .objects
            .until(Kind::CONNECTOR, &self.namespace, EDGE, what, wanted);
        let found = found.await;
        found.with_context(|| match &self.agent.process {
            Some(process) => process.last_words(),
            None => "the agent does not run".to_owned(),
        })
    }

    /// Plays the reconciler: the Lease, as it makes it.
    pub async fn make_lease(&self, seconds: u32) -> Result<()> {
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": EDGE},
            "spec": {"leaseDurationSeconds": seconds},
        });
        self.objects
            .apply_as("adit-reconciler", &self.namespace, lease)
            .await
            .map(drop)
    }

    /// Plays the reconciler: who may connect.
    pub async fn allow(&self, dialers: &[&str]) -> Result<()> {
        let accepted = json!({
            "type": "Accepted", "status": "True", "reason": "Accepted", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        });
        let status = json!({"status": {"allowedDialers": dialers, "conditions": [accepted]}});
        self.objects
            .merge(
                Kind::CONNECTOR,
                &self.namespace,
                EDGE,
                Some("status"),
                &status,
            )
            .await
            .map(drop)
    }

    pub async fn lease(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let found = self
            .objects
            .until(Kind::LEASE, &self.namespace, EDGE, what, wanted);
        let found = found.await;
        found.with_context(|| match &self.agent.process {
            Some(process) => process.last_words(),
            None => "the agent does not run".to_owned(),
        })
    }
}

/// An agent with a kubeconfig, and no allow-list of its own.
pub fn agent(
    dir: &TempDir,
    name: &str,
    kubeconfig: &std::path::Path,
    namespace: &str,
    echo: &TcpService,
) -> Result<Connector> {
    let targets = [echo.addr.to_string(), "*.corp.example:443".to_owned()];
    let mut agent = Connector::new(dir.path(), name, &[], &targets)?;
    agent.options.remove("allow");
    agent
        .set("kubeconfig", json!(kubeconfig))
        .set("namespace", json!(namespace))
        .set("name", json!(EDGE))
        .set("label", json!(["site=a"]))
        .set("device-name", json!(format!("{name}-device")));
    Ok(agent)
}

/// The rules of the role that is shipped.
pub fn rules() -> Result<Value> {
    let text = fs::read_to_string(manifest("rbac-connector.yaml"))?;
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text)?;
    let role = documents.into_iter().find(|d| d["kind"] == "Role");
    Ok(role.context("a Role")?["rules"].take())
}

fn manifest(name: &str) -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.join("../envoy/kubernetes").join(name)
}

pub fn has_details(connector: &Value) -> bool {
    connector["status"]["connectionDetails"]["publicKey"]["addresses"][0]["port"].is_u64()
}

pub fn renewed(lease: &Value) -> bool {
    lease["spec"]["renewTime"].is_string()
        && lease["spec"]["holderIdentity"]
            .as_str()
            .is_some_and(|h| !h.is_empty())
}

pub async fn echoes(stream: &mut UnixStream) -> Result<()> {
    patiently("an echo", async {
        stream.write_all(b"ping").await?;
        let mut got = [0; 4];
        stream.read_exact(&mut got).await?;
        ensure!(&got == b"ping", "{got:?}");
        Ok(())
    })
    .await
}

/// When it was, and what the agent said last.
pub fn at(when: &str, stage: &Stage) -> String {
    let words = stage.agent.process().map(|p| p.last_words());
    format!("{when}:\n{}", words.unwrap_or_default())
}
