//! Clients and services that are slow on purpose, or say nothing at all, beside
//! others that must not notice.

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::Stdio,
    time::{Duration, Instant},
};

use adit_tests::{
    client::http::{Client, empty},
    debian,
    process::{rss, until},
    services::tcp::{Manner, TcpService},
    stage::{Plan, Stage},
};
use anyhow::{Context as _, Result, ensure};
use futures_util::future::join_all;
use http::Method;
use http_body_util::BodyExt as _;
use tokio::{
    process::{Child, Command},
    task::JoinSet,
};

use crate::{
    load,
    scenario::{Context, LeftOut, Scenario},
};

/// This part of the table.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "slow-headers",
        fault: "slowhttptest: 1,000 clients (quick: 200) that never end their header, beside 100 requests/s",
        promise: "no other request fails, none of theirs reaches the dialer, their connections are given back",
        quick: true,
        run: |context| Box::pin(slow_clients(context, &HEADERS)),
    },
    Scenario {
        name: "slow-body",
        fault: "slowhttptest: 500 clients (quick: 100) that never end their body, beside 100 requests/s",
        promise: "no other request fails, their tunnels end with them",
        quick: true,
        run: |context| Box::pin(slow_clients(context, &BODY)),
    },
    Scenario {
        name: "slow-read",
        fault: "slowhttptest: 500 clients (quick: 100) that read a download byte by byte, beside 100 requests/s",
        promise: "the others are served again within 20 s of the rush although the slow ones stay, memory stays bounded",
        quick: false,
        run: |context| Box::pin(slow_clients(context, &READ)),
    },
    Scenario {
        name: "stalled-service",
        fault: "a service that accepts and never answers, 200 requests to it, beside 100 requests/s to another",
        promise: "no other request fails; when its clients leave, it is told",
        quick: true,
        run: |context| Box::pin(stalled(context)),
    },
    Scenario {
        name: "dripping-service",
        fault: "a service that answers a line a second, 50 clients, beside 100 requests/s",
        promise: "each line arrives when it was sent, no other request fails",
        quick: true,
        run: |context| Box::pin(dripping(context)),
    },
];

/// One of slowhttptest's ways.
struct Way {
    arguments: &'static [&'static str],
    path: &'static str,
    /// How many clients, quick and in full.
    clients: (usize, usize),
    /// Whether their requests go on to the service before they are complete.
    reaches: bool,
    /// Envoy's counter by which they are seen to have come.
    counter: &'static str,
    /// How long requests of others may fail.
    outage: Duration,
}

const ACTIVE: &str = "downstream_cx_active";
/// Some of those who stay away from what is there for them are cut.
const TOTAL: &str = "downstream_cx_total";

const HEADERS: Way = Way {
    arguments: &["-H"],
    path: "/",
    clients: (200, 1000),
    reaches: false,
    counter: ACTIVE,
    outage: Duration::ZERO,
};
const BODY: Way = Way {
    arguments: &["-B", "-s", "100000"],
    path: "/hash",
    clients: (100, 500),
    reaches: true,
    counter: ACTIVE,
    outage: Duration::ZERO,
};
/// One byte of a window of at most 512 each second.
const READ: Way = Way {
    arguments: &["-X", "-w", "1", "-y", "512", "-n", "1", "-z", "1"],
    path: "/download?bytes=10000000",
    clients: (100, 500),
    reaches: true,
    counter: TOTAL,
    // Hundreds of downloads that begin at once are a load of their own.
    outage: Duration::from_secs(20),
};
/// What one slow reader may cost dialer and connector together: the window of
/// one stream (1.25 MB) at each end, and as much again in buffers on the way.
const PER_READER: u64 = 5 << 20;

async fn slow_clients(context: &Context, way: &Way) -> Result<String> {
    let Some(program) = debian::find("slowhttptest", "slowhttptest") else {
        let what = "slowhttptest is neither on PATH nor unpacked: `cargo xtask chaos` does so";
        return Err(LeftOut(what.into()).into());
    };
    let stage = Plan::of(&context.version).start().await?;
    let clients = context.scale(way.clients.0, way.clients.1);
    let memory = memory(&stage)?;
    let load = others(&stage).begin();
    let before = connections(&stage, way.counter).await?;
    let mut attack = attack(&program, stage.addr(), way, clients)?;
    // All but those that wait for their turn to be opened.
    let goal = clients * 9 / 10;
    until("slow clients", async || {
        let now = connections(&stage, way.counter).await.ok()?;
        let held = now.saturating_sub(before);
        (held >= goal).then_some(())
    })
    .await?;
    tokio::time::sleep(Duration::from_secs(context.scale(3, 30))).await;
    let streams = streams(&stage).await?;
    ensure!(
        way.reaches || streams < clients / 2,
        "{streams} tunnels for unfinished requests"
    );
    let grown = self::memory(&stage)?.saturating_sub(memory);
    ensure!(
        grown < PER_READER * clients as u64,
        "dialer and connector grew by {} MB",
        grown >> 20
    );
    let tally = load.end().await?;
    ensure!(
        tally.outage() <= way.outage,
        "others failed over {:.1?}: of {} {}",
        tally.outage(),
        tally.sent(),
        tally.failed()
    );
    attack.kill().await?;
    // What is left is kept alive for the next request.
    until("end of the tunnels", async || {
        let here = self::streams(&stage).await.ok()?;
        (here < goal.min(50)).then_some(())
    })
    .await?;
    until("end of the connections", async || {
        let now = connections(&stage, ACTIVE).await.ok()?;
        (now < goal).then_some(())
    })
    .await?;
    Ok(format!(
        "{} of {} others answered, p99 {:.0?}, {:.1?} with failures; {streams} tunnels, {} MB more in dialer and \
         connector; all given back",
        tally.ok,
        tally.sent(),
        tally.percentile(99.0),
        tally.outage(),
        grown >> 20
    ))
}

async fn stalled(context: &Context) -> Result<String> {
    let service = TcpService::start(Manner::NeverReads)?;
    let stage = Plan::of(&context.version)
        .service("stalled", format!("http://{}", service.addr))
        .start()
        .await?;
    let load = others(&stage).begin();
    let addr = stage.addr();
    let mut waiting = JoinSet::new();
    for _ in 0..200 {
        waiting.spawn(async move {
            let mut client = Client::http1(addr, "stalled.test").await?;
            client.get("/").await
        });
    }
    until("requests at the stalled service", async || {
        (service.record.open() >= 200).then_some(())
    })
    .await?;
    tokio::time::sleep(Duration::from_secs(context.scale(3, 30))).await;
    ensure!(
        waiting.try_join_next().is_none(),
        "somebody was answered by a service that does not answer"
    );
    waiting.shutdown().await;
    let left = Instant::now();
    until("told service", async || {
        (service.record.open() == 0).then_some(())
    })
    .await?;
    let told = left.elapsed();
    let tally = load.end().await?;
    tally.none_failed()?;
    Ok(format!(
        "all {} others answered, p99 {:.0?}; told {told:.1?} after 200 clients had left",
        tally.sent(),
        tally.percentile(99.0)
    ))
}

async fn dripping(context: &Context) -> Result<String> {
    /// Later than it was sent by more than this is held back.
    const LATE: Duration = Duration::from_millis(900);
    let pieces: usize = context.scale(3, 20);
    let stage = Plan::of(&context.version).start().await?;
    let load = others(&stage).begin();
    let addr = stage.addr();
    let one = async || {
        let mut client = Client::http1(addr, "web.test").await?;
        let path = format!("/drip?pieces={pieces}&gap=1000");
        let begun = Instant::now();
        let answer = client.open(Method::GET, &path, &[], empty()).await?;
        let mut body = answer.into_body();
        let (mut got, mut latest) = (Vec::new(), Duration::ZERO);
        while let Some(frame) = body.frame().await {
            let lines = got.iter().filter(|b| **b == b'\n').count();
            let due = Duration::from_secs(lines as u64);
            latest = latest.max(begun.elapsed().saturating_sub(due));
            got.extend_from_slice(&frame?.into_data().unwrap_or_default());
        }
        let whole: String = (0..pieces).map(|i| format!("piece {i}\n")).collect();
        ensure!(
            got == whole.as_bytes(),
            "{:?}",
            String::from_utf8_lossy(&got)
        );
        Ok(latest)
    };
    let mut latest = Duration::ZERO;
    for late in join_all((0..50).map(|_| one())).await {
        latest = latest.max(late?);
    }
    let tally = load.end().await?;
    tally.none_failed()?;
    ensure!(latest < LATE, "a line came {latest:?} after it was sent");
    Ok(format!(
        "{pieces} lines each, the latest {latest:.0?} after it was sent; all {} others answered, p99 {:.0?}",
        tally.sent(),
        tally.percentile(99.0)
    ))
}

fn others(stage: &Stage) -> load::Plan {
    let mut plan = load::Plan::get(stage.addr(), "web.test", "/echo");
    plan.rate = 100;
    plan
}

/// The route is chosen by name and the name is in no DNS: Envoy stands as the
/// proxy, and the requests are in absolute form.
fn attack(program: &PathBuf, envoy: SocketAddr, way: &Way, clients: usize) -> Result<Child> {
    Command::new(program)
        .args(way.arguments)
        .args(["-c", &clients.to_string(), "-r", &clients.to_string()])
        // Longer than we look; it is killed then.
        .args(["-i", "1", "-l", "600", "-v", "1"])
        .args(["-u", &format!("http://web.test{}", way.path)])
        .args(["-d", &envoy.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("start slowhttptest")
}

/// Clients' connections, by this counter of Envoy.
async fn connections(stage: &Stage, counter: &str) -> Result<usize> {
    let path = format!("/stats?filter={counter}$");
    let stats = stage.gateway.envoy.get(&path).await?;
    let of_http = stats.lines().filter_map(|line| {
        let (name, value) = line.split_once(": ")?;
        (name.starts_with("http.") && !name.starts_with("http.admin."))
            .then(|| value.trim().parse::<usize>().ok())?
    });
    Ok(of_http.sum())
}

/// Tunnels that the dialer has open.
async fn streams(stage: &Stage) -> Result<usize> {
    let status = stage.gateway.status().await?;
    let streams = status["streams"].as_u64().context("streams")?;
    Ok(usize::try_from(streams)?)
}

/// Of dialer and connector, in bytes.
fn memory(stage: &Stage) -> Result<u64> {
    Ok(rss(stage.gateway.dialer_pid()?)? + stage.connector.process()?.rss()?)
}
