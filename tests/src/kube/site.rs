//! What a cluster that uses Adit has beside Envoy Gateway: a reconciler, and a
//! dialer beside Envoy. And the device far away: an agent that registers itself.

use std::{net::SocketAddr, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Class, Gateway, Kind, Objects, Stack, objects, reconciler};
use crate::{admin::Admin, binaries, connector::Connector, keys::Key, process::Process};

/// The class that agents ask for when nobody says another.
pub const CLASS: &str = "datum-connect";
/// How long an agent may be silent. A cluster has 30 s; nobody waits for that here.
pub const LEASE: &str = "6s";

/// One namespace with a Gateway, the reconciler that looks after it, and the
/// dialer beside the Gateway's Envoy.
pub struct Site {
    /// The namespace.
    pub namespace: String,
    /// The Gateway `edge` in it.
    pub gateway: Gateway,
    /// `adit reconciler`.
    pub reconciler: Process,
    /// Its admin server.
    pub admin: Admin,
    /// `adit dialer`.
    pub dialer: Dialer,
    /// The cluster's objects.
    pub objects: Objects,
    kubeconfig: std::path::PathBuf,
    dir: TempDir,
}

/// A dialer that publishes its EndpointId and watches Connectors.
pub struct Dialer {
    /// The process.
    pub process: Process,
    /// Its Unix socket.
    pub socket: std::path::PathBuf,
    /// Its admin server.
    pub admin: Admin,
    /// Its EndpointId.
    pub id: String,
    key: Key,
}

impl Site {
    /// Starts everything that a cluster has; no agent yet.
    pub async fn start(stack: &Stack, class: Class, namespace: &str) -> Result<Self> {
        Self::with(stack, class, namespace, &[]).await
    }

    /// As [`Site::start`], with more flags for the reconciler.
    pub async fn with(
        stack: &Stack,
        class: Class,
        namespace: &str,
        flags: &[&str],
    ) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("site-").tempdir()?;
        let objects = stack.admin().await?;
        objects.make_namespace(namespace, &[]).await?;
        let class_object = json!({
            "apiVersion": "networking.datumapis.com/v1alpha1", "kind": "ConnectorClass",
            "metadata": {"name": CLASS}, "spec": {},
        });
        objects.apply("", class_object).await?;
        let gateway = stack.make_gateway(class, namespace, "edge").await?;
        let kubeconfig = stack.plane.kubeconfig();
        let key = Key::new(dir.path(), "dialer")?;
        let dialer = Dialer::start(dir.path(), &kubeconfig, namespace, &key, "dialer", &[]).await?;
        let gateway_name = format!("{namespace}/edge");
        let socket = dialer.socket.to_string_lossy();
        let mut all = vec![
            "--watch-namespace",
            namespace,
            "--gateway",
            &gateway_name,
            "--dialer-socket",
            &socket,
        ];
        if !flags.contains(&"--lease-duration") {
            all.extend(["--lease-duration", LEASE]);
        }
        all.extend(flags);
        let (reconciler, admin) =
            reconciler::start(dir.path(), &kubeconfig, namespace, &all).await?;
        Ok(Self {
            namespace: namespace.to_owned(),
            gateway,
            reconciler,
            admin,
            dialer,
            objects,
            kubeconfig,
            dir,
        })
    }

    /// Where clients reach the Gateway.
    pub fn addr(&self) -> SocketAddr {
        self.gateway.addr
    }

    /// The folder of this site's processes.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// An agent of this name for these services (`host:port`), not started yet.
    /// It lets in whom the control plane names, nobody else.
    pub fn agent(&self, name: &str, targets: &[String]) -> Result<Connector> {
        let mut agent = Connector::new(self.dir.path(), name, &[], targets)?;
        agent
            .set("kubeconfig", json!(self.kubeconfig))
            .set("namespace", json!(self.namespace))
            .set("name", json!(name));
        Ok(agent)
    }

    /// Another dialer beside another Envoy.
    pub async fn another_dialer(&self, name: &str) -> Result<Dialer> {
        let key = Key::new(self.dir.path(), name)?;
        let dir = self.dir.path();
        Dialer::start(dir, &self.kubeconfig, &self.namespace, &key, name, &[]).await
    }

    /// Ends the dialer and starts it again, with more flags.
    pub async fn restart_dialer(&mut self, flags: &[&str]) -> Result<()> {
        self.dialer.process.terminate().await?;
        let (dir, key) = (self.dir.path(), &self.dialer.key);
        self.dialer =
            Dialer::start(dir, &self.kubeconfig, &self.namespace, key, "dialer", flags).await?;
        Ok(())
    }

    /// Applies an HTTPProxy for `hostname` with these rules.
    pub async fn proxy(&self, name: &str, hostname: &str, rules: Value) -> Result<()> {
        let proxy = json!({
            "apiVersion": "networking.datumapis.com/v1alpha", "kind": "HTTPProxy",
            "metadata": {"name": name},
            "spec": {"hostnames": [hostname], "rules": rules},
        });
        self.objects.apply(&self.namespace, proxy).await.map(drop)
    }

    /// Waits until a condition of an HTTPProxy is `True` for its generation.
    pub async fn until_true(&self, proxy: &str, condition: &str) -> Result<Value> {
        let wanted = |object: &Value| objects::is_true(object, condition);
        self.until(Kind::HTTP_PROXY, proxy, condition, wanted).await
    }

    /// Waits until a condition of an object says `False` for this reason.
    pub async fn until_false(
        &self,
        kind: Kind,
        name: &str,
        condition: &str,
        reason: &str,
    ) -> Result<Value> {
        let what = format!("{condition}=False/{reason}");
        self.until(kind, name, &what, |object| {
            objects::condition(object, condition)
                .is_some_and(|c| c["status"] == "False" && c["reason"] == reason)
        })
        .await
    }

    /// Waits until an object is as wanted; a failure says what the processes of
    /// this site said last.
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
            .with_context(|| self.last_words())
    }

    /// What the site's processes said last.
    pub fn last_words(&self) -> String {
        format!(
            "--- reconciler\n{}\n--- dialer\n{}",
            self.reconciler.last_words(),
            self.dialer.process.last_words()
        )
    }

    /// Deletes the namespace; nothing may be left in it or stuck.
    pub async fn end(self) -> Result<()> {
        self.objects
            .delete_namespace(&self.namespace)
            .await
            .with_context(|| self.last_words())
    }
}

impl Dialer {
    async fn start(
        dir: &Path,
        kubeconfig: &Path,
        namespace: &str,
        key: &Key,
        name: &str,
        flags: &[&str],
    ) -> Result<Self> {
        let socket = dir.join(format!("{name}.sock"));
        let admin = dir.join(format!("{name}-admin.sock"));
        let mut command = Command::new(binaries::adit()?);
        command
            .arg("dialer")
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .args(["--namespace", namespace, "--gateway-namespace", namespace])
            .args(["--watch-namespace", namespace])
            .arg("--socket")
            .arg(&socket)
            .arg("--key-file")
            .arg(&key.file)
            .args(["--bind", "127.0.0.1:0"])
            .arg("--admin")
            .arg(format!("unix:{}", admin.display()))
            .args(flags)
            .env_clear();
        let mut process = Process::start(name, dir, &mut command)?;
        let admin = Admin::Unix(admin);
        let ready = admin.clone();
        process
            .until("ready dialer", async || ready.get("/readyz").await.ok())
            .await?;
        ensure!(socket.exists(), "the dialer is ready without its socket");
        Ok(Self {
            process,
            socket,
            admin,
            id: key.id.clone(),
            key: key.clone(),
        })
    }
}

/// A rule that sends `prefix` to `endpoint` through the Connector `connector`.
pub fn rule(prefix: &str, connector: &str, endpoint: &str) -> Value {
    json!({
        "matches": [{"path": {"type": "PathPrefix", "value": prefix}}],
        "backends": [{"endpoint": endpoint, "connector": {"name": connector}}],
    })
}

/// A rule that serves CONNECT to `endpoint`, a `tcp://` URL.
pub fn tunnel(connector: &str, endpoint: &str) -> Value {
    json!({"backends": [{"endpoint": endpoint, "connector": {"name": connector}}]})
}
