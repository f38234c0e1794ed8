//! An agent that goes, and comes again.

use std::time::{Duration, Instant};

use adit_tests::{
    client::http::{Client, empty, get},
    kube::{
        Class, Kind, Stack,
        objects::{condition, is_true},
        site::Site,
    },
    process::until,
};
use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::scene::Scene;

/// From the agent's death to the page: a request is tried for 5 s at most
/// (`--deadline`), and some may have been on their way.
const MISSED: Duration = Duration::from_secs(15);
/// For a page, once the dialer knows; it takes milliseconds. A dialer that tried
/// for each request anew would need its 5 s.
const KNOWN: Duration = Duration::from_secs(4);
/// From the agent's start elsewhere to its services' first answer: the agent's
/// registration, the dialer's watch and the next attempt; about 1 s is measured.
const AGAIN: Duration = Duration::from_secs(15);

/// What must be over in some time, said by name.
async fn within<T>(
    limit: Duration,
    what: &str,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let done = tokio::time::timeout(limit, work).await;
    done.with_context(|| format!("{what}: not within {limit:?}"))?
}

pub async fn an_agent_that_goes_and_comes_elsewhere_writes_nothing(stack: &Stack) -> Result<()> {
    let mut scene = Scene::start(stack, Class::Envoy140, "away").await?;
    let mark = stack.plane.mark();
    scene.agent.kill()?;

    // The dialer finds out by itself; the control plane has no part in it. What
    // was on its way through the dead tunnels is answered by Envoy alone.
    let missed = until("503 that says when to come again", async || {
        let answer = get(scene.site.addr(), "web.test", "/echo").await.ok()?;
        (answer.status == 503 && answer.header("retry-after").is_some()).then_some(answer)
    });
    let answer = within(MISSED, "the first page", missed)
        .await
        .with_context(|| scene.site.last_words())?;
    println!("{}", answer.text());
    let mut browser = Client::http1(scene.site.addr(), "web.test").await?;
    let begun = Instant::now();
    let accepts = [("accept", "text/html")];
    let page = browser.send(http::Method::GET, "/", &accepts, empty());
    let page = within(KNOWN, "a page while the agent is known to be away", page).await?;
    let took = begun.elapsed();
    ensure!(
        page.status == 503 && page.text().contains("<html"),
        "{}",
        page.text()
    );
    println!("503 of an agent that is known to be away after {took:?}");
    scene
        .site
        .until_false(Kind::CONNECTOR, "edge", "Ready", "ConnectorNotReady")
        .await?;
    for proxy in ["web", "h2", "grpc", "echo"] {
        scene
            .site
            .until(Kind::HTTP_PROXY, proxy, "ConnectorsReady=False", |p| {
                !is_true(p, "ConnectorsReady") && is_true(p, "Programmed")
            })
            .await?;
    }

    // The same key on another address.
    let begun = Instant::now();
    scene.agent.start().await?;
    within(AGAIN, "traffic again", scene.answers("web.test", 200)).await?;
    println!(
        "traffic again {:?} after the agent's start elsewhere",
        begun.elapsed()
    );
    scene.site.until_true("web", "ConnectorsReady").await?;
    let mut writes = stack.plane.writes_since(mark)?;
    writes.retain(|w| w.namespace == "away" && w.reprograms());
    ensure!(writes.is_empty(), "{writes:?}");
    scene.site.end().await
}

/// The Lease here is longer than any test waits: who is not ready before it is
/// over said so himself.
pub async fn an_agent_that_ends_is_missed_at_once(stack: &Stack) -> Result<()> {
    let flags = ["--lease-duration", "600s"];
    let site = Site::with(stack, Class::Envoy140, "ends", &flags).await?;
    let mut agent = site.agent("edge", &["localhost:80".to_owned()])?;
    agent.start().await?;
    let ready = |c: &Value| is_true(c, "Ready");
    site.until(Kind::CONNECTOR, "edge", "Ready", ready).await?;
    let mut process = agent.process.take().context("a process")?;
    let status = process.terminate().await?;
    ensure!(status.success(), "{}", process.last_words());
    let gone = site
        .until_false(Kind::CONNECTOR, "edge", "Ready", "ConnectorNotReady")
        .await?;
    let said = condition(&gone, "Ready").context("Ready")?;
    ensure!(said["message"].to_string().contains("released"), "{said}");
    // And it is there again when it is.
    agent.start().await?;
    site.until(Kind::CONNECTOR, "edge", "Ready", ready).await?;
    site.end().await
}
