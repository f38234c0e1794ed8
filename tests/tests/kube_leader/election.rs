//! The election by itself: clocks that lie, a holder that is cut off.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use adit_reconciler::kubernetes::leader::{Election, Held};
use adit_tests::{
    client::patiently,
    kube::{ControlPlane, Kind, Objects},
    process::until,
};
use anyhow::{Context as _, Result, ensure};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

/// Short, so that the tests are; the election knows no other difference.
const DURATION: Duration = Duration::from_secs(3);

fn candidate(namespace: &str) -> Election {
    Election {
        duration: DURATION,
        ..Election::new(namespace, "leader")
    }
}

async fn leads(election: &Election, client: &Client) -> Result<Held> {
    let never = CancellationToken::new();
    let acquired = async {
        let held = election.acquire(client.clone(), &never).await;
        held.context("no shutdown was asked for")
    };
    patiently("a leader", acquired).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_waits_until_the_first_gives_the_lease_back() -> Result<()> {
    let objects = ControlPlane::shared().await?.admin().await?;
    objects.make_namespace("given", &[]).await?;
    let first = leads(&candidate("given"), &objects.client).await?;
    let second = tokio::spawn({
        let client = objects.client.clone();
        async move { leads(&candidate("given"), &client).await }
    });
    // Several of the first's renewals, each of which the second may see.
    for _ in 0..3 {
        let seen = renewals(&objects, "given").await?;
        until("a renewal", async || {
            let now = renewals(&objects, "given").await.ok()?;
            (now != seen).then_some(())
        })
        .await?;
        ensure!(!second.is_finished() && first.fence.open());
    }
    let fence = first.fence.clone();
    first.release().await;
    ensure!(!fence.open());
    let second = second.await??;
    ensure!(second.fence.open() && !second.lost.is_cancelled());
    let lease = lease(&objects, "given").await?;
    ensure!(lease["spec"]["leaseTransitions"] == 2, "{lease}");
    second.release().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_that_begin_together_one_leads() -> Result<()> {
    let objects = ControlPlane::shared().await?.admin().await?;
    objects.make_namespace("together", &[]).await?;
    let mut candidates = JoinSet::new();
    for _ in 0..8 {
        let client = objects.client.clone();
        candidates.spawn(async move { leads(&candidate("together"), &client).await });
    }
    for left in (0..8).rev() {
        let held = candidates.join_next().await.context("a candidate")???;
        ensure!(held.fence.open());
        ensure!(candidates.len() == left);
        ensure!(candidates.try_join_next().is_none(), "two lead at once");
        held.release().await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_wrong_by_years_changes_nothing() -> Result<()> {
    let objects = ControlPlane::shared().await?.admin().await?;
    for (namespace, renewed) in [
        ("future", "2099-01-01T00:00:00.000000Z"),
        ("past", "1999-01-01T00:00:00.000000Z"),
    ] {
        objects.make_namespace(namespace, &[]).await?;
        let seconds = DURATION.as_secs();
        let spec = json!({"holderIdentity": "another", "renewTime": renewed, "leaseDurationSeconds": seconds});
        let object = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": "leader"}, "spec": spec,
        });
        let before = Instant::now();
        objects.apply(namespace, object).await?;
        let held = leads(&candidate(namespace), &objects.client).await?;
        // By its own clock, from when it saw the Lease: never earlier.
        ensure!(before.elapsed() >= DURATION, "{renewed}: too early");
        held.release().await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_is_cut_off_stops_before_another_begins() -> Result<()> {
    let plane = ControlPlane::shared().await?;
    let objects = plane.admin().await?;
    objects.make_namespace("cut", &[]).await?;
    let line = Line::to(plane.api).await?;
    let first = leads(&candidate("cut"), &line.client(plane).await?).await?;
    let second = tokio::spawn({
        let client = objects.client.clone();
        let fence = first.fence.clone();
        async move {
            let held = leads(&candidate("cut"), &client).await;
            (held, fence.open())
        }
    });
    ensure!(first.fence.open());
    line.cut().await;
    lost(&first).await?;
    ensure!(!first.fence.open());
    let (held, both) = second.await?;
    ensure!(!both, "two led at once");
    // Too late: nothing is given back that is another's.
    first.release().await;
    let held = held?;
    ensure!(held.fence.open());
    held.release().await;
    Ok(())
}

/// Waits until a holder knows that it leads no more.
async fn lost(held: &Held) -> Result<()> {
    let lost = async {
        held.lost.cancelled().await;
        Ok(())
    };
    patiently("the loss", lost).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_sees_another_in_the_lease_stops_at_once() -> Result<()> {
    let objects = ControlPlane::shared().await?.admin().await?;
    objects.make_namespace("taken", &[]).await?;
    let held = leads(&candidate("taken"), &objects.client).await?;
    let other = json!({"spec": {"holderIdentity": "another"}});
    objects
        .merge(Kind::LEASE, "taken", "leader", None, &other)
        .await?;
    lost(&held).await?;
    held.release().await;
    let lease = lease(&objects, "taken").await?;
    ensure!(lease["spec"]["holderIdentity"] == "another", "{lease}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_on_the_lease_costs_nobody_the_lead() -> Result<()> {
    let objects = ControlPlane::shared().await?.admin().await?;
    objects.make_namespace("label", &[]).await?;
    let held = leads(&candidate("label"), &objects.client).await?;
    for count in 0..3 {
        let label = json!({"metadata": {"labels": {"count": count.to_string()}}});
        objects
            .merge(Kind::LEASE, "label", "leader", None, &label)
            .await?;
        let seen = renewals(&objects, "label").await?;
        until("a renewal", async || {
            let now = renewals(&objects, "label").await.ok()?;
            (now != seen).then_some(())
        })
        .await?;
    }
    ensure!(held.fence.open() && !held.lost.is_cancelled());
    let lease = lease(&objects, "label").await?;
    ensure!(lease["metadata"]["labels"]["count"] == "2", "{lease}");
    held.release().await;
    Ok(())
}

async fn lease(objects: &Objects, namespace: &str) -> Result<Value> {
    let found = objects.get(Kind::LEASE, namespace, "leader").await?;
    found.context("the Lease")
}

async fn renewals(objects: &Objects, namespace: &str) -> Result<Value> {
    Ok(lease(objects, namespace).await?["spec"]["renewTime"].clone())
}

/// A way to the API server that can be cut.
struct Line {
    addr: SocketAddr,
    carrying: tokio::task::JoinHandle<()>,
}

impl Line {
    async fn to(api: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let addr = listener.local_addr()?;
        let carrying = tokio::spawn(async move {
            // Dropped with this task, and the connections with it.
            let mut open = JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                open.spawn(async move {
                    if let Ok(mut far) = TcpStream::connect(api).await {
                        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                    }
                });
            }
        });
        Ok(Self { addr, carrying })
    }

    async fn client(&self, plane: &ControlPlane) -> Result<Client> {
        let file = Kubeconfig::read_from(plane.kubeconfig())?;
        let mut config =
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
        config.cluster_url = format!("https://{}", self.addr).parse()?;
        Ok(Client::try_from(config)?)
    }

    async fn cut(self) {
        self.carrying.abort();
        let _ = self.carrying.await;
    }
}
