//! A lot of everything, one test at a time, through `adit run`. Times and speeds
//! are printed, never asserted; what is asserted is that nothing is lost and
//! memory stays flat.
//!
//! | what | how much |
//! |---|---|
//! | tunnels open at once, each carrying bytes | 1,000 |
//! | sequential requests on one connection, and each on its own stream | 10,000 |
//! | one upload and one download, checksums compared | 2 GiB each |

use std::time::Instant;

use adit_tests::{
    binaries,
    client::{
        connect::{Http2, Http2Tunnel},
        http::Client,
        patiently,
    },
    gateway::Gateway,
    on_each_envoy,
    pattern::Pattern,
    process::{self, raise_open_files, until},
    stage::{Plan, Stage},
};
use anyhow::{Result, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::sync::{Mutex, MutexGuard};

on_each_envoy!(
    a_thousand_tunnels_stand_at_once,
    ten_thousand_sequential_requests_are_answered,
    two_gib_each_way_arrive_whole_and_memory_stays_flat,
);

/// One heavy test at a time: two of them would only measure each other.
async fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::const_new(());
    ALONE.lock().await
}

async fn a_thousand_tunnels_stand_at_once(version: &str) -> Result<()> {
    let _alone = alone().await;
    raise_open_files();
    let stage = Plan::of(version).start().await?;
    let authority = stage.echo_authority();
    // Ten HTTP/2 connections, as many clients have.
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(Http2::connect(stage.addr()).await?);
    }
    let begun = Instant::now();
    let mut tunnels: Vec<Http2Tunnel> = stream::iter(0..1000)
        .map(|i: usize| {
            let (client, authority) = (&clients[i % clients.len()], &authority);
            patiently("a tunnel", async move {
                let tunnel = client.tunnel(authority).await?;
                ensure!(tunnel.status == 200, "tunnel {i}: {}", tunnel.status);
                Ok(tunnel)
            })
        })
        .buffer_unordered(1000)
        .try_collect()
        .await?;
    println!("1,000 tunnels stood after {:?}", begun.elapsed());
    // A 200 says that the kernel has the connection; the service takes it from
    // there in its own time.
    until("1,000 tunnels at the service", async || {
        (stage.echo.record.open() == 1000).then_some(())
    })
    .await?;
    let begun = Instant::now();
    for round in 0..3 {
        for (i, tunnel) in tunnels.iter_mut().enumerate() {
            tunnel.send(format!("{round} {i:05}")).await?;
        }
        for (i, tunnel) in tunnels.iter_mut().enumerate() {
            let expected = format!("{round} {i:05}");
            let echoed = tunnel.read_at_least(expected.len());
            let got = patiently("an echo", echoed).await?;
            ensure!(got == expected.as_bytes(), "tunnel {i} said {got:?}");
        }
    }
    println!("3 rounds through all of them took {:?}", begun.elapsed());
    let (dialer, connector) = memory(&stage)?;
    println!("RSS with 1,000 tunnels: dialer {dialer} MiB, connector {connector} MiB");
    drop(tunnels);
    drop(clients);
    until("end of all tunnels", async || {
        (stage.echo.record.open() == 0).then_some(())
    })
    .await
}

async fn ten_thousand_sequential_requests_are_answered(version: &str) -> Result<()> {
    let _alone = alone().await;
    let stage = Plan::of(version).start().await?;
    let rounds = if binaries::all() { 10 } else { 1 };
    for (host, count) in [("web.test", 10_000), ("h2.test", 10_000)] {
        let begun = Instant::now();
        let mut client = if host == "web.test" {
            Client::http1(stage.addr(), host).await?
        } else {
            Client::http2(stage.addr(), host).await?
        };
        for i in 0..count * rounds {
            let answer = client.get("/status?code=200").await?;
            ensure!(
                answer.status == 200,
                "request {i} to {host}: {}",
                answer.status
            );
        }
        let per_second = f64::from(count * rounds) / begun.elapsed().as_secs_f64();
        println!("{host}: {per_second:.0} sequential requests a second");
    }
    Ok(())
}

async fn two_gib_each_way_arrive_whole_and_memory_stays_flat(version: &str) -> Result<()> {
    const GIB: u64 = 1 << 30;
    let _alone = alone().await;
    let stage = Plan::of(version).start().await?;
    let mut client = Client::http1(stage.addr(), "web.test").await?;
    // Warm: buffers and pools are there.
    client.upload(1, GIB / 4).await?;
    client.download("/download?bytes=268435456").await?;
    let before = memory(&stage)?;
    let rounds = if binaries::all() { 10 } else { 1 };
    for _ in 0..rounds {
        let begun = Instant::now();
        client.upload(2, 2 * GIB).await?;
        println!(
            "2 GiB up at {:.0} MiB/s",
            2048.0 / begun.elapsed().as_secs_f64()
        );
        let begun = Instant::now();
        let got = client.download("/download?bytes=2147483648&seed=3").await?;
        println!(
            "2 GiB down at {:.0} MiB/s",
            2048.0 / begun.elapsed().as_secs_f64()
        );
        ensure!((got.status.as_u16(), got.len) == (200, 2 * GIB), "{got:?}");
        ensure!(got.sha256 == Pattern::sha256(3, 2 * GIB), "SHA-256 differs");
    }
    let after = memory(&stage)?;
    println!("RSS in MiB (dialer, connector): {before:?} before, {after:?} after");
    // Flat: of 4 GiB nothing is kept. The margin is the allocator's.
    for (before, after) in [(before.0, after.0), (before.1, after.1)] {
        ensure!(after < before + 32, "RSS grew from {before} to {after} MiB");
    }
    Ok(())
}

/// RSS of dialer and connector in MiB.
fn memory(stage: &Stage) -> Result<(u64, u64)> {
    let dialer = process::rss(Gateway::dialer_pid(&stage.gateway)?)?;
    Ok((dialer >> 20, stage.connector.process()?.rss()? >> 20))
}
