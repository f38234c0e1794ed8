//! etcd, kube-apiserver and kube-controller-manager as children.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
};

use adit_api::crds;
use anyhow::{Context, Result};
use http::Request;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::OnceCell;

use super::{
    Kind, Objects,
    audit::{self, Mark, Write},
    certs::Authority,
    programs::{crd_files, program},
};
use crate::process::Process;

/// How often ports are chosen anew: another process may take a port between our
/// choosing and the child's listening.
const ATTEMPTS: usize = 3;

/// A Kubernetes API with every CRD that Adit needs, RBAC, and the controllers
/// that delete what has no owner and empty a deleted namespace. No nodes, no
/// scheduler, no admission of ServiceAccounts. It ends when it is dropped.
pub struct ControlPlane {
    /// Where the API server listens.
    pub api: SocketAddr,
    authority: Authority,
    children: Mutex<Vec<Process>>,
    dir: TempDir,
}

impl ControlPlane {
    /// Starts one of its own.
    pub async fn start() -> Result<Self> {
        let mut attempt = 1;
        loop {
            match Self::try_start().await {
                Err(error)
                    if attempt < ATTEMPTS && format!("{error:#}").contains("already in use") =>
                {
                    attempt += 1;
                }
                done => return done,
            }
        }
    }

    /// The one that all tests of this binary share; it ends with the process, so
    /// the test must be inside ([`super::enter`]), which this sees to.
    pub async fn shared() -> Result<&'static Self> {
        static SHARED: OnceCell<ControlPlane> = OnceCell::const_new();
        super::enter()?;
        SHARED.get_or_try_init(Self::start).await
    }

    async fn try_start() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("adit-plane-").tempdir()?;
        let [etcd, peers, api] = free_ports()?;
        let authority = Authority::new()?;
        let plane = Self {
            api,
            authority,
            children: Mutex::default(),
            dir,
        };
        plane.write_files()?;
        plane.keep(plane.start_etcd(etcd, peers).await?);
        plane.keep(plane.start_api_server(etcd).await?);
        let objects = plane.admin().await?;
        install_crds(&objects).await?;
        // After the CRDs: the garbage collector looks for new kinds only every
        // 30 s (its monitors' resync).
        plane.keep(plane.start_controllers()?);
        Ok(plane)
    }

    /// The folder of everything it writes, logs included.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The kubeconfig of one who may do everything.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir().join("admin.kubeconfig")
    }

    /// The objects, seen by one who may do everything.
    pub async fn admin(&self) -> Result<Objects> {
        Objects::open(&self.kubeconfig()).await
    }

    /// The kubeconfig of a user without any right until a role is bound to it. A
    /// ServiceAccount is `system:serviceaccount:<namespace>:<name>`.
    pub fn user(&self, name: &str) -> Result<PathBuf> {
        self.authority
            .kubeconfig(self.dir(), self.api, name, &["system:authenticated"])
    }

    /// A user with exactly these rules (as in a Role's `rules`), in one namespace
    /// or, if that is empty, everywhere.
    pub async fn user_with(&self, name: &str, namespace: &str, rules: Value) -> Result<PathBuf> {
        let role = name.replace(':', "-");
        let prefix = if namespace.is_empty() { "Cluster" } else { "" };
        let meta = json!({"name": role});
        let group = "rbac.authorization.k8s.io";
        let version = format!("{group}/v1");
        let objects = self.admin().await?;
        objects
            .apply(
                namespace,
                json!({
                    "apiVersion": version, "kind": format!("{prefix}Role"),
                    "metadata": meta, "rules": rules,
                }),
            )
            .await?;
        objects
            .apply(
                namespace,
                json!({
                    "apiVersion": version, "kind": format!("{prefix}RoleBinding"),
                    "metadata": meta,
                    "roleRef": {"apiGroup": group, "kind": format!("{prefix}Role"), "name": role},
                    "subjects": [{"apiGroup": group, "kind": "User", "name": name}],
                }),
            )
            .await?;
        self.user(name)
    }

    /// This moment, for [`ControlPlane::writes_since`].
    pub fn mark(&self) -> Mark {
        audit::mark(&self.audit_log())
    }

    /// Every write since then to Adit's, Gateway API's and Envoy Gateway's kinds,
    /// Leases and DNSEndpoints.
    pub fn writes_since(&self, mark: Mark) -> Result<Vec<Write>> {
        audit::since(&self.audit_log(), mark)
    }

    /// The last lines of every child's log, for a message about a failure.
    pub fn last_words(&self) -> String {
        let children = self.children.lock().unwrap_or_else(PoisonError::into_inner);
        let words = children.iter().map(|child| {
            let log = child.log_file();
            format!("--- {}\n{}\n", log.display(), child.last_words())
        });
        words.collect()
    }

    fn audit_log(&self) -> PathBuf {
        self.dir().join("audit.log")
    }

    fn keep(&self, child: Process) {
        let mut children = self.children.lock().unwrap_or_else(PoisonError::into_inner);
        // The newest first: they are dropped in this order, and those that use
        // a child end before it.
        children.insert(0, child);
    }

    fn write_files(&self) -> Result<()> {
        let write = |name: &str, text: &str| {
            let path = self.dir().join(name);
            fs::write(&path, text).with_context(|| format!("write {}", path.display()))
        };
        let server = self.authority.server(&["127.0.0.1", "localhost"])?;
        write("ca.crt", self.authority.pem())?;
        write("apiserver.crt", &server.cert)?;
        write("apiserver.key", &server.key)?;
        let signer = rcgen::KeyPair::generate()?;
        write("sa.key", &signer.serialize_pem())?;
        write("sa.pub", &signer.public_key_pem())?;
        write("audit.json", &audit::policy().to_string())?;
        // What RBAC calls the group that may do everything.
        self.authority
            .kubeconfig(self.dir(), self.api, "admin", &["system:masters"])?;
        Ok(())
    }

    async fn start_etcd(&self, clients: SocketAddr, peers: SocketAddr) -> Result<Process> {
        let mut command = Command::new(program("etcd")?);
        command
            .arg("--data-dir")
            .arg(self.dir().join("etcd"))
            .arg(format!("--listen-client-urls=http://{clients}"))
            .arg(format!("--advertise-client-urls=http://{clients}"))
            .arg(format!("--listen-peer-urls=http://{peers}"))
            .args(["--unsafe-no-fsync=true", "--log-level=warn"]);
        let mut etcd = Process::start("etcd", self.dir(), &mut command)?;
        let admin = crate::admin::Admin::Tcp(clients);
        etcd.until("healthy etcd", async || admin.get("/health").await.ok())
            .await?;
        Ok(etcd)
    }

    async fn start_api_server(&self, etcd: SocketAddr) -> Result<Process> {
        let file = |flag: &str, name: &str| format!("--{flag}={}", self.dir().join(name).display());
        let mut command = Command::new(program("kube-apiserver")?);
        command
            .arg(format!("--etcd-servers=http://{etcd}"))
            .arg(format!("--secure-port={}", self.api.port()))
            .args(["--bind-address=127.0.0.1", "--advertise-address=127.0.0.1"])
            .arg("--service-cluster-ip-range=10.0.0.0/24")
            .args(["--allow-privileged=true", "--authorization-mode=RBAC"])
            // A ServiceAccount would need its token before its pods; there are none.
            .arg("--disable-admission-plugins=ServiceAccount")
            .arg(file("cert-dir", "cert"))
            .arg(file("tls-cert-file", "apiserver.crt"))
            .arg(file("tls-private-key-file", "apiserver.key"))
            .arg(file("client-ca-file", "ca.crt"))
            .arg(format!("--service-account-issuer=https://{}/", self.api))
            .arg(file("service-account-key-file", "sa.pub"))
            .arg(file("service-account-signing-key-file", "sa.key"))
            .arg(file("audit-policy-file", "audit.json"))
            .arg(file("audit-log-path", "audit.log"))
            // A test reads the log right after a write: it must be there.
            .arg("--audit-log-mode=blocking");
        let mut server = Process::start("kube-apiserver", self.dir(), &mut command)?;
        let objects = self.admin().await?;
        server
            .until("ready API server", async || {
                let request = Request::get("/readyz").body(Vec::new()).ok()?;
                objects.client.request_text(request).await.ok()
            })
            .await?;
        Ok(server)
    }

    fn start_controllers(&self) -> Result<Process> {
        let mut command = Command::new(program("kube-controller-manager")?);
        command
            .arg("--kubeconfig")
            .arg(self.kubeconfig())
            .args(["--leader-elect=false", "--secure-port=0"])
            .arg("--use-service-account-credentials=false")
            .arg("--controllers=garbage-collector-controller,namespace-controller");
        Process::start("kube-controller-manager", self.dir(), &mut command)
    }
}

/// Ports on loopback that are free now.
fn free_ports<const N: usize>() -> Result<[SocketAddr; N]> {
    let mut addrs = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)); N];
    let mut held = Vec::new();
    for addr in &mut addrs {
        let listener = TcpListener::bind(*addr)?;
        *addr = listener.local_addr()?;
        held.push(listener);
    }
    Ok(addrs)
}

/// Gateway API's, Envoy Gateway's and Adit's CRDs, and waits until all serve.
async fn install_crds(objects: &Objects) -> Result<()> {
    let mut all: Vec<Value> = crds()
        .iter()
        .map(serde_json::to_value)
        .collect::<Result<_, _>>()?;
    for file in crd_files()? {
        let text = fs::read_to_string(&file)?;
        let documents: Vec<Value> =
            serde_saphyr::from_multiple(&text).with_context(|| file.display().to_string())?;
        all.extend(documents);
    }
    let mut names = Vec::new();
    for mut object in all {
        // Gateway API's bundle has a policy against downgrades too: not needed.
        if object["kind"] != "CustomResourceDefinition" {
            continue;
        }
        // The API server writes it itself, and refuses null in it.
        if let Some(map) = object.as_object_mut() {
            map.remove("status");
        }
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        names.push(name.to_owned());
        objects.apply("", object).await?;
    }
    for name in names {
        let served = |crd: &Value| {
            super::objects::condition(crd, "Established").is_some_and(|c| c["status"] == "True")
        };
        objects
            .until(Kind::CRD, "", &name, "Established", served)
            .await?;
    }
    Ok(())
}
