//! The whole life of a release: installed, tried by its own `helm test`,
//! upgraded, uninstalled. The test plays the kubelets and the controllers of
//! Deployments and Jobs.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::Path,
    process::Command,
};

use adit_tests::{
    admin::Admin,
    binaries,
    client::http::get,
    helm::{self, ENVOY_GATEWAY, NAMESPACE, text_of},
    kube::{
        Class, Kind, Objects, Stack,
        envoy_gateway::Extensions,
        objects::is_true,
        pod::Pod,
        site::{LEASE, rule},
    },
    process::{Process, until},
};
use anyhow::{Context, Result, ensure};
use k8s_openapi::jiff::Timestamp;
use kube::{
    Api,
    api::{DynamicObject, ListParams},
    discovery,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Cluster, connector, pod_of};

/// Where the Gateway is.
const EDGE: &str = "edge";
/// The label of all that the reconciler makes.
const OURS: &str = "app.kubernetes.io/managed-by=adit";

pub async fn from_nothing_to_a_tunnel_and_back_to_nothing() -> Result<()> {
    adit_tests::kube::enter()?;
    // What Envoy sees as /run/adit, without touching the machine's.
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "tmpfs", "/run"])
        .status()?;
    ensure!(mounted.success(), "mount /run");
    let socket = Path::new("/run/adit");
    fs::create_dir(socket)?;
    chown(socket, Some(0), Some(65532))?;
    fs::set_permissions(socket, fs::Permissions::from_mode(0o2777))?;

    let stack = Stack::start(Extensions::default()).await?;
    let Some(cluster) = Cluster::new(&stack.plane)? else {
        return Ok(());
    };
    let lived = live(&stack, &cluster, socket).await;
    lived.with_context(|| stack.last_words())
}

async fn live(stack: &Stack, cluster: &Cluster, socket: &Path) -> Result<()> {
    let objects = stack.admin().await?;
    without_our_crds(&objects).await?;
    objects.make_namespace(EDGE, &[]).await?;
    let gateway = stack.make_gateway(Class::Envoy140, EDGE, "gateway").await?;
    // Envoy Gateway runs Envoy without a pod here; this is the pod's account.
    let account = json!({
        "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "envoy-edge"},
    });
    objects.apply(ENVOY_GATEWAY, account).await?;

    // 1. Install.
    let dir = TempDir::new()?;
    let values = dir.path().join("values.yaml");
    let wanted = json!({
        // The EnvoyProxy and its class are there and no Gateway uses them: Envoy
        // Gateway could not start that pod.
        "gateway": {"create": true, "gateway": {"create": false}},
        "reconciler": {"gateway": format!("{EDGE}/gateway"), "leaseDuration": LEASE},
        "admissionPolicy": {"enabled": true},
        "test": {"address": gateway.addr.to_string(), "timeoutSeconds": 60},
    });
    fs::write(&values, wanted.to_string())?;
    let (chart, values) = (text_of(&helm::chart()), text_of(&values));
    let notes = cluster.helm(&[
        "install",
        "adit",
        &chart,
        "--create-namespace",
        "-f",
        &values,
    ])?;
    ensure!(notes.contains("enableEnvoyPatchPolicy: true"), "{notes}");
    ensure!(notes.contains(&format!("use {EDGE}/gateway")), "{notes}");

    let mut reconciler = Running::start(stack, &objects, "adit-reconciler").await?;
    let (dialer_pod, mut dialer) = start_dialer(stack, &objects, socket).await?;

    // 2. Its own test.
    let request = helm_test(stack, cluster, &objects).await;
    let request = request.with_context(|| {
        format!(
            "--- reconciler\n{}\n--- dialer\n{}",
            reconciler.process.last_words(),
            dialer.last_words()
        )
    })?;
    ensure!(
        request.contains("a request came through the tunnel: ok"),
        "{request}"
    );
    for (kind, namespace) in [(Kind::HTTP_PROXY, NAMESPACE), (Kind::CONNECTOR, NAMESPACE)] {
        objects
            .until_gone(kind, namespace, "adit-test")
            .await
            .context("the test's own objects")?;
    }

    // 3. What a user has; an upgrade leaves it alone.
    objects.make_namespace("shop", &[]).await?;
    let proxy = json!({
        "apiVersion": "networking.datumapis.com/v1alpha", "kind": "HTTPProxy",
        "metadata": {"name": "web"},
        "spec": {"hostnames": ["web.example.com"], "rules": [rule("/", "box", "http://127.0.0.1:80")]},
    });
    connector(&objects, "shop").await?;
    objects.apply("shop", proxy).await?;
    let programmed = |o: &Value| is_true(o, "Programmed");
    objects
        .until(Kind::HTTP_PROXY, "shop", "web", "Programmed", programmed)
        .await
        .with_context(|| reconciler.process.last_words())?;
    let mark = stack.plane.mark();
    cluster.helm(&["upgrade", "adit", &chart, "-f", &values])?;
    let writes = stack.plane.writes_since(mark)?;
    let touched: Vec<_> = writes
        .iter()
        .filter(|w| w.namespace == "shop" && w.resource != "leases")
        .filter(|w| !["get", "list", "watch"].contains(&w.verb.as_str()))
        .collect();
    ensure!(touched.is_empty(), "{touched:#?}");

    // 4. Uninstall.
    uninstall(stack, cluster, &objects, &mut reconciler).await?;
    let status = dialer.terminate().await?;
    ensure!(status.success(), "{}", dialer.last_words());
    drop(dialer_pod);
    nothing_is_left(&objects).await?;
    // Envoy has a listener still, and no route.
    let answer = get(gateway.addr, "web.example.com", "/").await?;
    ensure!(answer.status == 404, "{} {}", answer.status, answer.text());
    Ok(())
}

/// As in a cluster that has Envoy Gateway and nothing of ours.
pub async fn without_our_crds(objects: &Objects) -> Result<()> {
    for crd in objects.list(Kind::CRD, "", "").await? {
        let name = crd["metadata"]["name"].as_str().unwrap_or_default();
        if name.ends_with(".networking.datumapis.com") {
            objects.delete(Kind::CRD, "", name).await?;
            objects.until_gone(Kind::CRD, "", name).await?;
        }
    }
    Ok(())
}

/// The one container of a Deployment that runs.
struct Running {
    process: Process,
    _pod: Pod,
}

impl Running {
    async fn start(stack: &Stack, objects: &Objects, name: &str) -> Result<Self> {
        let found = objects.get(Kind::DEPLOYMENT, NAMESPACE, name).await?;
        let deployment = found.with_context(|| format!("Deployment {name}"))?;
        ensure!(deployment["spec"]["replicas"] == 2, "{deployment:#}");
        let spec = pod_of(&deployment)?;
        let pod = Pod::new(&stack.plane, NAMESPACE, &spec, &[]).await?;
        let adit = binaries::adit()?;
        let mut process = pod.start("reconciler", &[(&adit, "/adit")])?;
        let probe = &spec["containers"][0]["readinessProbe"]["httpGet"];
        ensure!(probe["port"] == "metrics", "{probe}");
        let port = &spec["containers"][0]["ports"][0]["containerPort"];
        let path = probe["path"].as_str().context("a path")?.to_owned();
        ready(&mut process, port, &path).await?;
        Ok(Self { process, _pod: pod })
    }
}

/// As a kubelet probes.
async fn ready(process: &mut Process, port: &Value, path: &str) -> Result<()> {
    let port = u16::try_from(port.as_u64().context("a port")?)?;
    let admin = Admin::Tcp(([127, 0, 0, 1], port).into());
    process
        .until("ready container", async || admin.get(path).await.ok())
        .await
        .map(drop)
}

/// The dialer of Envoy's pod, as the EnvoyProxy says, after the module's copy.
async fn start_dialer(stack: &Stack, objects: &Objects, socket: &Path) -> Result<(Pod, Process)> {
    let proxy = objects
        .get(Kind::ENVOY_PROXY, ENVOY_GATEWAY, "adit")
        .await?
        .context("EnvoyProxy adit")?;
    let deployment = &proxy["spec"]["provider"]["kubernetes"]["envoyDeployment"];
    let mut spec = deployment["pod"].clone();
    spec["initContainers"] = deployment["initContainers"].clone();
    spec["serviceAccountName"] = json!("envoy-edge");
    let known = [("adit-run", socket)];
    let pod = Pod::new(&stack.plane, ENVOY_GATEWAY, &spec, &known).await?;
    let (adit, module) = (binaries::adit()?, binaries::module()?);
    pod.run("adit-module", &[(&module, "/libadit.so")]).await?;
    let copy = fs::read(pod.volume("adit-module")?.join("libadit.so"))?;
    ensure!(copy == fs::read(&module)?, "another module");
    let mut dialer = pod.start("adit-dialer", &[(&adit, "/adit")])?;
    let probe = &deployment["initContainers"][1]["startupProbe"]["httpGet"];
    ready(&mut dialer, &probe["port"], "/readyz").await?;
    let file = fs::metadata(socket.join("dialer.sock"))?;
    ensure!(
        file.mode() & 0o777 == 0o600 && file.uid() == 65532,
        "{file:?}"
    );
    Ok((pod, dialer))
}

/// `helm test`, and the kubelet that runs its pod; what the request said.
async fn helm_test(stack: &Stack, cluster: &Cluster, objects: &Objects) -> Result<String> {
    let dir = TempDir::new()?;
    let mut tested = cluster.start(dir.path(), &["test", "adit", "--timeout", "90s"])?;
    let pod = tested
        .until("pod of the test", async || {
            objects.get(Kind::POD, NAMESPACE, "adit-test").await.ok()?
        })
        .await?;
    let running = Pod::new(&stack.plane, NAMESPACE, &pod["spec"], &[]).await?;
    let adit = binaries::adit()?;
    let mut agent = running.start("agent", &[(&adit, "/adit")])?;
    let said = running.run("request", &[]).await;
    let said = said.with_context(|| format!("--- agent\n{}", agent.last_words()))?;
    // A sidecar ends before its pod has succeeded.
    let status = agent.terminate().await?;
    ensure!(status.success(), "{}", agent.last_words());
    let status = json!({"status": {"phase": "Succeeded"}});
    objects
        .merge(Kind::POD, NAMESPACE, "adit-test", Some("status"), &status)
        .await?;
    let status = tested.wait().await?;
    ensure!(status.success(), "{}", tested.log());
    Ok(said)
}

/// `helm uninstall`, with the controllers of Deployment and Job played.
async fn uninstall(
    stack: &Stack,
    cluster: &Cluster,
    objects: &Objects,
    reconciler: &mut Running,
) -> Result<()> {
    let dir = TempDir::new()?;
    let mut uninstalled = cluster.start(dir.path(), &["uninstall", "adit", "--timeout", "90s"])?;
    let job = uninstalled
        .until("Job of the clean-up", async || {
            objects
                .get(Kind::JOB, NAMESPACE, "adit-cleanup")
                .await
                .ok()?
        })
        .await?;
    let pod = Pod::new(&stack.plane, NAMESPACE, &pod_of(&job)?, &[]).await?;
    let adit = binaries::adit()?;
    let mut cleanup = pod.start("cleanup", &[(&adit, "/adit")])?;
    let none = |deployment: &Value| deployment["spec"]["replicas"] == 0;
    let name = "adit-reconciler";
    objects
        .until(Kind::DEPLOYMENT, NAMESPACE, name, "no replicas", none)
        .await
        .with_context(|| cleanup.last_words())?;
    let status = reconciler.process.terminate().await?;
    ensure!(status.success(), "{}", reconciler.process.last_words());
    let status = cleanup.wait().await?;
    ensure!(status.success(), "{}", cleanup.log());
    ensure!(
        cleanup
            .log()
            .contains("1 EnvoyExtensionPolicy, 1 EnvoyPatchPolicy"),
        "{}",
        cleanup.log()
    );
    // All that was made is gone before anything of the release goes.
    for kind in [Kind::ENVOY_PATCH_POLICY, Kind::ENVOY_EXTENSION_POLICY] {
        ensure!(
            objects.list(kind, "", "").await?.is_empty(),
            "{}",
            kind.kind
        );
    }
    for (kind, namespace, name) in [
        (Kind::DEPLOYMENT, NAMESPACE, name),
        (Kind::ENVOY_PROXY, ENVOY_GATEWAY, "adit"),
    ] {
        let there = objects.get(kind, namespace, name).await?;
        ensure!(there.is_some(), "{} {name} went first", kind.kind);
    }
    let now = Timestamp::now().to_string();
    let condition = |kind| json!({"type": kind, "status": "True", "lastTransitionTime": now, "lastProbeTime": now});
    let done = json!({"status": {
        "startTime": now, "completionTime": now, "succeeded": 1,
        "conditions": [condition("SuccessCriteriaMet"), condition("Complete")],
    }});
    let kind = Kind::JOB;
    objects
        .merge(kind, NAMESPACE, "adit-cleanup", Some("status"), &done)
        .await?;
    let status = uninstalled.wait().await?;
    ensure!(status.success(), "{}", uninstalled.log());
    Ok(())
}

/// But the CRDs, and what is users' own.
async fn nothing_is_left(objects: &Objects) -> Result<()> {
    objects
        .until_gone(Kind::NAMESPACE, "", "adit-dialers")
        .await?;
    let found = discovery::Discovery::new(objects.client.clone())
        .run()
        .await?;
    let mut looked = 0;
    for (kind, capabilities) in found.groups().flat_map(|g| g.recommended_resources()) {
        if !capabilities.supports_operation(discovery::verbs::LIST) {
            continue;
        }
        looked += 1;
        let api: Api<DynamicObject> = Api::all_with(objects.client.clone(), &kind);
        for label in ["app.kubernetes.io/instance=adit", OURS, "owner=helm"] {
            // Envoy Gateway lets go of the class in its own time.
            until(&format!("end of {} with {label}", kind.kind), async || {
                let list = api.list(&ListParams::default().labels(label)).await.ok()?;
                let crds = kind.kind == "CustomResourceDefinition";
                (list.items.is_empty() || (crds && list.items.len() == 4)).then_some(())
            })
            .await?;
        }
    }
    ensure!(looked > 40, "only {looked} kinds were looked at");
    for (kind, name) in [(Kind::HTTP_PROXY, "web"), (Kind::CONNECTOR, "box")] {
        let kept = objects.get(kind, "shop", name).await?;
        ensure!(kept.is_some(), "the user's {} {name} went too", kind.kind);
    }
    Ok(())
}
