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

use std::{net::SocketAddr, path::Path, time::Duration};

use adit_tests::{
    bare::{self, Dialer, Route},
    client::{
        connect::{self, Http2},
        http::get,
        patiently,
    },
    connector::Connector,
    envoy::Envoy,
    fake_connector::{Asked, FakeConnector},
    keys::Key,
    on_each_envoy,
    process::{raise_open_files, until, with_open_files},
    services::{
        http::HttpService,
        tcp::{Manner, TcpService},
    },
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

/// A connector before an echo and a web service, a dialer, and Envoy.
struct Bench {
    addr: SocketAddr,
    echo: TcpService,
    dialer: Dialer,
    edge: Connector,
    _envoy: Envoy,
    _web: HttpService,
}

async fn bench(
    version: &str,
    dir: &Path,
    flags: &[&str],
    open_files: Option<u32>,
) -> Result<Bench> {
    let echo = TcpService::start(Manner::Echo)?;
    let web = HttpService::start()?;
    let key = Key::new(dir, "dialer")?;
    let targets = [echo.addr.to_string(), web.addr.to_string()];
    let mut edge = Connector::new(dir, "edge", &[&key.id], &targets)?;
    edge.open_files = open_files;
    edge.start().await?;
    let hints = [(edge.key.id.as_str(), edge.bound().await?[0])];
    let mut command = Dialer::command(dir, &key, &hints)?;
    command.args(flags);
    if let Some(most) = open_files {
        command = with_open_files(&command, most);
    }
    let dialer = Dialer::run(dir, command).await?;
    let route = |name, service: SocketAddr, connect| {
        anyhow::Ok(Route {
            name,
            target: bare::target(&[&edge.key.id], &service.to_string(), DEADLINE)?,
            h2: false,
            connect,
        })
    };
    let routes = [
        route("echo", echo.addr, true)?,
        route("web", web.addr, false)?,
    ];
    let envoy = bare::envoy(version, dir, &dialer.socket, &routes).await?;
    Ok(Bench {
        addr: envoy.listener("main").await?,
        echo,
        dialer,
        edge,
        _envoy: envoy,
        _web: web,
    })
}

async fn of_thirty_parallel_tunnels_over_a_limit_of_three_none_fails(version: &str) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let flags = ["--max-streams-per-connector", "3"];
    let bench = bench(version, dir.path(), &flags, None).await?;
    let authority = format!("echo.test:{}", bench.echo.addr.port());
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
    let dir = tempfile::tempdir()?;
    let flags = ["--max-streams-per-connector", "27"];
    let bench = bench(version, dir.path(), &flags, None).await?;
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
    let dir = tempfile::tempdir()?;
    let mut bench = bench(version, dir.path(), &[], Some(256)).await?;
    let authority = format!("echo.test:{}", bench.echo.addr.port());
    let client = Http2::connect(bench.addr).await?;
    let asked = (0..400).map(|_| async {
        let Ok(mut tunnel) = client.tunnel(&authority).await else {
            return Ok(None);
        };
        if tunnel.status != 200 {
            return Ok(None);
        }
        tunnel.send("hello").await?;
        let got = tunnel.read_at_least(5).await?;
        ensure!(got == b"hello", "the tunnel said {got:?}");
        Ok(Some(tunnel))
    });
    let opened = patiently("400 tunnels", async { Ok(join_all(asked).await) }).await?;
    let held: Vec<_> = opened.into_iter().collect::<Result<_>>()?;
    let stand = held.iter().flatten().count();
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
    let dir = tempfile::tempdir()?;
    let bench = bench(version, dir.path(), &[], None).await?;
    ensure!(get(bench.addr, "web.test", "/echo").await?.status == 200);
    // Stopped, so that nothing is taken out of the backlog; the idle pooled
    // connection of the first request must not be used either.
    bench.dialer.process.signal(Signal::STOP)?;
    let socket = socket2::SockAddr::unix(&bench.dialer.socket)?;
    let mut fill = Vec::new();
    loop {
        let client = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
        client.set_nonblocking(true)?;
        if client.connect(&socket).is_err() {
            break;
        }
        fill.push(client);
        ensure!(fill.len() < 20_000, "the backlog has no end");
    }
    println!("the backlog took {} connections", fill.len());
    ensure!(fill.len() >= 4096, "the backlog is only {}", fill.len());
    let tunnel = format!("echo.test:{}", bench.echo.addr.port());
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
