//! Agents that are away, that come for the first time, and that were there
//! before anybody asked for them.

use adit_tests::{
    client::{
        connect, grpc,
        http::{Client, empty, full, get},
        patiently, ws,
    },
    kube::{
        Class, Kind, Stack,
        objects::{condition, is_true},
        site::{Site, rule, tunnel},
    },
    process::until,
    services::{
        grpc::Note,
        http::HttpService,
        tcp::{Manner, TcpService},
    },
};
use anyhow::{Context, Result, ensure};
use http::Method;
use serde_json::json;

use super::ground::*;

/// Numbers 5 and 6. A service that is away must not be an empty 500, and must
/// be the same for CONNECT and for everything else.
pub async fn a_service_that_is_away_is_the_same_503_to_every_client(stack: &Stack) -> Result<()> {
    let site = Site::start(stack, Class::Envoy140, "all-away").await?;
    let web = HttpService::start()?;
    let echo = TcpService::start(Manner::Echo)?;
    let mut agent = site.agent("edge", &[web.addr.to_string(), echo.addr.to_string()])?;
    agent.start().await?;
    let plain = format!("http://{}", web.addr);
    let h2c = format!("h2c://{}", web.addr);
    let tcp = format!("tcp://{}", echo.addr);
    site.proxy("web", "web.test", json!([rule("/", "edge", &plain)]))
        .await?;
    site.proxy("h2", "h2.test", json!([rule("/", "edge", &h2c)]))
        .await?;
    site.proxy("echo", "echo.test", json!([tunnel("edge", &tcp)]))
        .await?;
    for name in ["web", "h2", "echo"] {
        site.until_true(name, "Programmed").await?;
    }
    answers(&site, "web.test", 200).await?;
    agent.kill()?;
    // From when the dialer has noticed.
    until("503 that says when to come again", async || {
        let answer = get(site.addr(), "web.test", "/").await.ok()?;
        (answer.status == 503 && answer.header("retry-after").is_some()).then_some(())
    })
    .await
    .with_context(|| site.last_words())?;

    let all = async {
        let mut clients = vec![
            Client::http1(site.addr(), "web.test").await?,
            Client::http2(site.addr(), "h2.test").await?,
        ];
        for client in &mut clients {
            for (method, body) in [(Method::GET, empty()), (Method::POST, full("a body"))] {
                let html = [("accept", "text/html")];
                let page = client.send(method.clone(), "/any", &html, body).await?;
                ensure!(
                    page.status == 503
                        && page.header("retry-after").is_some()
                        && page.text().contains("<html"),
                    "{method}: {page:?}"
                );
            }
            let plain = client.get("/any").await?;
            ensure!(
                plain.status == 503 && !plain.body.is_empty() && !plain.text().contains("<html"),
                "{plain:?}"
            );
        }
        let authority = format!("echo.test:{}", echo.addr.port());
        let refused = connect::http1(site.addr(), &authority, b"").await?;
        ensure!(refused.status == 503, "{}", refused.head);
        ensure!(
            refused.head.to_ascii_lowercase().contains("retry-after"),
            "{}",
            refused.head
        );
        let refused = connect::Http2::connect(site.addr())
            .await?
            .tunnel(&authority)
            .await?;
        ensure!(
            refused.status == 503 && refused.headers.contains_key("retry-after"),
            "{} {:?}",
            refused.status,
            refused.headers
        );
        let note = Note {
            text: "x".into(),
            number: 1,
        };
        let mut stub = grpc::Client::connect(site.addr(), "h2.test").await?;
        let error = stub.unary(note).await.err().context("gRPC must fail")?;
        ensure!(error.code() == tonic::Code::Unavailable, "{error}");
        let socket = ws::open(site.addr(), "web.test").await;
        let error = format!("{:#}", socket.err().context("a WebSocket must be refused")?);
        ensure!(error.contains("503"), "{error}");
        Ok(())
    };
    patiently("every client", all)
        .await
        .with_context(|| site.last_words())?;
    site.end().await
}

/// Number 8, first half. An HTTPProxy is written before its agent was ever
/// there; when the agent comes, nothing else has to change.
pub async fn an_agent_that_comes_for_the_first_time_is_served_by_itself(
    stack: &Stack,
) -> Result<()> {
    let site = Site::start(stack, Class::Envoy140, "first-time").await?;
    let web = HttpService::start()?;
    let url = format!("http://{}", web.addr);
    site.proxy("web", "first.test", json!([rule("/", "edge", &url)]))
        .await?;
    site.until_false(Kind::HTTP_PROXY, "web", "Accepted", "ConnectorNotFound")
        .await?;
    // The Connector is there, and its agent has said nothing yet.
    let objects = [
        json!({
            "apiVersion": "networking.datumapis.com/v1alpha1", "kind": "Connector",
            "metadata": {"name": "edge"}, "spec": {"connectorClassName": "datum-connect"},
        }),
        json!({
            "apiVersion": "networking.datumapis.com/v1alpha1", "kind": "ConnectorAdvertisement",
            "metadata": {"name": "edge"},
            "spec": {"connectorRef": {"name": "edge"}, "layer4": [{"name": "all", "services": [{
                "address": web.addr.ip().to_string(),
                "ports": [{"name": "web", "port": web.addr.port()}],
            }]}]},
        }),
    ];
    for object in objects {
        site.objects.apply("first-time", object).await?;
    }
    let waiting = site
        .until_false(Kind::HTTP_PROXY, "web", "Accepted", "ConnectorNotReady")
        .await?;
    let said = condition(&waiting, "Accepted").context("Accepted")?;
    println!("meanwhile: {said}");
    // Nobody is misled meanwhile: neither a success nor somebody else's service.
    let meanwhile = get(site.addr(), "first.test", "/echo").await?;
    println!("meanwhile: {} {:?}", meanwhile.status, meanwhile.text());
    // Envoy Gateway's own answer for a route without backends.
    ensure!(
        meanwhile.status == 500 && meanwhile.body.is_empty(),
        "{meanwhile:?}"
    );

    let mut agent = site.agent("edge", &[web.addr.to_string()])?;
    agent.start().await?;
    answers(&site, "first.test", 200).await?;
    let proxy = site.until_true("web", "Programmed").await?;
    ensure!(is_true(&proxy, "Accepted"), "{proxy:#}");
    site.end().await
}

/// Number 8, second half. What programs Envoy must not wait for a change of the
/// connector when it is the HTTPProxy that changed.
pub async fn a_proxy_pointed_at_a_connector_that_is_online_serves_at_once(
    stack: &Stack,
) -> Result<()> {
    let site = Site::start(stack, Class::Envoy140, "repointed").await?;
    let (first, second) = (HttpService::start()?, HttpService::start()?);
    let mut agents = Vec::new();
    for (name, web) in [("one", &first), ("two", &second)] {
        let mut agent = site.agent(name, &[web.addr.to_string()])?;
        agent.start().await?;
        site.until(Kind::CONNECTOR, name, "Ready", |c| is_true(c, "Ready"))
            .await?;
        agents.push(agent);
    }
    let to =
        |name: &str, web: &HttpService| json!([rule("/", name, &format!("http://{}", web.addr))]);
    site.proxy("web", "again.test", to("one", &first)).await?;
    site.until_true("web", "Programmed").await?;
    answers(&site, "again.test", 200).await?;
    // The first goes, and the HTTPProxy with it to the second.
    agents[0].kill()?;
    answers(&site, "again.test", 503).await?;
    site.until_false(
        Kind::HTTP_PROXY,
        "web",
        "ConnectorsReady",
        "ConnectorNotReady",
    )
    .await?;
    site.proxy("web", "again.test", to("two", &second)).await?;
    answers(&site, "again.test", 200).await?;
    ensure!(!second.record.requests().is_empty(), "the second serves");
    site.until_true("web", "Programmed").await?;
    site.until_true("web", "ConnectorsReady").await?;
    site.end().await
}
