//! What is allowed, or wanted, changes while traffic flows.

use std::time::{Duration, Instant};

use adit_tests::{
    client::{
        connect::{End, Http2, Http2Tunnel},
        http::get,
        patiently,
    },
    manifests::{self, Backend},
    process::until,
    services::{
        http::HttpService,
        tcp::{Manner, TcpService},
    },
    stage::{EDGE, Plan, Stage},
};
use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::{
    load,
    scenario::{Context, Scenario},
};

/// This part of the table.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "revoke-at-connector",
        fault: "a target is taken away at the connector while 50 of its tunnels are open and others carry 500 requests/s",
        promise: "all 50 are reset within 3 s, new ones are denied, no other request fails",
        quick: true,
        run: |context| Box::pin(revoke_at_connector(context)),
    },
    Scenario {
        name: "revoke-at-gateway",
        fault: "a target's manifest is removed while 50 of its tunnels are open and others carry 500 requests/s",
        promise: "all 50 are reset within drain-timeout (1 s) and 5 s, no other request fails",
        quick: true,
        run: |context| Box::pin(revoke_at_gateway(context)),
    },
    Scenario {
        name: "reload",
        fault: "the manifests change 100 times under 500 requests/s (quick: 20)",
        promise: "each change is in effect before the next, and no request fails",
        quick: true,
        run: |context| Box::pin(reload(context)),
    },
];

const TUNNELS: usize = 50;

/// A stage with another target, and tunnels to it.
struct Ground {
    stage: Stage,
    other: TcpService,
    authority: String,
    clients: Vec<Http2>,
    tunnels: Vec<Http2Tunnel>,
}

impl Ground {
    async fn start(context: &Context) -> Result<Self> {
        let other = TcpService::start(Manner::Echo)?;
        let stage = Plan::of(&context.version)
            .service("other", format!("tcp://{}", other.addr))
            .env("ADIT_DRAIN_TIMEOUT", "1s")
            .start()
            .await?;
        let authority = format!("other.test:{}", other.addr.port());
        let client = Http2::connect(stage.addr()).await?;
        let mut tunnels = Vec::new();
        for _ in 0..TUNNELS {
            let mut tunnel = patiently("a tunnel", client.tunnel(&authority)).await?;
            ensure!(tunnel.status == 200, "CONNECT: {}", tunnel.status);
            tunnel.send("hello").await?;
            ensure!(tunnel.read_at_least(5).await? == b"hello");
            tunnels.push(tunnel);
        }
        Ok(Self {
            stage,
            other,
            authority,
            clients: vec![client],
            tunnels,
        })
    }

    /// How long it took until the last tunnel was reset, and the service rid of
    /// them.
    async fn all_reset(&mut self, since: Instant) -> Result<Duration> {
        for mut tunnel in self.tunnels.drain(..) {
            let cut = async { Ok(tunnel.read_to_end().await) };
            let (_, end) = patiently("the end of a tunnel", cut).await?;
            ensure!(
                matches!(end, End::Reset(_)),
                "a revoked tunnel ended {end:?}"
            );
        }
        let took = since.elapsed();
        until("end at the service", async || {
            (self.other.record.open() == 0).then_some(())
        })
        .await?;
        Ok(took)
    }
}

async fn revoke_at_connector(context: &Context) -> Result<String> {
    let mut ground = Ground::start(context).await?;
    let load = load::Plan::get(ground.stage.addr(), "web.test", "/echo").begin();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let revoked = ground.other.addr.to_string();
    let all = ground.stage.targets.iter();
    let fewer: Vec<_> = all.filter(|t| **t != revoked).cloned().collect();
    let begun = Instant::now();
    ground
        .stage
        .connector
        .set("targets", json!(fewer))
        .reconfigure()?;
    let took = ground.all_reset(begun).await?;
    let refused = ground.clients[0].tunnel(&ground.authority).await?;
    ensure!(
        refused.status == 502,
        "a revoked target: {}",
        refused.status
    );
    tokio::time::sleep(Duration::from_secs(1)).await;
    seen(load.end().await?, took, Duration::from_secs(3))
}

async fn revoke_at_gateway(context: &Context) -> Result<String> {
    let mut ground = Ground::start(context).await?;
    let load = load::Plan::get(ground.stage.addr(), "web.test", "/echo").begin();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let begun = Instant::now();
    ground.stage.gateway.manifests.remove("other")?;
    let took = ground.all_reset(begun).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    // A cluster stays 2 s after its last route.
    seen(load.end().await?, took, Duration::from_secs(6))
}

fn seen(tally: load::Tally, took: Duration, most: Duration) -> Result<String> {
    tally.none_lost()?;
    tally.none_failed()?;
    ensure!(took < most, "the last tunnel ended only after {took:?}");
    Ok(format!(
        "{TUNNELS} tunnels reset within {took:.1?}; {} other requests answered, the slowest after {:.1?}",
        tally.ok, tally.slowest
    ))
}

async fn reload(context: &Context) -> Result<String> {
    let rounds = context.scale(20, 100);
    let stage = Plan::of(&context.version).start().await?;
    let another = HttpService::start()?;
    let load = load::Plan::get(stage.addr(), "web.test", "/echo").begin();
    let through = Backend::through(EDGE, format!("http://{}", stage.web.addr));
    // Envoy reaches this one by itself.
    let direct = Backend {
        via: None,
        ..Backend::through(EDGE, format!("http://{}", another.addr))
    };
    let begun = Instant::now();
    for round in 0..rounds {
        change(&stage, round, &through, &direct)
            .await
            .with_context(|| format!("change {round}"))?;
    }
    let took = begun.elapsed();
    let tally = load.end().await?;
    tally.none_lost()?;
    tally.none_failed()?;
    Ok(format!(
        "{rounds} changes, one each {:.2?}; {} requests answered, p99 {:.1?}, the slowest {:.1?}",
        took / rounds,
        tally.ok,
        tally.percentile(99.0),
        tally.slowest
    ))
}

/// One change, and proof that it is in effect: by turns a new host, its backend
/// in another way, its end, and a change of the very route that is under load.
async fn change(
    stage: &Stage,
    round: u32,
    through: &Backend<'_>,
    direct: &Backend<'_>,
) -> Result<()> {
    let manifests = &stage.gateway.manifests;
    let (host, status) = match round % 4 {
        0 => {
            manifests.proxy("moving", "moving.test", through)?;
            ("moving.test".to_owned(), 200)
        }
        1 => {
            let host = format!("direct-{round}.test");
            manifests.proxy("moving", &host, direct)?;
            (host, 200)
        }
        2 => {
            manifests.remove("moving")?;
            (format!("direct-{}.test", round - 1), 404)
        }
        _ => {
            let host = format!("web-{round}.test");
            let text = manifests::proxy("web", "web.test", std::slice::from_ref(through));
            let both = text.replace("  - web.test\n", &format!("  - web.test\n  - {host}\n"));
            ensure!(text != both, "the manifest has another form now");
            manifests.write("web", &both)?;
            (host, 200)
        }
    };
    until(&format!("{status} of {host}"), async || {
        let answer = get(stage.addr(), &host, "/echo").await.ok()?;
        (answer.status == status).then_some(())
    })
    .await
    .with_context(|| stage.gateway.process.last_words())
}
