//! SIGKILL, mid-stream, of each process; then recovery without anybody's help.
//!
//! | killed | the client of an HTTP/2 CONNECT sees | then |
//! |---|---|---|
//! | dialer | a reset, never a clean end | `adit run` starts another |
//! | Envoy | its connection end | `adit run` starts another |
//! | connector | a reset | served again once it is back |
//! | service | a reset or an end, as the service's kernel does it | served again once it is back |
//! | relay | nothing, or a reset | served again once it is back |

use std::time::{Duration, Instant};

use adit_tests::{
    client::{
        connect::{End, Http2, Http2Tunnel},
        http::get,
        patiently,
    },
    on_each_envoy,
    process::until,
    relay::Relay,
    services::{
        http::HttpService,
        tcp::{Manner, TcpService},
    },
    stage::{Plan, Stage},
};
use anyhow::{Context, Result, ensure};
use serde_json::json;

on_each_envoy!(
    a_killed_dialer_is_a_reset_and_another_serves_on,
    a_killed_envoy_is_replaced_with_the_same_routes,
    a_killed_connector_is_a_reset_and_serves_again_when_it_is_back,
    a_killed_service_ends_its_tunnels_and_serves_again_when_it_is_back,
    a_killed_relay_is_survived,
    a_gateway_that_is_killed_takes_its_children_along,
);

/// A tunnel to the echo service that has carried bytes both ways.
async fn tunnel(stage: &Stage) -> Result<(Http2, Http2Tunnel)> {
    let client = Http2::connect(stage.addr()).await?;
    let mut tunnel = client.tunnel(&stage.echo_authority()).await?;
    ensure!(tunnel.status == 200, "CONNECT: {}", tunnel.status);
    tunnel.send("hello").await?;
    ensure!(tunnel.read_at_least(5).await? == b"hello");
    Ok((client, tunnel))
}

/// The tunnel must be cut, and it must be told from an end.
async fn is_reset(mut tunnel: Http2Tunnel) -> Result<()> {
    let cut = async { Ok(tunnel.read_to_end().await) };
    let (_, end) = patiently("the end of the tunnel", cut).await?;
    ensure!(matches!(end, End::Reset(_)), "a cut tunnel ended {end:?}");
    Ok(())
}

/// Waits until the web service answers through the tunnel.
async fn serves_again(stage: &Stage) -> Result<Duration> {
    let begun = Instant::now();
    until("answer of the web service", async || {
        let answer = get(stage.addr(), "web.test", "/echo").await.ok()?;
        (answer.status == 200).then_some(())
    })
    .await
    .with_context(|| stage.gateway.process.last_words())?;
    Ok(begun.elapsed())
}

async fn a_killed_dialer_is_a_reset_and_another_serves_on(version: &str) -> Result<()> {
    let stage = Plan::of(version).start().await?;
    let (_client, tunnel) = tunnel(&stage).await?;
    let mut half_closed = _client.tunnel(&stage.echo_authority()).await?;
    half_closed.send("x").await?;
    ensure!(half_closed.read_at_least(1).await? == b"x");
    let begun = Instant::now();
    stage.gateway.kill_dialer()?;
    is_reset(tunnel).await?;
    is_reset(half_closed).await?;
    println!("reset {:?} after SIGKILL of the dialer", begun.elapsed());
    let took = serves_again(&stage).await?;
    println!("served again after {took:?}");
    Ok(())
}

async fn a_killed_envoy_is_replaced_with_the_same_routes(version: &str) -> Result<()> {
    let mut stage = Plan::of(version).start().await?;
    let (_client, tunnel) = tunnel(&stage).await?;
    let killed = stage.gateway.envoy_pid()?;
    stage.gateway.kill_envoy()?;
    is_reset(tunnel).await?;
    let gateway = &stage.gateway;
    until("another Envoy", async || {
        let pid = gateway.envoy_pid().ok()?;
        (pid != killed).then_some(())
    })
    .await?;
    stage.gateway.listening().await?;
    serves_again(&stage).await?;
    // Nobody holds the old tunnel any more.
    until("end of the old tunnel at the service", async || {
        (stage.echo.record.open() == 0).then_some(())
    })
    .await
}

async fn a_killed_connector_is_a_reset_and_serves_again_when_it_is_back(
    version: &str,
) -> Result<()> {
    let mut stage = Plan::of(version).start().await?;
    let (_client, tunnel) = tunnel(&stage).await?;
    let begun = Instant::now();
    stage.connector.kill()?;
    is_reset(tunnel).await?;
    println!("reset {:?} after SIGKILL of the connector", begun.elapsed());
    let answer = get(stage.addr(), "web.test", "/echo").await?;
    ensure!(answer.status == 503, "while it is off: {}", answer.status);
    // A new process, the same key, another port.
    stage.connector.start().await?;
    stage.hint(&stage.connector.bound().await?)?;
    let took = serves_again(&stage).await?;
    println!("served {took:?} after the manifest knew the new address");
    Ok(())
}

async fn a_killed_service_ends_its_tunnels_and_serves_again_when_it_is_back(
    version: &str,
) -> Result<()> {
    let mut stage = Plan::of(version).start().await?;
    let (_client, mut tunnel) = tunnel(&stage).await?;
    let (web, echo) = (stage.web.addr, stage.echo.addr);
    // Dropped: every socket of the service is closed by the kernel.
    stage.web = HttpService::start()?;
    stage.echo = TcpService::start(Manner::Echo)?;
    let cut = async { Ok(tunnel.read_to_end().await) };
    let (_, end) = patiently("the end of the tunnel", cut).await?;
    println!("the tunnel of a killed service: {end:?}");
    let answer = get(stage.addr(), "web.test", "/echo").await?;
    ensure!(answer.status == 502, "while it is off: {}", answer.status);
    stage.web = HttpService::start_at(web, None)?;
    stage.echo = TcpService::start_at(echo, Manner::Echo)?;
    serves_again(&stage).await?;
    Ok(())
}

async fn a_killed_relay_is_survived(version: &str) -> Result<()> {
    let relay = Relay::start().await?;
    let mut plan = Plan::of(version)
        .env("ADIT_RELAY", &relay.url)
        .option("relay", json!([relay.url]));
    // IPv6 there and IPv4 here: the relay is the only way.
    plan = plan.option("bind", json!(["[::1]:0"]));
    plan.hints = false;
    plan.relay = Some(relay.url.clone());
    let stage = plan.start().await?;
    serves_again(&stage).await?;
    let path = stage.gateway.path(&stage.connector.key.id).await;
    ensure!(path.as_deref() == Some("relay"), "the path is {path:?}");
    let addr = relay.addr;
    relay.stop().await?;
    let answer = patiently("an answer", get(stage.addr(), "web.test", "/echo")).await?;
    println!("without the relay: {}", answer.status);
    let _relay = Relay::start_at(addr).await?;
    let took = serves_again(&stage).await?;
    println!("served {took:?} after the relay was back");
    Ok(())
}

async fn a_gateway_that_is_killed_takes_its_children_along(version: &str) -> Result<()> {
    let mut stage = Plan::of(version).start().await?;
    let (envoy, dialer) = (stage.gateway.envoy_pid()?, stage.gateway.dialer_pid()?);
    stage.gateway.process.kill()?;
    until("end of the children", async || {
        let gone = |pid: u32| {
            // A zombie waits for init; it holds nothing.
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
            stat.map_or(true, |s| s.contains(") Z"))
        };
        (gone(envoy) && gone(dialer)).then_some(())
    })
    .await
}
