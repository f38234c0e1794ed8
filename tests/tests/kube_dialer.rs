//! `adit dialer` at a real API server, with exactly the rights of
//! `envoy/kubernetes/rbac-dialer.yaml`. The agent's and the reconciler's parts
//! are played by the tests.
//!
//! | what happens | what must follow |
//! |---|---|
//! | a Connector appears, moves, makes no sense | tunnels follow; nonsense costs nothing |
//! | a policy with a target comes and goes | its streams are served, then closed |
//! | it starts, runs, ends | its Lease is made, renewed, deleted |
//! | no API server, or one that comes later | it serves with what it has |
//! | another namespace's Connectors | are not read when only some are watched |

use std::{fs, path::PathBuf, process::Command, time::Duration};

use adit_tests::{
    bare::{self, Dialer},
    client::patiently,
    expect_ok,
    fake_connector::{Asked, FakeConnector},
    keys::Key,
    kube::{ControlPlane, Kind, Objects, enter},
    process::until,
};
use adit_wire::Target;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        mod at_a_real_api_server {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $name() {
                    adit_tests::expect_ok(super::$name().await);
                }
            )*
        }
    };
}

tests!(
    connectors_are_found_by_their_objects_and_followed_when_they_move,
    streams_of_a_target_end_when_its_policy_goes,
    a_dialer_says_its_key_by_a_lease,
    only_the_watched_namespaces_are_read,
    the_roles_allow_what_is_needed_and_nothing_else,
);

/// Namespaces of its own: one with Connectors, one for the dialer's Lease, one
/// with the Gateway's policies.
struct Stage {
    objects: Objects,
    connectors: String,
    dialers: String,
    gateways: String,
    kubeconfig: PathBuf,
    key: Key,
    dir: TempDir,
}

impl Stage {
    async fn new(name: &str) -> Result<Self> {
        let plane = ControlPlane::shared().await?;
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
    fn command(&self, flags: &[&str]) -> Result<Command> {
        let mut command = Dialer::command(self.dir.path(), &self.key, &[])?;
        command
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args(["--namespace", &self.dialers])
            .args(flags);
        Ok(command)
    }

    async fn start(&self, flags: &[&str]) -> Result<Dialer> {
        Dialer::run(self.dir.path(), self.command(flags)?).await
    }

    /// A Connector whose agent has said where it is.
    async fn connector(&self, namespace: &str, name: &str, details: Value) -> Result<()> {
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
    async fn policy(&self, name: &str, targets: &[&Target]) -> Result<()> {
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

fn details(fake: &FakeConnector) -> Value {
    json!({"type": "PublicKey", "publicKey": {
        "id": fake.id, "discoveryMode": "DNS",
        "addresses": [{"address": fake.addr.ip().to_string(), "port": fake.addr.port()}],
    }})
}

/// The rules of the roles that are shipped: everywhere, in its own namespace, in
/// the Gateway's.
fn rules() -> Result<[Value; 3]> {
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

fn target(fake: &FakeConnector, port: u16) -> Result<Target> {
    let service = format!("service.internal.test:{port}");
    bare::target(&[&fake.id], &service, Duration::from_secs(5))
}

async fn connectors_are_found_by_their_objects_and_followed_when_they_move() -> Result<()> {
    let stage = Stage::new("found").await?;
    let fake = FakeConnector::start(Asked::serve).await?;
    // Objects that make no sense, before and after the good one.
    let nonsense = json!({"type": "PublicKey", "publicKey": {
        "id": "g".repeat(100_000), "discoveryMode": "DNS",
        "addresses": [{"address": "192.0.2.1", "port": 1}]}});
    let _ = stage.connector(&stage.connectors, "bad", nonsense).await;
    let dialer = stage.start(&[]).await?;
    let target = target(&fake, 80)?;
    ensure!(dialer.tunnel(&target).await.is_err(), "nobody knows it yet");
    stage
        .connector(&stage.connectors, "edge", details(&fake))
        .await?;
    let stream = until("a tunnel", async || dialer.tunnel(&target).await.ok()).await?;
    drop(stream);

    // One that is not where its object says, and then says where it is.
    let second = FakeConnector::start(Asked::serve).await?;
    let nowhere = json!({"type": "PublicKey", "publicKey": {
        "id": second.id, "discoveryMode": "DNS",
        "addresses": [{"address": "127.0.0.1", "port": 9}]}});
    stage
        .connector(&stage.connectors, "second", nowhere)
        .await?;
    let other = bare::target(
        &[&second.id],
        "service.internal.test:80",
        Duration::from_secs(1),
    )?;
    ensure!(dialer.tunnel(&other).await.is_err());
    stage
        .connector(&stage.connectors, "second", details(&second))
        .await?;
    until("a tunnel to the second one", async || {
        dialer.tunnel(&other).await.ok()
    })
    .await?;
    let status = dialer.admin.json("/status").await?;
    ensure!(status["controlPlane"]["connected"] == true, "{status}");
    Ok(())
}

async fn streams_of_a_target_end_when_its_policy_goes() -> Result<()> {
    let stage = Stage::new("live").await?;
    let fake = FakeConnector::start(Asked::serve).await?;
    stage
        .connector(&stage.connectors, "edge", details(&fake))
        .await?;
    let (kept, gone) = (target(&fake, 80)?, target(&fake, 81)?);
    stage.policy("kept", &[&kept]).await?;
    stage.policy("gone", &[&gone]).await?;
    let dialer = stage
        .start(&[
            "--gateway-namespace",
            &stage.gateways,
            "--drain-timeout",
            "300ms",
        ])
        .await?;
    let mut first = until("a tunnel", async || dialer.tunnel(&kept).await.ok()).await?;
    let mut second = until("a tunnel", async || dialer.tunnel(&gone).await.ok()).await?;
    answers(&mut first).await?;
    answers(&mut second).await?;
    stage
        .objects
        .delete(Kind::ENVOY_PATCH_POLICY, &stage.gateways, "gone")
        .await?;
    let mut rest = Vec::new();
    patiently("the end of the stream", async {
        Ok(second.read_to_end(&mut rest).await)
    })
    .await?
    .ok();
    answers(&mut first).await?;
    // A policy's annotation changes: the same.
    stage.policy("kept", &[&gone]).await?;
    patiently("the end of the other stream", async {
        Ok(first.read_to_end(&mut rest).await)
    })
    .await?
    .ok();
    let mut again = dialer.tunnel(&gone).await?;
    answers(&mut again).await
}

async fn a_dialer_says_its_key_by_a_lease() -> Result<()> {
    let stage = Stage::new("lease").await?;
    let mut dialer = stage.start(&[]).await?;
    let name = format!("adit-dialer-{}", &stage.key.id[..10]);
    let said = |lease: &Value| {
        lease["spec"]["holderIdentity"] == stage.key.id.as_str()
            && lease["metadata"]["labels"]["networking.datumapis.com/dialer"] == "true"
            && lease["spec"]["leaseDurationSeconds"] == 30
            && lease["spec"]["renewTime"].is_string()
    };
    let made = stage
        .objects
        .until(Kind::LEASE, &stage.dialers, &name, "its key", said)
        .await?;
    let time = made["spec"]["renewTime"].clone();
    let renewed = |l: &Value| said(l) && l["spec"]["renewTime"] != time;
    stage
        .objects
        .until(Kind::LEASE, &stage.dialers, &name, "a renewal", renewed)
        .await?;
    // Somebody deletes it: the next renewal makes it anew.
    stage
        .objects
        .delete(Kind::LEASE, &stage.dialers, &name)
        .await?;
    stage
        .objects
        .until(Kind::LEASE, &stage.dialers, &name, "its key again", said)
        .await?;
    let status = dialer.admin.json("/status").await?;
    let object = format!("{}/{name}", stage.dialers);
    ensure!(
        status["controlPlane"]["object"] == object.as_str(),
        "{status}"
    );
    let metrics = dialer.admin.get("/metrics").await?;
    ensure!(
        metrics.contains("adit_dialer_control_plane_connected 1"),
        "{metrics}"
    );
    dialer.process.terminate().await?;
    stage
        .objects
        .until_gone(Kind::LEASE, &stage.dialers, &name)
        .await
        .with_context(|| dialer.process.last_words())
}

async fn only_the_watched_namespaces_are_read() -> Result<()> {
    let plane = ControlPlane::shared().await?;
    let stage = Stage::new("some").await?;
    // The rights of the example's other form: a Role where Connectors are.
    let [everywhere, own, _] = rules()?;
    let user = "some-other";
    plane.user_with(user, &stage.connectors, everywhere).await?;
    let kubeconfig = plane.user_with(user, &stage.dialers, own).await?;
    let (near, far) = (
        FakeConnector::start(Asked::serve).await?,
        FakeConnector::start(Asked::serve).await?,
    );
    stage
        .connector(&stage.connectors, "near", details(&near))
        .await?;
    stage
        .connector(&stage.gateways, "far", details(&far))
        .await?;
    let mut command = Dialer::command(stage.dir.path(), &stage.key, &[])?;
    command
        .arg("--kubeconfig")
        .arg(&kubeconfig)
        .args(["--namespace", &stage.dialers])
        .args(["--watch-namespace", &stage.connectors]);
    let dialer = Dialer::run(stage.dir.path(), command).await?;
    let to_near = target(&near, 80)?;
    until("a tunnel", async || dialer.tunnel(&to_near).await.ok()).await?;
    ensure!(dialer.tunnel(&target(&far, 80)?).await.is_err());

    // Everything is not permitted to this user: said, and nothing else harmed.
    let mut command = Dialer::command(stage.dir.path(), &stage.key, &[(&far.id, far.addr)])?;
    command
        .arg("--kubeconfig")
        .arg(&kubeconfig)
        .args(["--namespace", &stage.dialers]);
    drop(dialer);
    let dialer = Dialer::run(stage.dir.path(), command).await?;
    let mut stream = dialer.tunnel(&target(&far, 80)?).await?;
    answers(&mut stream).await?;
    let said = until("what is refused", async || {
        let status = dialer.admin.json("/status").await.ok()?;
        Some(status["controlPlane"]["lastError"].as_str()?.to_owned())
    });
    let said = said.await?;
    ensure!(
        said.contains("not permitted") && said.contains("connectors"),
        "{said}"
    );
    Ok(())
}

async fn the_roles_allow_what_is_needed_and_nothing_else() -> Result<()> {
    let stage = Stage::new("rights").await?;
    let own = Objects::open(&stage.kubeconfig).await?;
    let mut wrong = Vec::new();
    for (group, resource) in [
        ("networking.datumapis.com", "connectors"),
        ("networking.datumapis.com", "connectors/status"),
        ("networking.datumapis.com", "httpproxies"),
        ("networking.datumapis.com", "connectoradvertisements"),
        ("coordination.k8s.io", "leases"),
        ("gateway.envoyproxy.io", "envoypatchpolicies"),
        ("gateway.envoyproxy.io", "envoyproxies"),
        ("gateway.networking.k8s.io", "httproutes"),
        ("", "secrets"),
    ] {
        for verb in [
            "get", "list", "watch", "create", "update", "patch", "delete",
        ] {
            for namespace in [&stage.connectors, &stage.dialers, &stage.gateways] {
                let expected = match resource {
                    "connectors" => ["list", "watch"].contains(&verb),
                    "leases" => {
                        *namespace == stage.dialers && ["create", "patch", "delete"].contains(&verb)
                    }
                    "envoypatchpolicies" => {
                        *namespace == stage.gateways && ["list", "watch"].contains(&verb)
                    }
                    _ => false,
                };
                let allowed = own.may(verb, (group, resource), (namespace, "x")).await?;
                if allowed != expected {
                    wrong.push(format!("{verb} {group}/{resource} {namespace}: {allowed}"));
                }
            }
        }
    }
    ensure!(wrong.is_empty(), "{wrong:#?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_api_server_a_dialer_serves_with_what_it_has() {
    expect_ok(alone().await);
}

async fn alone() -> Result<()> {
    enter()?;
    let dir = tempfile::tempdir()?;
    let key = Key::new(dir.path(), "dialer")?;
    let fake = FakeConnector::start(Asked::serve).await?;
    // Nobody listens there.
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "a",
        "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
        "clusters": [{"name": "a", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "a", "user": {"token": "t"}}],
    });
    let kubeconfig = dir.path().join("kubeconfig");
    fs::write(&kubeconfig, config.to_string())?;
    let mut command = Dialer::command(dir.path(), &key, &[(&fake.id, fake.addr)])?;
    command.arg("--kubeconfig").arg(&kubeconfig).args([
        "--gateway-namespace",
        "gateways",
        "--drain-timeout",
        "100ms",
    ]);
    let mut dialer = Dialer::run(dir.path(), command).await?;
    let mut stream = dialer.tunnel(&target(&fake, 80)?).await?;
    answers(&mut stream).await?;
    let said = until("what it cannot do", async || {
        let status = dialer.admin.json("/status").await.ok()?;
        let control = &status["controlPlane"];
        (control["connected"] == false).then(|| control["lastError"].as_str().map(str::to_owned))?
    });
    ensure!(!said.await?.is_empty());
    // Longer than the drain time: nobody manages the targets.
    answers(&mut stream).await?;
    let ended = dialer.process.terminate().await?;
    ensure!(ended.success(), "{ended}");
    Ok(())
}

/// A request to the fake connector's service, and its answer.
async fn answers(stream: &mut UnixStream) -> Result<()> {
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
