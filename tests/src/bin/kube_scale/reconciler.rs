//! How long the reconciler takes for a large cluster, and how much memory:
//! HTTPProxies over Connectors, all on one Gateway, with Envoy Gateway stopped
//! (its own time is the other measurement). Prints one figure per line.

use std::time::{Duration, Instant};

use adit_tests::{
    admin::Admin,
    keys::Key,
    kube::{ControlPlane, Kind, Objects, reconciler},
};
use anyhow::{Context, Result, bail, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Value, json};

use crate::options::{self, Options};

/// Namespaces that the objects are spread over.
const NAMESPACES: usize = options::NAMESPACES as usize;
/// Requests at once while the objects are made.
const MAKERS: usize = 32;
/// How long nothing may happen when nothing has changed.
const CALM: Duration = Duration::from_secs(20);
/// The longest that is waited.
const PATIENCE: Duration = Duration::from_secs(600);
/// The label of everything that is made.
const OURS: &str = "app.kubernetes.io/managed-by=adit";

/// Starts a control plane and the reconciler on it, and measures.
pub async fn measure(options: &Options) -> Result<Value> {
    let (proxies, connectors) = (options.proxies as usize, options.connectors as usize);
    let began = Instant::now();
    let plane = ControlPlane::start().await?;
    let objects = plane.admin().await?;
    let dir = tempfile::Builder::new().prefix("scale-").tempdir()?;
    ground(&objects).await?;
    people(&objects, dir.path(), proxies, connectors).await?;
    say!(
        options,
        "{proxies} HTTPProxies over {connectors} Connectors made in {:.1} s",
        began.elapsed().as_secs_f64()
    );
    let mark = plane.mark();
    let cold = Instant::now();
    let gateway = ["--gateway", "infra/edge"];
    let (mut reconciler, admin) =
        reconciler::start(dir.path(), &plane.kubeconfig(), "infra", &gateway).await?;
    say!(
        options,
        "all objects known after {:.1} s",
        cold.elapsed().as_secs_f64()
    );
    let mut most = 0;
    let written = loop {
        most = most.max(reconciler.rss()?);
        let wrote = counter(&admin, "writes_total", "kind=\"HTTPRoute\"").await?;
        let said = counter(&admin, "writes_total", "kind=\"HTTPProxy\"").await?;
        if wrote >= proxies as u64 && said >= proxies as u64 {
            break cold.elapsed();
        }
        ensure!(reconciler.is_running(), "{}", reconciler.last_words());
        if cold.elapsed() > PATIENCE {
            bail!(
                "{wrote} of {proxies} routes after {PATIENCE:?}\n{}",
                reconciler.last_words()
            );
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    for kind in [Kind::HTTP_ROUTE, Kind::BACKEND, Kind::ENVOY_PATCH_POLICY] {
        let there = objects.list(kind, "", OURS).await?.len();
        ensure!(there == proxies, "{there} objects of {kind:?}");
    }
    say!(
        options,
        "cold to all written: {:.1} s",
        written.as_secs_f64()
    );
    let looks = settled(&admin).await?;
    most = most.max(reconciler.rss()?);
    let writes = plane.writes_since(mark)?.len();
    say!(options, "looks at HTTPProxies until calm: {looks}");
    say!(options, "writes of the reconciler until calm: {writes}");
    say!(options, "resident memory, most seen: {} MiB", most >> 20);

    let mark = plane.mark();
    tokio::time::sleep(CALM).await;
    let more = settled(&admin).await? - looks;
    let idle = plane.writes_since(mark)?;
    let idle = idle.iter().filter(|w| w.resource != "leases").count();
    say!(
        options,
        "in {} s without any change: {more} looks, {idle} writes",
        CALM.as_secs()
    );

    let before = settled(&admin).await?;
    let mark = plane.mark();
    let at = Instant::now();
    objects
        .apply(&namespace(0), proxy(0, connectors, 81))
        .await?;
    let routes = loop {
        let writes = plane.writes_since(mark)?;
        let routes = writes
            .iter()
            .filter(|w| w.user == "admin" && w.resource == "backends");
        if routes.count() > 0 {
            break at.elapsed();
        }
        ensure!(at.elapsed() < PATIENCE, "the change was not written");
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let again = settled(&admin).await? - before;
    say!(
        options,
        "one changed endpoint: {again} look(s), first write after {} ms",
        routes.as_millis()
    );
    let last = reconciler.rss()?;
    say!(options, "resident memory at the end: {} MiB", last >> 20);
    reconciler.terminate().await?;
    Ok(json!({
        "proxies": proxies, "connectors": connectors,
        "cold_s": written.as_secs_f64(), "looks": looks, "writes": writes,
        "rss_most_bytes": most, "rss_last_bytes": last,
        "idle": {"seconds": CALM.as_secs(), "looks": more, "writes": idle},
        "one_change": {"looks": again, "first_write_ms": routes.as_millis() as u64},
    }))
}

fn namespace(n: usize) -> String {
    format!("team-{}", n % NAMESPACES)
}

/// A Gateway whose Envoy has the module.
async fn ground(objects: &Objects) -> Result<()> {
    objects.make_namespace("infra", &[]).await?;
    for n in 0..NAMESPACES {
        objects.make_namespace(&namespace(n), &[]).await?;
    }
    let source = json!({"type": "Local", "local": {"path": "/usr/lib/adit/libadit.so"}});
    let all = json!({"namespaces": {"from": "All"}});
    for object in [
        json!({
            "apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": "EnvoyProxy",
            "metadata": {"name": "adit"},
            "spec": {"dynamicModules": [{"name": "adit", "source": source}]},
        }),
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass",
            "metadata": {"name": "adit"},
            "spec": {"controllerName": "gateway.envoyproxy.io/gatewayclass-controller",
                "parametersRef": {"group": "gateway.envoyproxy.io", "kind": "EnvoyProxy",
                    "name": "adit", "namespace": "infra"}},
        }),
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
            "metadata": {"name": "edge"},
            "spec": {"gatewayClassName": "adit", "listeners": [
                {"name": "http", "port": 80, "protocol": "HTTP", "allowedRoutes": all},
            ]},
        }),
        json!({
            "apiVersion": "networking.datumapis.com/v1alpha1", "kind": "ConnectorClass",
            "metadata": {"name": "datum-connect"}, "spec": {},
        }),
    ] {
        objects.apply("infra", object).await?;
    }
    Ok(())
}

/// Connectors with what their agents say, and HTTPProxies.
async fn people(
    objects: &Objects,
    dir: &std::path::Path,
    proxies: usize,
    connectors: usize,
) -> Result<()> {
    let key = Key::new(dir, "agent").context("a key")?;
    let id = key.id.as_str();
    stream::iter(0..connectors)
        .map(|n| async move {
            let name = format!("box-{n}");
            for object in connector(&name) {
                objects.apply(&namespace(n), object).await?;
            }
            let status = json!({"status": {"connectionDetails": {"type": "PublicKey", "publicKey": {
                "id": id, "homeRelay": "https://relay.example.com/",
                "addresses": [{"address": "192.0.2.1", "port": 4242}],
            }}}});
            objects
                .merge(
                    Kind::CONNECTOR,
                    &namespace(n),
                    &name,
                    Some("status"),
                    &status,
                )
                .await
        })
        .buffer_unordered(MAKERS)
        .try_collect::<Vec<_>>()
        .await?;
    stream::iter(0..proxies)
        .map(|n| async move { objects.apply(&namespace(n), proxy(n, connectors, 80)).await })
        .buffer_unordered(MAKERS)
        .try_collect::<Vec<_>>()
        .await?;
    Ok(())
}

fn connector(name: &str) -> [Value; 2] {
    let version = "networking.datumapis.com/v1alpha1";
    let ports = json!([{"name": "a", "port": 80}, {"name": "b", "port": 81}]);
    let services = json!([{"address": "localhost", "ports": ports}]);
    [
        json!({
            "apiVersion": version, "kind": "Connector", "metadata": {"name": name},
            "spec": {"connectorClassName": "datum-connect"},
        }),
        json!({
            "apiVersion": version, "kind": "ConnectorAdvertisement", "metadata": {"name": name},
            "spec": {
                "connectorRef": {"name": name},
                "layer4": [{"name": "all", "services": services}],
            },
        }),
    ]
}

/// The `n`th HTTPProxy, over a connector of its namespace.
fn proxy(n: usize, connectors: usize, port: u16) -> Value {
    let here = (0..connectors).filter(|c| c % NAMESPACES == n % NAMESPACES);
    let here: Vec<_> = here.collect();
    let connector = here.get(n / NAMESPACES % here.len().max(1)).copied();
    json!({
        "apiVersion": "networking.datumapis.com/v1alpha", "kind": "HTTPProxy",
        "metadata": {"name": format!("web-{n}")},
        "spec": {"hostnames": [format!("web-{n}.example.com")], "rules": [{"backends": [{
            "endpoint": format!("http://localhost:{port}"),
            "connector": {"name": format!("box-{}", connector.unwrap_or_default())},
        }]}]},
    })
}

/// The sum of a counter's lines that contain `with`.
async fn counter(admin: &Admin, name: &str, with: &str) -> Result<u64> {
    let text = admin.get("/metrics").await?;
    let name = format!("adit_reconciler_{name}{{");
    let lines = text
        .lines()
        .filter(|l| l.starts_with(&name) && l.contains(with));
    let values = lines.filter_map(|l| l.rsplit(' ').next()?.parse::<u64>().ok());
    Ok(values.sum())
}

/// How often HTTPProxies were looked at, once that is calm.
async fn settled(admin: &Admin) -> Result<u64> {
    let began = Instant::now();
    let (mut before, mut calm) = (u64::MAX, 0);
    while calm < 10 {
        let now = counter(admin, "reconciles_total", "kind=\"HTTPProxy\"").await?;
        calm = if now == before { calm + 1 } else { 0 };
        before = now;
        ensure!(began.elapsed() < PATIENCE, "never calm");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(before)
}
