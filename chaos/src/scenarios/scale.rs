//! Very many tunnels at once.

use std::time::{Duration, Instant};

use adit_tests::{
    client::{
        connect::{Http2, Http2Tunnel},
        patiently,
    },
    process::{self, until},
    services::tcp::{Manner, TcpService},
    stage::{Plan, Stage},
};
use anyhow::{Context as _, Result, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::json;

use crate::scenario::{Context, Scenario};

/// This part of the table.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "concurrent-tunnels",
        fault: "2,000 tunnels at once that all carry bytes (quick: 500)",
        promise: "every byte comes back in order, and nothing is left open",
        quick: true,
        run: |context| Box::pin(concurrent(context)),
    },
    Scenario {
        name: "idle-tunnels",
        fault: "10,000 idle tunnels",
        promise: "all stand for 30 s and carry bytes after it, and nothing is left open",
        quick: false,
        run: |context| Box::pin(idle(context)),
    },
];

/// Tunnels of one HTTP/2 connection; real clients have some dozens.
const PER_CLIENT: usize = 100;
/// How many are asked for at a time.
const AT_A_TIME: usize = 64;
/// Above what any scenario here opens: beyond these, streams would wait.
const LIMIT: usize = 15_000;

/// A stage that takes so many, behind two targets: one cluster has at most
/// 10,000 connections.
struct Ground {
    stage: Stage,
    other: TcpService,
}

impl Ground {
    async fn start(context: &Context) -> Result<Self> {
        let other = TcpService::start(Manner::Echo)?;
        let stage = Plan::of(&context.version)
            .service("other", format!("tcp://{}", other.addr))
            .env("ADIT_MAX_STREAMS", LIMIT)
            .env("ADIT_MAX_STREAMS_PER_CONNECTOR", LIMIT)
            .option("max-streams", json!(LIMIT))
            .option("max-streams-per-dialer", json!(LIMIT))
            .start()
            .await?;
        Ok(Self { stage, other })
    }

    async fn open(&self, count: usize) -> Result<(Vec<Http2>, Vec<Http2Tunnel>)> {
        let mut clients = Vec::new();
        for _ in 0..count.div_ceil(PER_CLIENT) {
            clients.push(Http2::connect(self.stage.addr()).await?);
        }
        let authorities = [
            self.stage.echo_authority(),
            format!("other.test:{}", self.other.addr.port()),
        ];
        let tunnels = stream::iter(0..count)
            .map(|n| {
                let client = &clients[n % clients.len()];
                let authority = &authorities[n % authorities.len()];
                patiently("a tunnel", async move {
                    let tunnel = client.tunnel(authority).await?;
                    ensure!(tunnel.status == 200, "tunnel {n}: {}", tunnel.status);
                    Ok(tunnel)
                })
            })
            .buffer_unordered(AT_A_TIME)
            .try_collect()
            .await?;
        Ok((clients, tunnels))
    }

    /// Waits until the services have so many connections. A tunnel stands as soon
    /// as the kernel has taken its connection; a service counts it when it accepts.
    async fn reached(&self, count: usize) -> Result<()> {
        until(
            &format!("{count} connections at the services"),
            async || (self.at_services() == count).then_some(()),
        )
        .await
        .with_context(|| format!("they have {}", self.at_services()))
    }

    /// How many connections the services have.
    fn at_services(&self) -> usize {
        self.stage.echo.record.open() + self.other.record.open()
    }

    /// After the clients have gone nothing of their tunnels is left.
    async fn nothing_left(&self) -> Result<Duration> {
        let begun = Instant::now();
        until("end of every tunnel", async || {
            let dialer = self.stage.gateway.status().await.ok()?;
            let connector = self.stage.connector.status().await.ok()?;
            let none = |status: &serde_json::Value| status["streams"] == 0;
            (self.at_services() == 0 && none(&dialer) && none(&connector)).then_some(())
        })
        .await?;
        Ok(begun.elapsed())
    }

    /// Resident memory in bytes: Envoy, dialer, connector.
    fn memory(&self) -> Result<[u64; 3]> {
        Ok([
            process::rss(self.stage.gateway.envoy_pid()?)?,
            process::rss(self.stage.gateway.dialer_pid()?)?,
            self.stage.connector.process()?.rss()?,
        ])
    }
}

/// What a tunnel costs each of the three, in kB.
fn each(before: [u64; 3], after: [u64; 3], tunnels: usize) -> String {
    let kb = |n: usize| after[n].saturating_sub(before[n]) as f64 / 1000.0 / tunnels as f64;
    let mb = |n: usize| after[n] / 1_000_000;
    format!(
        "memory of Envoy {} MB, dialer {} MB, connector {} MB ({:.1}, {:.1} and {:.1} kB a tunnel)",
        mb(0),
        mb(1),
        mb(2),
        kb(0),
        kb(1),
        kb(2)
    )
}

async fn concurrent(context: &Context) -> Result<String> {
    let count = context.scale(500, 2000);
    let rounds = context.scale(20, 50);
    let ground = Ground::start(context).await?;
    let before = ground.memory()?;
    let (clients, tunnels) = ground.open(count).await?;
    ground.reached(count).await?;
    let begun = Instant::now();
    let mut carried = 0_u64;
    let mut ends = tokio::task::JoinSet::new();
    for (n, tunnel) in tunnels.into_iter().enumerate() {
        ends.spawn(patiently_echo(n, tunnel, rounds));
    }
    let mut kept = Vec::new();
    while let Some(ended) = ends.join_next().await {
        let (bytes, tunnel) = ended??;
        carried += bytes;
        kept.push(tunnel);
    }
    let took = begun.elapsed();
    let after = ground.memory()?;
    drop((kept, clients));
    let left = ground.nothing_left().await?;
    Ok(format!(
        "{count} tunnels carried {} MB each way in {took:.1?}; {}; all gone {left:.1?} after their clients",
        carried / 1_000_000,
        each(before, after, count)
    ))
}

/// Sends pieces of its own and compares what comes back.
async fn patiently_echo(
    n: usize,
    mut tunnel: Http2Tunnel,
    rounds: usize,
) -> Result<(u64, Http2Tunnel)> {
    let mut bytes = 0;
    for round in 0..rounds {
        let piece = format!("tunnel {n}, piece {round};").repeat(64);
        tunnel.send(piece.clone()).await?;
        let got = patiently("the echo", tunnel.read_at_least(piece.len())).await?;
        ensure!(got == piece.as_bytes(), "tunnel {n} got another's bytes");
        bytes += piece.len() as u64;
    }
    Ok((bytes, tunnel))
}

async fn idle(context: &Context) -> Result<String> {
    let count = context.scale(1000, 10_000);
    let ground = Ground::start(context).await?;
    // The first tunnel pays for the connection and for every pool.
    let (first, _tunnel) = ground.open(1).await?;
    let before = ground.memory()?;
    let begun = Instant::now();
    let (clients, mut tunnels) = ground.open(count - 1).await?;
    let opened = begun.elapsed();
    let after = ground.memory()?;
    tokio::time::sleep(Duration::from_secs(30)).await;
    ensure!(
        ground.at_services() == count,
        "{} of {count} stand",
        ground.at_services()
    );
    let begun = Instant::now();
    for (n, tunnel) in tunnels.iter_mut().enumerate() {
        let word = format!("still here, {n}");
        tunnel.send(word.clone()).await?;
        let got = patiently("the echo", tunnel.read_at_least(word.len())).await?;
        ensure!(got == word.as_bytes(), "tunnel {n} said {got:?}");
    }
    let echoed = begun.elapsed();
    drop((tunnels, _tunnel, clients, first));
    let left = ground.nothing_left().await?;
    Ok(format!(
        "{count} tunnels opened in {opened:.1?}, idle for 30 s, each echoed within {:.2?}; {}; all gone \
         {left:.1?} after their clients",
        echoed / count as u32,
        each(before, after, count)
    ))
}
