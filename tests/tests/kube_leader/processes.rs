//! Two processes, of which the one that leads is killed, frozen, or told to end.

use std::process::Command;

use adit_tests::{
    admin::Admin,
    binaries,
    kube::{ControlPlane, Kind, Objects, Write, objects::condition},
    process::Process,
};
use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// HTTPProxies that change all the time.
const BUSY: usize = 20;

#[tokio::test(flavor = "multi_thread")]
async fn when_the_leading_process_is_killed_the_other_takes_over() -> Result<()> {
    let plane = ControlPlane::shared().await?;
    let mut pair = Pair::start(plane, "killed").await?;
    pair.proxy("before").await?;
    pair.first.process.kill()?;
    let mark = plane.mark();
    pair.second.leads().await?;
    pair.proxy("after").await?;
    alone(plane.writes_since(mark)?, "killed", &pair.second.user)?;
    // Told to end, it gives the lead back at once, and says so.
    let status = pair.second.process.terminate().await?;
    ensure!(
        status.success(),
        "{status}\n{}",
        pair.second.process.last_words()
    );
    let lease = pair.lease().await?;
    ensure!(lease["spec"]["holderIdentity"].is_null(), "{lease}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leading_process_that_was_frozen_writes_nothing_when_it_wakes() -> Result<()> {
    let plane = ControlPlane::shared().await?;
    let mut pair = Pair::start(plane, "frozen").await?;
    pair.proxy("before").await?;
    pair.first.process.signal(Signal::STOP)?;
    pair.second.leads().await?;
    // Something to do for whoever believes to lead.
    pair.proxy("after").await?;
    let mark = plane.mark();
    let change = json!({"spec": {"hostnames": ["changed.example"]}});
    pair.objects
        .merge(Kind::HTTP_PROXY, "frozen", "after", None, &change)
        .await?;
    pair.first.process.signal(Signal::CONT)?;
    let status = pair.first.process.wait().await?;
    ensure!(!status.success(), "it must say that it lost the lead");
    let said = pair.first.process.last_words();
    ensure!(said.contains("another reconciler may lead"), "{said}");
    let seen = pair.objects.until(
        Kind::HTTP_PROXY,
        "frozen",
        "after",
        "a look at the change",
        |o| {
            condition(o, "Accepted")
                .is_some_and(|c| c["observedGeneration"] == o["metadata"]["generation"])
        },
    );
    seen.await?;
    alone(plane.writes_since(mark)?, "frozen", &pair.second.user)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_loses_the_lead_in_mid_work_has_stopped_before_the_next_begins() -> Result<()>
{
    let plane = ControlPlane::shared().await?;
    let mut pair = Pair::start(plane, "midwork").await?;
    for n in 0..BUSY {
        pair.proxy(&format!("busy-{n}")).await?;
    }
    // More to do than it can, all the time.
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let work = tokio::spawn(async move {
        let objects = plane.admin().await?;
        for round in 0.. {
            for n in 0..BUSY {
                let change = json!({"spec": {"hostnames": [format!("r{round}-{n}.example")]}});
                let name = format!("busy-{n}");
                objects
                    .merge(Kind::HTTP_PROXY, "midwork", &name, None, &change)
                    .await?;
                if stopped.is_cancelled() {
                    return Ok(());
                }
            }
        }
        anyhow::Ok(())
    });
    let mark = plane.mark();
    // It may still write everything but what says that it leads.
    let rules = json!([
        {"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": ["networking.datumapis.com", "gateway.networking.k8s.io",
            "gateway.envoyproxy.io", "events.k8s.io"], "resources": ["*"], "verbs": ["*"]},
    ]);
    plane.user_with(&pair.first.user, "", rules).await?;
    pair.second.leads().await?;
    pair.proxy("after").await?;
    stop.cancel();
    work.await??;
    let status = pair.first.process.wait().await?;
    ensure!(!status.success(), "it must say that it lost the lead");
    let said = pair.first.process.last_words();
    ensure!(said.contains("another reconciler may lead"), "{said}");

    let writes = plane.writes_since(mark)?;
    let writes: Vec<_> = writes.iter().filter(|w| w.namespace == "midwork").collect();
    let [first, second] = [&pair.first.user, &pair.second.user];
    let taken = writes
        .iter()
        .position(|w| w.user == *second && w.resource == "leases" && w.code == 200)
        .context("the second takes the Lease")?;
    let by_first = |w: &&Write| w.user == *first && w.resource != "leases";
    let last = writes
        .iter()
        .rposition(by_first)
        .context("the first was at work")?;
    ensure!(last < taken, "{:#?}", &writes[taken..=last]);
    // There was something to do for it then.
    let asked = |w: &&&Write| w.user == "admin" && w.resource == "httpproxies";
    let asked = writes[last..taken].iter().filter(asked).count();
    ensure!(asked > BUSY, "{asked} changes between {last} and {taken}");
    Ok(())
}

/// Two reconcilers of one namespace; the first leads.
struct Pair {
    objects: Objects,
    namespace: String,
    first: Reconciler,
    second: Reconciler,
}

struct Reconciler {
    process: Process,
    admin: Admin,
    /// As whom it writes.
    user: String,
    _dir: TempDir,
}

impl Pair {
    async fn start(plane: &ControlPlane, namespace: &str) -> Result<Self> {
        let objects = plane.admin().await?;
        objects.make_namespace(namespace, &[]).await?;
        let mut first = Reconciler::start(plane, namespace, "one").await?;
        first.leads().await?;
        let mut second = Reconciler::start(plane, namespace, "two").await?;
        let Reconciler { process, admin, .. } = &mut second;
        process
            .until("a ready second", async || admin.get("/readyz").await.ok())
            .await?;
        ensure!(!second.is_leading().await?, "both lead");
        Ok(Self {
            objects,
            namespace: namespace.into(),
            first,
            second,
        })
    }

    /// An HTTPProxy that somebody has looked at.
    async fn proxy(&self, name: &str) -> Result<()> {
        let backend = json!({"endpoint": "http://192.0.2.1:80"});
        let object = json!({
            "apiVersion": "networking.datumapis.com/v1alpha", "kind": "HTTPProxy",
            "metadata": {"name": name},
            "spec": {"hostnames": [format!("{name}.example")], "rules": [{"backends": [backend]}]},
        });
        self.objects.apply(&self.namespace, object).await?;
        let looked = |object: &Value| {
            condition(object, "Accepted").is_some_and(|c| c["status"] != "Unknown")
        };
        let seen = self
            .objects
            .until(Kind::HTTP_PROXY, &self.namespace, name, "a verdict", looked);
        seen.await.map(drop)
    }

    async fn lease(&self) -> Result<Value> {
        let found = self
            .objects
            .get(Kind::LEASE, &self.namespace, "adit-reconciler");
        found.await?.context("the Lease")
    }
}

impl Reconciler {
    async fn start(plane: &ControlPlane, namespace: &str, name: &str) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("leader-").tempdir()?;
        let socket = dir.path().join("admin.sock");
        // Each as a user of its own, so that the audit log tells them apart.
        let user = format!("{namespace}-{name}");
        let all = json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]);
        let kubeconfig = plane.user_with(&user, "", all).await?;
        let mut command = Command::new(binaries::adit()?);
        command
            .arg("reconciler")
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .args(["--namespace", namespace, "--watch-namespace", namespace])
            .arg("--admin")
            .arg(format!("unix:{}", socket.display()))
            .env_clear();
        Ok(Self {
            process: Process::start(name, dir.path(), &mut command)?,
            admin: Admin::Unix(socket),
            user,
            _dir: dir,
        })
    }

    async fn is_leading(&self) -> Result<bool> {
        let text = self.admin.get("/metrics").await?;
        Ok(text.lines().any(|line| line == "adit_reconciler_leader 1"))
    }

    /// Waits until it does, and knows all objects.
    async fn leads(&mut self) -> Result<()> {
        let admin = self.admin.clone();
        self.process
            .until("a leader", async || {
                let text = admin.get("/metrics").await.ok()?;
                let leads = text.lines().any(|line| line == "adit_reconciler_leader 1");
                admin.get("/readyz").await.ok().filter(|_| leads)
            })
            .await
            .map(drop)
    }
}

/// Every write of a reconciler in the namespace was this one's, and there was
/// one.
fn alone(writes: Vec<Write>, namespace: &str, user: &str) -> Result<()> {
    let theirs: Vec<_> = writes
        .into_iter()
        .filter(|w| w.namespace == namespace && w.user.starts_with(namespace))
        .collect();
    ensure!(
        theirs.iter().any(|w| w.resource == "httpproxies"),
        "{theirs:?}"
    );
    let others: Vec<_> = theirs.iter().filter(|w| w.user != user).collect();
    ensure!(others.is_empty(), "two wrote: {others:?}");
    Ok(())
}
