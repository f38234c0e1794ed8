//! SIGKILL, mid-stream, of each process; then recovery without anybody's help.
//!
//! | killed | the client of an HTTP/2 CONNECT sees | then |
//! |---|---|---|
//! | dialer | a reset, never a clean end | `adit run` starts another |
//! | Envoy | its connection end | `adit run` starts another |
//! | connector | a reset | served again once it is back |
//! | service | a reset or an end, as the service's kernel does it | served again once it is back |
//! | relay | a reset, once the connection is given up | served again once it is back |
//!
//! A download over HTTP/1.1 that was under way is cut, too, and never looks whole.

use std::time::{Duration, Instant};

use adit_tests::{
    client::{
        connect::{End, Http2, Http2Tunnel},
        http::{Client, empty, get},
        patiently,
    },
    fixture::Fixture,
    on_each_envoy,
    process::until,
    stage::{Plan, Stage},
};
use anyhow::{Context, Result, bail, ensure};
use http::Method;
use http_body_util::BodyExt;
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
    let mut second = _client.tunnel(&stage.echo_authority()).await?;
    second.send("x").await?;
    ensure!(second.read_at_least(1).await? == b"x");
    let download = Download::start(&stage, "web.test").await?;
    let begun = Instant::now();
    stage.gateway.kill_dialer()?;
    download.must_be_cut().await?;
    is_reset(tunnel).await?;
    is_reset(second).await?;
    println!("reset {:?} after SIGKILL of the dialer", begun.elapsed());
    let took = serves_again(&stage).await?;
    println!("served again after {took:?}");
    Ok(())
}

async fn a_killed_envoy_is_replaced_with_the_same_routes(version: &str) -> Result<()> {
    let mut stage = Plan::of(version).start().await?;
    let (_client, tunnel) = tunnel(&stage).await?;
    let download = Download::start(&stage, "web.test").await?;
    let killed = stage.gateway.envoy_pid()?;
    stage.gateway.kill_envoy()?;
    download.must_be_cut().await?;
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
    let download = Download::start(&stage, "web.test").await?;
    let begun = Instant::now();
    stage.connector.kill()?;
    download.must_be_cut().await?;
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
    let dir = tempfile::tempdir()?;
    let mut web = Fixture::start(dir.path(), "web", None).await?;
    let mut echo = Fixture::start(dir.path(), "echo", None).await?;
    let stage = Plan::of(version)
        .service("far", format!("http://{}", web.addr))
        .service("far-echo", format!("tcp://{}", echo.addr))
        .start()
        .await?;
    let authority = format!("far-echo.test:{}", echo.addr.port());
    let client = Http2::connect(stage.addr()).await?;
    let mut tunnel = client.tunnel(&authority).await?;
    ensure!(tunnel.status == 200, "CONNECT: {}", tunnel.status);
    tunnel.send("hello").await?;
    ensure!(tunnel.read_at_least(5).await? == b"hello");
    let download = Download::start(&stage, "far.test").await?;

    web.process.kill()?;
    echo.process.kill()?;
    let cut = async { Ok(tunnel.read_to_end().await) };
    let (_, end) = patiently("the end of the tunnel", cut).await?;
    println!("the tunnel of a killed service: {end:?}");
    download.must_be_cut().await?;
    let answer = get(stage.addr(), "far.test", "/echo").await?;
    ensure!(answer.status == 502, "while it is off: {}", answer.status);

    let _web = Fixture::start(dir.path(), "web", Some(web.addr)).await?;
    let _echo = Fixture::start(dir.path(), "echo", Some(echo.addr)).await?;
    until("answer of the service", async || {
        let answer = get(stage.addr(), "far.test", "/echo").await.ok()?;
        (answer.status == 200).then_some(())
    })
    .await?;
    let tunnel = client.tunnel(&authority).await?;
    ensure!(tunnel.status == 200, "CONNECT: {}", tunnel.status);
    Ok(())
}

async fn a_killed_relay_is_survived(version: &str) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut relay = Fixture::start(dir.path(), "relay", None).await?;
    let url = format!("http://{}", relay.addr);
    let mut plan = Plan::of(version)
        .env("ADIT_RELAY", &url)
        .option("relay", json!([url]))
        // IPv6 there and IPv4 here: the relay is the only way.
        .option("bind", json!(["[::1]:0"]));
    plan.hints = false;
    plan.relay = Some(url.clone());
    let stage = plan.start().await?;
    serves_again(&stage).await?;
    let path = stage.gateway.path(&stage.connector.key.id).await;
    ensure!(path.as_deref() == Some("relay"), "the path is {path:?}");
    let download = Download::start(&stage, "web.test").await?;

    relay.process.kill()?;
    download.must_be_cut().await?;
    let answer = patiently("an answer", get(stage.addr(), "web.test", "/echo")).await?;
    ensure!(
        answer.status == 503 || answer.status == 504,
        "without the relay: {}",
        answer.status
    );
    let _relay = Fixture::start(dir.path(), "relay", Some(relay.addr)).await?;
    let took = serves_again(&stage).await?;
    println!("served {took:?} after the relay was back");
    Ok(())
}

/// A download that is far from its end when something is killed.
struct Download {
    body: hyper::body::Incoming,
    _client: Client,
}

impl Download {
    async fn start(stage: &Stage, host: &str) -> Result<Self> {
        let mut client = Client::http1(stage.addr(), host).await?;
        let path = "/drip?pieces=100000&gap=10";
        let response = client.open(Method::GET, path, &[], empty()).await?;
        ensure!(response.status() == 200, "{}", response.status());
        let mut body = response.into_body();
        ensure!(body.frame().await.is_some(), "a first piece");
        Ok(Self {
            body,
            _client: client,
        })
    }

    /// A cut answer never looks like a whole one.
    async fn must_be_cut(mut self) -> Result<()> {
        patiently("the end of the download", async {
            loop {
                match self.body.frame().await {
                    Some(Ok(_)) => {}
                    Some(Err(_)) => return Ok(()),
                    None => bail!("half an answer looked whole"),
                }
            }
        })
        .await
    }
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
