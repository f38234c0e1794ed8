//! Runs the containers of a pod as a kubelet would, as far as one machine can:
//! the same command and arguments, uid, mounts and read-only root, the token of
//! its ServiceAccount, and no capability. What a kubelet does beyond that (images,
//! probes, restarts, cgroups, seccomp) is not done.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{ControlPlane, Objects};
use crate::process::Process;

/// Puts a root together of the machine's programs and a pod's mounts, and starts
/// a program in it. Mounts are triples: from where, to where, `ro` or `rw`.
const SCRIPT: &str = r#"
set -e
root=$1 uid=$2 gid=$3 groups=$4 mounts=$5
shift 5
mount -t tmpfs -o mode=755 tmpfs "$root"
for entry in /bin /sbin /lib /lib64 /usr /etc /dev /proc; do
    to=$root$entry
    if [ -L "$entry" ]; then cp -a "$entry" "$to"
    elif [ -d "$entry" ]; then mkdir "$to"; mount --rbind "$entry" "$to"
    fi
done
set -f
while [ "$mounts" -gt 0 ]; do
    from=$1 to=$root$2 how=$3
    shift 3
    mounts=$((mounts - 1))
    if [ -d "$from" ]; then
        mkdir -p "$to"
    else
        mkdir -p "$(dirname "$to")"; : > "$to"
    fi
    mount --bind "$from" "$to"
    mount -o "remount,bind,$how" "$to"
done
for entry in /usr /etc; do mount -o remount,bind,ro "$root$entry"; done
mount -o remount,ro "$root"
exec chroot "$root" setpriv --reuid "$uid" --regid "$gid" --groups "$groups" \
    --no-new-privs --bounding-set=-all --inh-caps=-all -- "$@"
"#;

/// A pod: its volumes, and what its containers are started with.
pub struct Pod {
    namespace: String,
    spec: Value,
    /// Where each volume is on this machine.
    volumes: BTreeMap<String, PathBuf>,
    api: std::net::SocketAddr,
    dir: TempDir,
}

impl Pod {
    /// A pod of this `spec`: its volumes, filled. `known` are volumes that are
    /// somewhere already.
    pub async fn new(
        plane: &ControlPlane,
        namespace: &str,
        spec: &Value,
        known: &[(&str, &Path)],
    ) -> Result<Self> {
        let objects = plane.admin().await?;
        let mut pod = Self {
            namespace: namespace.to_owned(),
            spec: spec.clone(),
            volumes: BTreeMap::new(),
            api: plane.api,
            dir: tempfile::Builder::new().prefix("pod-").tempdir()?,
        };
        let group = spec["securityContext"]["fsGroup"].as_u64();
        let group = group.map(u32::try_from).transpose()?;
        for volume in spec["volumes"].as_array().into_iter().flatten() {
            let name = volume["name"].as_str().context("a volume's name")?;
            let known = known.iter().find(|(known, _)| *known == name);
            let path = match known {
                Some((_, path)) => path.to_path_buf(),
                None => pod.make(plane, &objects, name, volume, group).await?,
            };
            pod.volumes.insert(name.to_owned(), path);
        }
        // Without a volume for it, a kubelet brings the token by itself.
        if spec["automountServiceAccountToken"] == true {
            let dir = pod.dir.path().join("automount");
            let wanted = json!({"serviceAccountToken": {"path": "token"}});
            pod.project(plane, &objects, &dir, &[wanted], group).await?;
            pod.volumes.insert(TOKEN.into(), dir);
        }
        Ok(pod)
    }

    /// The folder of a volume.
    pub fn volume(&self, name: &str) -> Result<&Path> {
        let found = self.volumes.get(name);
        Ok(found.with_context(|| format!("no volume {name}"))?)
    }

    /// The folder of its containers' logs.
    pub fn logs(&self) -> &Path {
        self.dir.path()
    }

    /// Starts a container. `files` are what its image has: from where, and where.
    pub fn start(&self, container: &str, files: &[(&Path, &str)]) -> Result<Process> {
        let mut command = self.command(container, files)?;
        Process::start(container, self.dir.path(), &mut command)
    }

    /// Runs a container to its end; what it wrote.
    pub async fn run(&self, container: &str, files: &[(&Path, &str)]) -> Result<String> {
        let mut process = self.start(container, files)?;
        let status = process.wait().await?;
        let log = process.log();
        ensure!(status.success(), "{container}: {status}:\n{log}");
        Ok(log)
    }

    fn command(&self, name: &str, files: &[(&Path, &str)]) -> Result<Command> {
        let lists = ["initContainers", "containers"];
        let all = lists.iter().filter_map(|list| self.spec[list].as_array());
        let container = all
            .flatten()
            .find(|container| container["name"] == name)
            .with_context(|| format!("no container {name}"))?;
        let security = &container["securityContext"];
        let id = |key: &str| -> Result<String> {
            let own = security[key].as_u64();
            let id = own.or(self.spec["securityContext"][key].as_u64());
            Ok(id.with_context(|| format!("{name}: {key}"))?.to_string())
        };
        ensure!(security["readOnlyRootFilesystem"] == true, "{name}");
        let (uid, gid) = (id("runAsUser")?, id("runAsGroup")?);
        let groups = id("fsGroup").unwrap_or_else(|_| gid.clone());
        let mut mounts: Vec<String> = Vec::new();
        let mut mount = |from: &Path, to: &str, how: &str| {
            mounts.extend([from.display().to_string(), to.into(), how.into()]);
        };
        for (from, to) in files {
            mount(from, to, "ro");
        }
        let mut token = false;
        for wanted in container["volumeMounts"].as_array().into_iter().flatten() {
            let path = wanted["mountPath"].as_str().context("mountPath")?;
            // Those are the machine's own folders in that root.
            ensure!(
                !path.starts_with("/usr/") && !path.starts_with("/etc/"),
                "{path}"
            );
            token |= path == TOKEN;
            let how = if wanted["readOnly"] == true {
                "ro"
            } else {
                "rw"
            };
            let volume = wanted["name"].as_str().context("a mount's name")?;
            mount(self.volume(volume)?, path, how);
        }
        if let (false, Some(path)) = (token, self.volumes.get(TOKEN)) {
            mount(path, TOKEN, "ro");
        }
        let root = self.dir.path().join(format!("root-{name}"));
        fs::create_dir_all(&root)?;
        let words = |key: &str| -> Vec<String> {
            let all = container[key].as_array().into_iter().flatten();
            all.filter_map(|w| w.as_str().map(str::to_owned)).collect()
        };
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation", "private"])
            .args(["sh", "-c", SCRIPT, "sh"])
            .arg(&root)
            .args([uid, gid, groups, (mounts.len() / 3).to_string()])
            .args(mounts)
            .args(words("command"))
            .args(words("args"))
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("KUBERNETES_SERVICE_HOST", self.api.ip().to_string())
            .env("KUBERNETES_SERVICE_PORT", self.api.port().to_string());
        Ok(command)
    }

    async fn make(
        &self,
        plane: &ControlPlane,
        objects: &Objects,
        name: &str,
        volume: &Value,
        group: Option<u32>,
    ) -> Result<PathBuf> {
        let dir = self.dir.path().join("volumes").join(name);
        if !volume["emptyDir"].is_null() {
            fs::create_dir_all(&dir)?;
            chown(&dir, None, group)?;
            // As kubelets make it, with the group for whatever is made in it.
            fs::set_permissions(&dir, fs::Permissions::from_mode(0o2777))?;
        } else if let Some(sources) = volume["projected"]["sources"].as_array() {
            self.project(plane, objects, &dir, sources, group).await?;
        } else if !volume["image"].is_null() {
            fs::create_dir_all(&dir)?;
        } else {
            anyhow::bail!("volume {name} is of a kind that is not made here: {volume}");
        }
        Ok(dir)
    }

    /// Files that only the pod's group may read.
    async fn project(
        &self,
        plane: &ControlPlane,
        objects: &Objects,
        dir: &Path,
        sources: &[Value],
        group: Option<u32>,
    ) -> Result<()> {
        fs::create_dir_all(dir)?;
        let automount = sources.len() == 1;
        for source in sources {
            let (file, content) = if !source["serviceAccountToken"].is_null() {
                ("token", self.token(objects).await?)
            } else if source["configMap"]["name"] == "kube-root-ca.crt" {
                ("ca.crt", fs::read_to_string(plane.dir().join("ca.crt"))?)
            } else {
                ensure!(!source["downwardAPI"].is_null(), "{source}");
                ("namespace", self.namespace.clone())
            };
            write(&dir.join(file), &content, group)?;
        }
        if automount {
            let ca = fs::read_to_string(plane.dir().join("ca.crt"))?;
            write(&dir.join("ca.crt"), &ca, group)?;
            write(&dir.join("namespace"), &self.namespace, group)?;
        }
        Ok(())
    }

    async fn token(&self, objects: &Objects) -> Result<String> {
        let account = self.spec["serviceAccountName"].as_str();
        token(objects, &self.namespace, account.unwrap_or("default")).await
    }
}

/// Where programs look for the token.
const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// A token of a ServiceAccount, from the API server.
pub async fn token(objects: &Objects, namespace: &str, account: &str) -> Result<String> {
    let request = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": {"expirationSeconds": 3600},
    });
    let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
    let request = http::Request::post(path)
        .header("content-type", "application/json")
        .body(serde_json::to_vec(&request)?)?;
    let answer: Value = objects.client.request(request).await?;
    let token = answer["status"]["token"].as_str();
    Ok(token.context("a token")?.to_owned())
}

/// A kubeconfig with a token of a ServiceAccount, for a program that runs in no
/// pod.
pub async fn kubeconfig(plane: &ControlPlane, namespace: &str, account: &str) -> Result<PathBuf> {
    let token = token(&plane.admin().await?, namespace, account).await?;
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "adit",
        "contexts": [{"name": "adit", "context": {"cluster": "adit", "user": "adit"}}],
        "clusters": [{"name": "adit", "cluster": {
            "server": format!("https://{}", plane.api),
            "certificate-authority": plane.dir().join("ca.crt"),
        }}],
        "users": [{"name": "adit", "user": {"token": token}}],
    });
    // JSON is YAML.
    let path = plane
        .dir()
        .join(format!("{namespace}-{account}.kubeconfig"));
    fs::write(&path, serde_json::to_vec_pretty(&config)?)
        .with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

fn write(path: &Path, content: &str, group: Option<u32>) -> Result<()> {
    fs::write(path, content).with_context(|| format!("write {}", path.display()))?;
    chown(path, None, group)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o440))?;
    Ok(())
}
