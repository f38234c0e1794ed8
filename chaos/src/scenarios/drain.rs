//! SIGTERM while answers are under way: they become whole, or look cut.

use std::{
    net::SocketAddr,
    process::ExitStatus,
    time::{Duration, Instant},
};

use adit_tests::{
    bare::{self, Dialer, Route},
    client::{
        connect,
        http::{Client, empty, get},
        patiently,
    },
    connector::Connector,
    keys::Key,
    pattern::{Hasher, Pattern},
    process::Process,
    services::http::HttpService,
    stage::Plan,
};
use anyhow::{Context as _, Result, bail, ensure};
use http::Method;
use http_body_util::BodyExt as _;
use serde_json::json;
use tokio::{sync::oneshot, task::JoinHandle};

use crate::scenario::{Context, Scenario};

/// This part of the table.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "drain-run",
        fault: "SIGTERM of adit run with a download of 100 MB and an event stream in flight",
        promise: "both become whole; then it ends, long before its grace period does",
        quick: true,
        run: |context| Box::pin(drain_run(context)),
    },
    Scenario {
        name: "drain-connector",
        fault: "SIGTERM of the connector with the same in flight",
        promise: "both become whole; new tunnels are offline at once; then it ends",
        quick: false,
        run: |context| Box::pin(drain_connector(context)),
    },
    Scenario {
        name: "drain-dialer",
        fault: "SIGTERM of a dialer beside a hand-made Envoy with the same in flight",
        promise: "both become whole; new tunnels get 503 at once; then it ends",
        quick: false,
        run: |context| Box::pin(drain_dialer(context)),
    },
    Scenario {
        name: "drain-too-long",
        fault: "SIGTERM of adit run with an event stream longer than its grace period of 1 s",
        promise: "it ends in time, and the stream looks cut, not complete",
        quick: true,
        run: |context| Box::pin(drain_too_long(context)),
    },
];

/// Much longer than anything here takes: who waits for it has hung.
const GRACE: &str = "5m";
/// 100 MB.
const LENGTH: u64 = 100_000_000;
/// Bytes a second that the client takes: the download lasts 4 s.
const PACE: u64 = 25_000_000;
/// The event stream lasts 5 s.
const EVENTS: usize = 50;
/// Without anything under way a process ends within this; an idle connection of
/// Envoy's pool counts as under way to those behind it (at most its idle timeout).
const ENDS: Duration = Duration::from_secs(15);

/// A download and an event stream, both past their first bytes.
struct Flight {
    download: JoinHandle<Result<()>>,
    events: JoinHandle<Result<()>>,
}

impl Flight {
    async fn start(addr: SocketAddr, host: &'static str) -> Result<Self> {
        let (under_way, download_begun) = oneshot::channel();
        let download = tokio::spawn(async move { download(addr, host, under_way).await });
        let (under_way, events_begun) = oneshot::channel();
        let events = tokio::spawn(async move { events(addr, host, under_way).await });
        patiently("the first bytes", async {
            download_begun.await.context("the download failed")?;
            events_begun.await.context("the event stream failed")
        })
        .await?;
        Ok(Self { download, events })
    }

    /// Both are as whole as if nothing had happened.
    async fn whole(self) -> Result<()> {
        ensure!(
            !self.download.is_finished() && !self.events.is_finished(),
            "they were not in flight any more"
        );
        patiently("the rest of the download", async { self.download.await? }).await?;
        patiently("the rest of the event stream", async { self.events.await? }).await
    }
}

async fn download(addr: SocketAddr, host: &str, under_way: oneshot::Sender<()>) -> Result<()> {
    let mut client = Client::http1(addr, host).await?;
    let path = format!("/download?bytes={LENGTH}&seed=5");
    let mut body = client
        .open(Method::GET, &path, &[], empty())
        .await?
        .into_body();
    let (mut hasher, begun, mut under_way) = (Hasher::default(), Instant::now(), Some(under_way));
    while let Some(frame) = body.frame().await {
        let frame = frame.with_context(|| format!("after {} bytes", hasher.len()))?;
        hasher.update(frame.data_ref().context("data")?);
        if let Some(under_way) = under_way.take() {
            let _ = under_way.send(());
        }
        // The client is what is slow, as on a real network.
        let due = Duration::from_secs_f64(hasher.len() as f64 / PACE as f64);
        tokio::time::sleep(due.saturating_sub(begun.elapsed())).await;
    }
    ensure!(hasher.len() == LENGTH, "{} bytes of {LENGTH}", hasher.len());
    ensure!(hasher.finish() == Pattern::sha256(5, LENGTH), "other bytes");
    Ok(())
}

async fn events(addr: SocketAddr, host: &str, under_way: oneshot::Sender<()>) -> Result<()> {
    let mut client = Client::http1(addr, host).await?;
    let path = format!("/sse?events={EVENTS}&gap=100");
    let mut body = client
        .open(Method::GET, &path, &[], empty())
        .await?
        .into_body();
    let (mut text, mut under_way) = (Vec::new(), Some(under_way));
    while let Some(frame) = body.frame().await {
        text.extend_from_slice(frame?.data_ref().context("data")?);
        if let Some(under_way) = under_way.take() {
            let _ = under_way.send(());
        }
    }
    let got = String::from_utf8_lossy(&text)
        .matches("data: event")
        .count();
    ensure!(got == EVENTS, "{got} events of {EVENTS}");
    Ok(())
}

/// Waits until it has ended, which must be soon after its last stream.
async fn ends(process: &mut Process, told: Instant) -> Result<String> {
    let last = Instant::now();
    let status: ExitStatus = process.wait().await?;
    ensure!(status.success(), "{status}: {}", process.last_words());
    ensure!(
        last.elapsed() < ENDS,
        "it ended only {:?} after its last stream",
        last.elapsed()
    );
    Ok(format!(
        "100 MB with the right SHA-256 and {EVENTS} events; ended {:.1?} after the last of them, \
         {:.1?} after SIGTERM",
        last.elapsed(),
        told.elapsed()
    ))
}

async fn drain_run(context: &Context) -> Result<String> {
    let mut stage = Plan::of(&context.version)
        .env("ADIT_GRACE_PERIOD", GRACE)
        .start()
        .await?;
    let flight = Flight::start(stage.addr(), "web.test").await?;
    let told = Instant::now();
    stage
        .gateway
        .process
        .signal(rustix::process::Signal::TERM)?;
    flight.whole().await?;
    ends(&mut stage.gateway.process, told).await
}

async fn drain_connector(context: &Context) -> Result<String> {
    let mut stage = Plan::of(&context.version)
        .option("grace-period", json!(GRACE))
        .start()
        .await?;
    let flight = Flight::start(stage.addr(), "web.test").await?;
    let told = Instant::now();
    let mut process = stage.connector.process.take().context("a connector")?;
    process.signal(rustix::process::Signal::TERM)?;
    let authority = stage.echo_authority();
    let offline = adit_tests::process::until("a tunnel that is offline", async || {
        let answer = connect::http1(stage.addr(), &authority, b"").await.ok()?;
        (answer.status == 503).then_some(())
    });
    offline.await?;
    let refused = told.elapsed();
    flight.whole().await?;
    let said = ends(&mut process, told).await?;
    Ok(format!(
        "{said}; a new tunnel was offline after {refused:.1?}"
    ))
}

async fn drain_dialer(context: &Context) -> Result<String> {
    let dir = tempfile::Builder::new().prefix("adit-").tempdir()?;
    let web = HttpService::start()?;
    let key = Key::new(dir.path(), "dialer")?;
    let targets = [web.addr.to_string()];
    let mut edge = Connector::new(dir.path(), "edge", &[&key.id], &targets)?;
    edge.start().await?;
    let hints = [(edge.key.id.as_str(), edge.bound().await?[0])];
    let mut dialer = Dialer::start(dir.path(), &key, &hints, &["--grace-period", GRACE]).await?;
    let deadline = Duration::from_secs(5);
    let target = bare::target(&[&edge.key.id], &targets[0], deadline)?;
    let routes = [Route {
        name: "web",
        target,
        h2: false,
        connect: false,
    }];
    let envoy = bare::envoy(&context.version, dir.path(), &dialer.socket, &routes).await?;
    let addr = envoy.listener("main").await?;
    let flight = Flight::start(addr, "web.test").await?;
    let told = Instant::now();
    dialer.process.signal(rustix::process::Signal::TERM)?;
    let gone = dialer.socket.clone();
    adit_tests::process::until("end of the socket", async || (!gone.exists()).then_some(()))
        .await?;
    let answer = patiently("an answer", get(addr, "web.test", "/echo")).await?;
    ensure!(answer.status == 503, "a new tunnel: {}", answer.status);
    flight.whole().await?;
    // This Envoy keeps an idle connection for an hour, and the dialer would wait.
    drop(envoy);
    ends(&mut dialer.process, told).await
}

async fn drain_too_long(context: &Context) -> Result<String> {
    let mut stage = Plan::of(&context.version)
        .env("ADIT_GRACE_PERIOD", "1s")
        .start()
        .await?;
    let mut client = Client::http1(stage.addr(), "web.test").await?;
    let path = "/sse?events=10000&gap=50";
    let mut body = client
        .open(Method::GET, path, &[], empty())
        .await?
        .into_body();
    ensure!(body.frame().await.is_some(), "a first event");
    let told = Instant::now();
    stage
        .gateway
        .process
        .signal(rustix::process::Signal::TERM)?;
    let cut = patiently("the end of the stream", async {
        loop {
            match body.frame().await {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Ok(error),
                None => bail!("half a stream looked whole"),
            }
        }
    })
    .await?;
    let after = told.elapsed();
    let status = stage.gateway.process.wait().await?;
    ensure!(status.success(), "{status}");
    // Its own grace period, then the children's margin of 3 s each.
    ensure!(
        told.elapsed() < Duration::from_secs(10),
        "it ended only after {:?}",
        told.elapsed()
    );
    Ok(format!(
        "cut after {after:.1?} ({cut}); ended {:.1?} after SIGTERM",
        told.elapsed()
    ))
}
