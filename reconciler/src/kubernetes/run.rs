//! The whole process, from access to a graceful end.

use std::{sync::Arc, time::Duration};

use adit_control::AccessError;
use adit_tunnel::admin::AdminError;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::runtime::events::{Recorder, Reporter};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    connectors,
    context::Context,
    gateways::Gateways,
    health::{self, Ready},
    httpproxy::{self, triggers},
    kept::{Health, Key},
    leader::{Election, Fence},
    metrics::{Metrics, Picture},
    options::Config,
    stores::{Scope, Stores, Watching},
    sweep::Sweep,
    writer::{MANAGER, Writer},
};

/// HTTPProxies looked at at once: enough to keep an API server busy that
/// answers in some milliseconds, few enough to leave it to others too.
const WORKERS: usize = 16;
/// Waiting for kinds is said again after this.
const SAY: Duration = Duration::from_secs(10);

/// Why the reconciler ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// There is no way to an API server.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// No API server was chosen.
    #[error("which Kubernetes API? Give --kubeconfig FILE, or --in-cluster in a pod")]
    NoControl,
    /// The admin server's address.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// Another may lead: this process stops, and starts clean.
    #[error(
        "the lease {0} could not be renewed in time, so another reconciler may lead; start again"
    )]
    Lost(String),
}

/// Runs until `shutdown`.
///
/// # Errors
/// When it cannot start.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), RunError> {
    let access = config.control.access().await?.ok_or(RunError::NoControl)?;
    let metrics = Arc::new(Metrics::default());
    let ready = Ready::default();
    let tasks = TaskTracker::new();
    // The admin server ends last, the watches when nobody needs them.
    let stop_admin = CancellationToken::new();
    let stop_watches = CancellationToken::new();
    let stores = Stores::default();
    let queue = triggers::register(&stores, &config);
    let gateways = Arc::new(Gateways::new(&stores));
    let sweep = Arc::new(Sweep::new(&stores));
    let text = {
        let (metrics, stores) = (metrics.clone(), stores.clone());
        let (queue, gateways, sweep) = (queue.clone(), gateways.clone(), sweep.clone());
        move || {
            let mut picture = Picture::default();
            count(&mut picture, &stores);
            let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
            for (kind, n) in [
                ("HTTPProxy", queue.waiting()),
                ("Gateway", gateways.queued()),
                ("Leftover", sweep.queued()),
            ] {
                picture.queued.insert(kind.into(), number(n));
            }
            metrics.encode(&picture)
        }
    };
    let admin = health::serve(
        config.admin.clone(),
        ready.clone(),
        text,
        config.log.clone(),
        stop_admin.clone(),
    )
    .await?;
    // One that waits to lead is ready to.
    ready.set(config.leader_lease.is_some());
    let held = match &config.leader_lease {
        // Who writes nothing need not lead.
        _ if config.dry_run => None,
        None => None,
        Some(lease) => {
            let election = Election::new(&access.namespace, lease);
            match election.acquire(access.client.clone(), &shutdown).await {
                Some(held) => Some(held),
                None => {
                    stop_admin.cancel();
                    return Ok(());
                }
            }
        }
    };
    let fence = held.as_ref().map_or_else(Fence::none, |h| h.fence.clone());
    let lost = held.as_ref().map(|h| h.lost.clone()).unwrap_or_default();
    metrics.leads(true);
    ready.set(false);
    let scope = Scope {
        namespaces: config.namespaces.clone(),
        gateway: config.gateway.as_ref().map(|g| g.namespace.clone()),
        dialers: config
            .dialer_namespace
            .clone()
            .unwrap_or_else(|| access.namespace.clone()),
    };
    tracing::info!(%admin, namespace = access.namespace, dry_run = config.dry_run, "reconciler started");
    stores.watch(&Watching {
        client: access.client.clone(),
        scope: &scope,
        tasks: &tasks,
        shutdown: &stop_watches,
        metrics: metrics.clone(),
    });
    let reporter = Reporter {
        controller: MANAGER.into(),
        instance: std::env::var("HOSTNAME").ok(),
    };
    let grace = config.grace;
    let ctx = Arc::new(Context {
        stores: stores.clone(),
        writer: Writer::new(
            access.client.clone(),
            metrics.clone(),
            fence,
            config.dry_run,
        ),
        metrics: metrics.clone(),
        config,
        recorder: Recorder::new(access.client, reporter),
    });
    let settled = tokio::select! {
        () = settled(&stores) => true,
        () = shutdown.cancelled() => false,
        () = lost.cancelled() => false,
    };
    if settled {
        ready.set(true);
        tracing::info!(
            proxies = stores.proxies.len(),
            connectors = stores.connectors.len(),
            "all objects are known"
        );
        tokio::select! {
            () = control(&ctx, &queue, &gateways, &sweep, &shutdown, grace) => {}
            // At once: what is being written now may be another's already.
            () = lost.cancelled() => {}
        }
    }
    ready.set(false);
    metrics.leads(false);
    stop_watches.cancel();
    tasks.close();
    tasks.wait().await;
    stop_admin.cancel();
    if lost.is_cancelled() {
        return Err(RunError::Lost(
            ctx.config.leader_lease.clone().unwrap_or_default(),
        ));
    }
    if let Some(held) = held {
        held.release().await;
    }
    tracing::info!("reconciler ended");
    Ok(())
}

/// Runs the controllers until `shutdown`, and gives what is being written then
/// its time.
async fn control(
    ctx: &Arc<Context>,
    queue: &triggers::Proxies,
    gateways: &Arc<Gateways>,
    sweep: &Arc<Sweep>,
    shutdown: &CancellationToken,
    grace: Duration,
) {
    sweep.look_around(&ctx.stores);
    let proxies = async |key: Key| httpproxy::reconcile(ctx, gateways, key).await;
    let all = async {
        tokio::join!(
            queue.work(WORKERS, proxies),
            gateways.run(ctx),
            sweep.run(ctx),
            connectors::run(ctx.clone(), shutdown.clone()),
        )
    };
    let end = async {
        shutdown.cancelled().await;
        queue.close();
        gateways.close();
        sweep.close();
        tokio::time::sleep(grace).await;
    };
    tokio::select! {
        _ = all => {}
        () = triggers::on_new_kinds(&ctx.stores, queue) => {}
        () = end => tracing::warn!("what was being written was cut off"),
    }
}

async fn settled(stores: &Stores) {
    let settled = stores.settled();
    tokio::pin!(settled);
    loop {
        let waited = tokio::time::timeout(SAY, &mut settled).await;
        if waited.is_ok() {
            return;
        }
        for (kind, health) in stores.own() {
            let health = health.borrow().clone();
            if health != Health::Synced {
                tracing::warn!(kind, %health, "waiting for this kind");
            }
        }
    }
}

/// Objects by condition.
fn count(picture: &mut Picture, stores: &Stores) {
    let mut add = |kind: &str, conditions: &[Condition]| {
        for c in conditions {
            let key = (kind.to_owned(), c.type_.clone(), c.status.clone());
            *picture.conditions.entry(key).or_default() += 1;
        }
    };
    for proxy in stores.proxies.all() {
        add(
            "HTTPProxy",
            proxy.status.as_ref().map_or(&[], |s| &s.conditions),
        );
    }
    for connector in stores.connectors.all() {
        let status = connector.status.as_ref();
        add("Connector", status.map_or(&[], |s| &s.conditions));
    }
    for advertisement in stores.advertisements.all() {
        let status = advertisement.status.as_ref();
        let conditions: &[Condition] = status.map_or(&[], |s| &s.conditions);
        add("ConnectorAdvertisement", conditions);
    }
    // A condition that others made up would be a label that others choose.
    picture.conditions.retain(|(_, condition, status), _| {
        matches!(
            condition.as_str(),
            "Accepted" | "Programmed" | "ConnectorsReady" | "Ready" | "DNSPublished"
        ) && matches!(status.as_str(), "True" | "False" | "Unknown")
    });
}
