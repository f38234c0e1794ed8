//! More than fits, and slower than expected: a request waits, it does not fail,
//! and whatever had to fail leaves nothing behind.
//!
//! | what is short | what is asked |
//! |---|---|
//! | time of one dial in ten | 30 requests at once, without retries |
//! | streams per connector (3) | 30 tunnels at once |
//! | streams per connector (27) | 30 requests at once |
//! | open files of dialer and connector (256) | 400 tunnels at once, then one |
//! | the socket's backlog | a request while it is full, one after |

use std::time::Duration;

use adit_tests::{
    bare::{self, Dialer, Route},
    bare_stage::{BareStage, Setup},
    client::{
        connect::{self, Http2},
        http::get,
        patiently,
    },
    fake_connector::{Asked, FakeConnector},
    keys::Key,
    on_each_envoy,
    process::{raise_open_files, until},
};
use anyhow::{Context, Result, ensure};
use futures_util::future::join_all;
use rustix::process::Signal;
use tokio::io::AsyncWriteExt;

on_each_envoy!(
    of_thirty_parallel_requests_with_one_dial_in_ten_delayed_none_fails,
    of_thirty_parallel_tunnels_over_a_limit_of_three_none_fails,
    of_thirty_parallel_requests_with_one_in_ten_over_the_limit_none_fails,
    with_256_open_files_what_does_not_fit_fails_and_the_rest_works,
    a_full_backlog_fails_requests_while_it_lasts_and_no_longer,
);

const DEADLINE: Duration = Duration::from_secs(5);

async fn of_thirty_parallel_requests_with_one_dial_in_ten_delayed_none_fails(
    version: &str,
) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let fake = FakeConnector::start(async |asked: Asked| {
        if asked.number % 10 == 3 {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        asked.serve().await
    })
    .await?;
    let key = Key::new(dir.path(), "dialer")?;
    let hints = [(fake.id.as_str(), fake.addr)];
    let dialer = Dialer::start(dir.path(), &key, &hints, &[]).await?;
    let routes = [Route {
        name: "fake",
        target: bare::target(&[&fake.id], "service.internal.test:80", DEADLINE)?,
        h2: false,
        connect: false,
    }];
    let envoy = bare::envoy(version, dir.path(), &dialer.socket, &routes).await?;
    let addr = envoy.listener("main").await?;
    let asked = (0..30).map(|i| async move {
        let answer = patiently("an answer", get(addr, "fake.test", "/")).await?;
        ensure!(answer.status == 200, "request {i}: {}", answer.text());
        Ok(())
    });
    join_all(asked).await.into_iter().collect::<Result<_>>()
}

async fn of_thirty_parallel_tunnels_over_a_limit_of_three_none_fails(version: &str) -> Result<()> {
    let setup = Setup {
        flags: &["--max-streams-per-connector", "3"],
        ..Setup::default()
    };
    let bench = BareStage::start(version, setup).await?;
    let authority = bench.echo_authority();
    let (addr, authority) = (bench.addr, authority.as_str());
    let asked = (0..30).map(|i| async move {
        patiently("a tunnel", async {
            let mut tunnel = connect::http1(addr, authority, b"").await?;
            ensure!(tunnel.status == 200, "tunnel {i}: {}", tunnel.head);
            tunnel.tcp.write_all(b"hello").await?;
            ensure!(tunnel.read_exact(5).await? == b"hello", "tunnel {i}");
            // Held for a while, so that the others have to wait.
            tokio::time::sleep(Duration::from_millis(100)).await;
            Ok(())
        })
        .await
    });
    join_all(asked).await.into_iter().collect::<Result<_>>()
}

async fn of_thirty_parallel_requests_with_one_in_ten_over_the_limit_none_fails(
    version: &str,
) -> Result<()> {
    // Not fewer: a pooled connection holds its place while it is idle, and each
    // of Envoy's workers has a pool of its own, so one could take every place.
    let setup = Setup {
        flags: &["--max-streams-per-connector", "27"],
        ..Setup::default()
    };
    let bench = BareStage::start(version, setup).await?;
    let addr = bench.addr;
    let asked = (0..30).map(|i| async move {
        let answer = patiently("an answer", get(addr, "web.test", "/slow?ms=50")).await?;
        ensure!(answer.status == 200, "request {i}: {}", answer.text());
        Ok(())
    });
    join_all(asked).await.into_iter().collect::<Result<_>>()
}

async fn with_256_open_files_what_does_not_fit_fails_and_the_rest_works(
    version: &str,
) -> Result<()> {
    raise_open_files();
    let setup = Setup {
        open_files: Some(256),
        ..Setup::default()
    };
    let mut bench = BareStage::start(version, setup).await?;
    let authority = bench.echo_authority();
    let client = Http2::connect(bench.addr).await?;
    let held = client.crowd(&authority, 400).await?;
    let stand = held.len();
    println!("{stand} of 400 tunnels stood with 256 open files");
    ensure!(stand >= 20, "only {stand} tunnels stood");
    drop(held);
    drop(client);
    until("room again", async || {
        let answer = get(bench.addr, "web.test", "/echo").await.ok()?;
        (answer.status == 200).then_some(())
    })
    .await?;
    let edge = bench.edge.process.as_mut().context("the connector")?;
    ensure!(bench.dialer.process.is_running(), "the dialer ended");
    ensure!(edge.is_running(), "the connector ended");
    Ok(())
}

async fn a_full_backlog_fails_requests_while_it_lasts_and_no_longer(version: &str) -> Result<()> {
    raise_open_files();
    let bench = BareStage::start(version, Setup::default()).await?;
    ensure!(get(bench.addr, "web.test", "/echo").await?.status == 200);
    // Stopped, so that nothing is taken out of the backlog; the idle pooled
    // connection of the first request must not be used either.
    bench.dialer.process.signal(Signal::STOP)?;
    let fill = bench.dialer.fill_backlog()?;
    println!("the backlog took {} connections", fill.len());
    ensure!(fill.len() >= 4096, "the backlog is only {}", fill.len());
    let tunnel = bench.echo_authority();
    let answer = patiently("an answer", connect::http1(bench.addr, &tunnel, b"")).await?;
    ensure!(answer.status == 503, "{}", answer.head);
    let said = format!("{}{}", answer.head, String::from_utf8_lossy(&answer.early));
    ensure!(!said.contains(".sock"), "the socket's path is told: {said}");
    bench.dialer.process.signal(Signal::CONT)?;
    drop(fill);
    until("the end of the crowd", async || {
        let tunnel = connect::http1(bench.addr, &tunnel, b"").await.ok()?;
        (tunnel.status == 200).then_some(())
    })
    .await?;
    ensure!(get(bench.addr, "web.test", "/echo").await?.status == 200);
    Ok(())
}
