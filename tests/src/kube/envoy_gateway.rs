//! Envoy Gateway as a child: it reads the Kubernetes API and runs Envoy as its
//! own child (its "Host" infrastructure).

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::programs::program;
use crate::{
    admin::Admin,
    binaries,
    process::{Process, descendants},
};

/// The namespace it keeps its own objects in, and where it looks for EnvoyProxies
/// of a GatewayClass.
pub const NAMESPACE: &str = "envoy-gateway-system";
/// What a GatewayClass names.
pub const CONTROLLER: &str = "gateway.envoyproxy.io/gatewayclass-controller";
/// Its own admin server; fixed.
const ADMIN: ([u8; 4], u16) = ([127, 0, 0, 1], 19000);

/// What of Envoy Gateway is switched on.
#[derive(Debug, Clone, Copy)]
pub struct Extensions {
    /// `extensionApis.enableEnvoyPatchPolicy`
    pub patch_policy: bool,
    /// `extensionApis.enableBackend`
    pub backend: bool,
}

impl Default for Extensions {
    fn default() -> Self {
        Self {
            patch_policy: true,
            backend: true,
        }
    }
}

/// An Envoy that Envoy Gateway started for a Gateway.
#[derive(Debug, Clone)]
pub struct ProxyProcess {
    /// Its process.
    pub pid: u32,
    /// Its admin server.
    pub admin: Admin,
}

/// A running Envoy Gateway; its Envoys end with it.
pub struct EnvoyGateway {
    /// The process and its log (its Envoys' logs are in the same file).
    pub process: Process,
}

impl EnvoyGateway {
    /// Starts it on the cluster of `kubeconfig` and waits until its caches are
    /// filled. `dir` keeps its certificates and files from one start to the next.
    pub async fn start(dir: &Path, kubeconfig: &Path, extensions: Extensions) -> Result<Self> {
        prepare(dir, extensions)?;
        let program = program("envoy-gateway")?;
        let mut command = with_certs(dir, &program)?;
        command
            .arg("server")
            .arg("--config-path")
            .arg(dir.join("config.yaml"))
            .env("KUBECONFIG", kubeconfig)
            .env("ENVOY_GATEWAY_NAMESPACE", NAMESPACE);
        let mut process = Process::start("envoy-gateway", dir, &mut command)?;
        let admin = Admin::Tcp(ADMIN.into());
        process
            .until("admin server of Envoy Gateway", async || {
                admin.get("/api/info").await.ok()
            })
            .await?;
        Ok(Self { process })
    }

    /// The Envoy of a Gateway (`<namespace>/<name>`), or of a GatewayClass whose
    /// Gateways are merged (`<name>`), if it runs and has an admin server.
    pub fn proxy(&self, of: &str) -> Option<ProxyProcess> {
        let all = descendants(self.process.pid());
        all.into_iter().find_map(|(pid, _)| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).into_owned();
            let words: Vec<_> = line.split('\0').collect();
            let after = |flag: &str| {
                let mut words = words.iter();
                words.find(|word| **word == flag)?;
                words.next().copied()
            };
            let cluster = after("--service-cluster")?;
            let file = after("--admin-address-path")?;
            let addr = fs::read_to_string(file).ok()?.trim().parse().ok()?;
            (cluster == of).then_some(ProxyProcess {
                pid,
                admin: Admin::Tcp(addr),
            })
        })
    }
}

/// The configuration file, the certificates of xDS, and each tested Envoy where
/// Envoy Gateway's func-e looks before it would download one.
fn prepare(dir: &Path, extensions: Extensions) -> Result<()> {
    let home = |name: &str| dir.join(name);
    let config = json!({
        "apiVersion": "gateway.envoyproxy.io/v1alpha1",
        "kind": "EnvoyGateway",
        "gateway": {"controllerName": CONTROLLER},
        "logging": {"level": {"default": "info"}},
        "provider": {"type": "Custom", "custom": {
            "resource": {"type": "Kubernetes", "kubernetes": {"leaderElection": {"disable": true}}},
            "infrastructure": {"type": "Host", "host": {
                "configHome": home("config"),
                "dataHome": home("data"),
                "stateHome": home("state"),
                "runtimeDir": home("run"),
            }},
        }},
        "extensionApis": {
            "enableEnvoyPatchPolicy": extensions.patch_policy,
            "enableBackend": extensions.backend,
        },
    });
    fs::create_dir_all(dir)?;
    // JSON is YAML.
    fs::write(home("config.yaml"), serde_json::to_vec_pretty(&config)?)?;
    if !home("config/certs").is_dir() {
        let output = Command::new(program("envoy-gateway")?)
            .args(["certgen", "--local", "--config-home"])
            .arg(home("config"))
            .stdin(Stdio::null())
            .output()
            .context("run envoy-gateway certgen")?;
        ensure!(
            output.status.success(),
            "envoy-gateway certgen: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    for version in binaries::ENVOYS {
        let bin = dir.join("data/envoy-versions").join(version).join("bin");
        if !bin.is_dir() {
            fs::create_dir_all(&bin)?;
            symlink(binaries::envoy(version)?, bin.join("envoy"))?;
        }
    }
    Ok(())
}

/// A command for a program that sees its xDS certificates in `/certs`. That path
/// is a constant in Envoy Gateway (internal/xds/runner), and the machine's own
/// root is not ours to write to: the program gets a root that is put together of
/// the machine's folders and that one.
fn with_certs(dir: &Path, program: &Path) -> Result<Command> {
    const SCRIPT: &str = r#"
set -e
root=$1 certs=$2
shift 2
mount -t tmpfs -o mode=755 tmpfs "$root"
for entry in /* /.[!.]*; do
    to=$root$entry
    if [ -L "$entry" ]; then cp -a "$entry" "$to"
    elif [ -d "$entry" ]; then mkdir -p "$to"; mount --rbind "$entry" "$to"
    fi
done
mkdir -p "$root/certs"
mount --bind "$certs" "$root/certs"
exec chroot "$root" "$@"
"#;
    let root: PathBuf = dir.join("root");
    fs::create_dir_all(&root)?;
    let mut command = Command::new("unshare");
    command
        .args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            SCRIPT,
            "sh",
        ])
        .arg(&root)
        .arg(dir.join("config/certs/envoy-gateway"))
        .arg(program);
    Ok(command)
}
