//! What a cluster does with the chart's pods and the tests' control plane does
//! not: it starts their programs. Each gets the arguments that the chart renders
//! and the rights of its ServiceAccount, by a token of it. What differs:
//!
//! - paths inside of a pod are folders of the test;
//! - `--in-cluster` is a kubeconfig with that token, and the admin server of a
//!   reconciler a Unix socket, because they share one network;
//! - the EnvoyProxy is told to run Envoy as a process (`Host`), with the module
//!   that was built here.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{
    binaries,
    helm::{ENVOY_GATEWAY, NAMESPACE},
    kube::{Class, Kind, Objects, Stack, envoy_gateway::Extensions},
    process::Process,
};

/// How often it looks.
const LOOK: Duration = Duration::from_millis(100);
/// What the chart calls its objects.
const RECONCILER: &str = "adit-reconciler";
const CLEANUP: &str = "adit-cleanup";
const CLASS: &str = "adit";

const JOB: Kind = Kind {
    group: "batch",
    version: "v1",
    kind: "Job",
    plural: "jobs",
    namespaced: true,
};

/// It plays the nodes of a cluster.
pub struct Kubelet<'s> {
    stack: &'s Stack,
    objects: Objects,
    dir: PathBuf,
    reconcilers: Vec<Process>,
    dialer: Option<Process>,
    deployed: bool,
    cleaned: bool,
}

impl<'s> Kubelet<'s> {
    /// One that keeps its files in `dir`.
    pub async fn new(stack: &'s Stack, dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir.join("run"))?;
        Ok(Self {
            stack,
            objects: stack.admin().await?,
            dir: dir.to_owned(),
            reconcilers: Vec::new(),
            dialer: None,
            deployed: false,
            cleaned: false,
        })
    }

    /// Plays until something does not work.
    pub async fn play(&mut self) -> Result<()> {
        loop {
            self.deployment().await.context("the reconciler's pods")?;
            self.envoy().await.context("Envoy's pod")?;
            self.job().await.context("the clean-up's pod")?;
            tokio::time::sleep(LOOK).await;
        }
    }

    /// What its programs said last.
    pub fn last_words(&self) -> String {
        let all = self.reconcilers.iter().chain(&self.dialer);
        all.map(|process| {
            format!(
                "--- {}\n{}\n",
                process.log_file().display(),
                process.last_words()
            )
        })
        .collect()
    }

    async fn deployment(&mut self) -> Result<()> {
        let found = self
            .objects
            .get(Kind::DEPLOYMENT, NAMESPACE, RECONCILER)
            .await?;
        let wanted = found
            .as_ref()
            .map_or(0, |d| d["spec"]["replicas"].as_u64().unwrap_or(1));
        if self.reconcilers.len() as u64 == wanted {
            return Ok(());
        }
        while self.reconcilers.len() as u64 > wanted {
            if let Some(mut one) = self.reconcilers.pop() {
                one.terminate().await?;
            }
        }
        if let Some(deployment) = found {
            while (self.reconcilers.len() as u64) < wanted {
                let pod = &deployment["spec"]["template"]["spec"];
                let name = format!("reconciler-{}", self.reconcilers.len());
                let one = self
                    .start(&name, NAMESPACE, pod, &pod["containers"][0])
                    .await?;
                self.reconcilers.push(one);
            }
            let status = json!({"status": {
                "observedGeneration": deployment["metadata"]["generation"],
                "replicas": wanted, "updatedReplicas": wanted,
                "readyReplicas": wanted, "availableReplicas": wanted,
            }});
            self.objects
                .merge(
                    Kind::DEPLOYMENT,
                    NAMESPACE,
                    RECONCILER,
                    Some("status"),
                    &status,
                )
                .await?;
        }
        Ok(())
    }

    async fn envoy(&mut self) -> Result<()> {
        if self.deployed {
            return Ok(());
        }
        let (kind, of) = (Kind::ENVOY_PROXY, ENVOY_GATEWAY);
        let Some(proxy) = self.objects.get(kind, of, CLASS).await? else {
            return Ok(());
        };
        let deployment = &proxy["spec"]["provider"]["kubernetes"]["envoyDeployment"];
        let containers = deployment["initContainers"].as_array();
        let dialer = containers
            .into_iter()
            .flatten()
            .find(|c| c["restartPolicy"] == "Always");
        let dialer = dialer.context("the chart has no dialer beside Envoy")?;
        // In a cluster Envoy Gateway makes this account, with another name.
        let account = json!({
            "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "envoy"},
        });
        self.objects.apply(of, account).await?;
        let pod = json!({"serviceAccountName": "envoy"});
        let mut process = self.start("dialer", of, &pod, dialer).await?;
        let socket = self.dir.join("run/dialer.sock");
        process
            .until("socket", async || socket.exists().then_some(()))
            .await?;
        self.dialer = Some(process);
        let host = json!({"spec": {
            "provider": {"type": "Host", "kubernetes": null, "host": {"envoyVersion": "1.40.0"}},
            "extraArgs": ["--disable-hot-restart"],
            "dynamicModules": [{
                "name": "adit", "doNotClose": true,
                "source": {"type": "Local", "local": {"path": binaries::module()?}},
            }],
        }});
        // As a process it starts a Gateway's Envoy once, by the EnvoyProxy that it
        // saw first: it must not have seen the one without a version.
        self.stack.stop_envoy_gateway().await?;
        self.objects.merge(kind, of, CLASS, None, &host).await?;
        self.stack
            .start_envoy_gateway(Extensions::default())
            .await?;
        self.stack
            .pretend_deployed(Class::Envoy140, of, CLASS)
            .await?;
        let gateway = self.objects.get(Kind::GATEWAY, of, CLASS).await?;
        let gateway = gateway.context("the Gateway")?;
        let address = &gateway["status"]["addresses"][0]["value"];
        let address = address.as_str().with_context(|| format!("{gateway:#}"))?;
        // Here nobody brings the Service's address to Envoy, which listens on all.
        let added = Command::new("ip")
            .args(["address", "add", &format!("{address}/32"), "dev", "lo"])
            .status()
            .context("run ip")?;
        ensure!(added.success(), "ip address add {address}");
        self.deployed = true;
        Ok(())
    }

    async fn job(&mut self) -> Result<()> {
        if self.cleaned {
            return Ok(());
        }
        let Some(job) = self.objects.get(JOB, NAMESPACE, CLEANUP).await? else {
            return Ok(());
        };
        let pod = &job["spec"]["template"]["spec"];
        let mut process = self
            .start("cleanup", NAMESPACE, pod, &pod["containers"][0])
            .await?;
        while process.is_running() {
            // It takes the reconciler's replicas away.
            self.deployment().await?;
            tokio::time::sleep(LOOK).await;
        }
        let status = process.wait().await?;
        ensure!(status.success(), "{status}:\n{}", process.last_words());
        let now = job["metadata"]["creationTimestamp"].clone();
        let done = |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": now});
        let status = json!({"status": {
            "startTime": now, "completionTime": now, "succeeded": 1,
            "conditions": [done("SuccessCriteriaMet"), done("Complete")],
        }});
        self.objects
            .merge(JOB, NAMESPACE, CLEANUP, Some("status"), &status)
            .await?;
        self.cleaned = true;
        Ok(())
    }

    async fn start(
        &self,
        name: &str,
        namespace: &str,
        pod: &Value,
        container: &Value,
    ) -> Result<Process> {
        let account = pod["serviceAccountName"]
            .as_str()
            .context("a ServiceAccount")?;
        let kubeconfig = self.kubeconfig(name, namespace, account).await?;
        let words = |key: &str| -> Vec<String> {
            let all = container[key].as_array().into_iter().flatten();
            all.filter_map(|word| word.as_str().map(str::to_owned))
                .collect()
        };
        let (command, arguments) = (words("command"), words("args"));
        ensure!(command.first().is_some_and(|c| c == "/adit"), "{command:?}");
        let inside = |path: &str| self.dir.join(path).to_string_lossy().into_owned();
        let mut process = Command::new(binaries::adit()?);
        process.args(&command[1..]).env_clear();
        for argument in arguments {
            process.arg(match argument.split_once('=') {
                None if argument == "--in-cluster" => {
                    format!("--kubeconfig={}", kubeconfig.display())
                }
                Some(("--admin", _)) => {
                    format!("--admin=unix:{}", inside(&format!("{name}.admin")))
                }
                _ => argument
                    .replace("/run/adit", &inside("run"))
                    .replace("/var/lib/adit", &inside("run")),
            });
        }
        Process::start(name, &self.dir, &mut process)
    }

    /// A kubeconfig with a token of a ServiceAccount, as a pod of it has one.
    async fn kubeconfig(&self, name: &str, namespace: &str, account: &str) -> Result<PathBuf> {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
        let ask = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": {"expirationSeconds": 3600},
        });
        let request = http::Request::post(path)
            .header("content-type", "application/json")
            .body(serde_json::to_vec(&ask)?)?;
        let answer: Value = self.objects.client.request(request).await?;
        let admin = fs::read_to_string(self.stack.plane.kubeconfig())?;
        let mut config: Value = serde_json::from_str(&admin)?;
        config["users"][0]["user"] = json!({"token": answer["status"]["token"]});
        let file = self.dir.join(format!("{name}.kubeconfig"));
        fs::write(&file, serde_json::to_vec(&config)?)?;
        Ok(file)
    }
}
