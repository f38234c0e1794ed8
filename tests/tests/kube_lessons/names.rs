//! Names and texts of users end up in one configuration for all of them.

use adit_tests::{
    client::http::get,
    kube::{
        Class, Kind, Stack,
        objects::is_true,
        site::{Site, rule},
    },
    services::http::HttpService,
};
use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::ground::*;

/// Number 1. Two devices have a service at the same local address, and two
/// users want one host name. A service's address must not become a name in
/// Envoy; of two claims to a host name the older holds and the other is told.
pub async fn two_services_called_localhost_and_one_host_name_twice_stop_nobody(
    stack: &Stack,
) -> Result<()> {
    let site = Site::start(stack, Class::Envoy140, "localhost").await?;
    let web = HttpService::start()?;
    let local = format!("localhost:{}", web.addr.port());
    let url = format!("http://{local}");
    let mut agents = Vec::new();
    for name in ["one", "two"] {
        let mut agent = site.agent(name, std::slice::from_ref(&local))?;
        agent.start().await?;
        site.until(Kind::CONNECTOR, name, "Ready", |c| is_true(c, "Ready"))
            .await?;
        agents.push(agent);
        let host = format!("{name}.test");
        site.proxy(name, &host, json!([rule("/", name, &url)]))
            .await?;
        site.until_true(name, "Programmed").await?;
        answers(&site, &host, 200).await?;
    }
    // Each has a tunnel of its own: without its agent, the second is away.
    agents[1].kill()?;
    answers(&site, "two.test", 503).await?;
    answers(&site, "one.test", 200).await?;

    site.proxy("thief", "one.test", json!([rule("/", "two", &url)]))
        .await?;
    let told = site
        .until_false(Kind::HTTP_PROXY, "thief", "Accepted", "Conflict")
        .await?;
    ensure!(
        told["status"]["conditions"]
            .to_string()
            .contains("localhost/one"),
        "it says who has the name: {told:#}"
    );
    site.until_true("one", "Programmed").await?;
    ensure!(get(site.addr(), "one.test", "/echo").await?.status == 200);
    // What comes later is still taken.
    site.proxy("later", "later.test", json!([rule("/", "one", &url)]))
        .await?;
    site.until_true("later", "Programmed").await?;
    answers(&site, "later.test", 200).await?;
    envoy_took_everything(stack, &site).await?;
    site.end().await
}

/// Number 9. Envoy reads header values as format strings: `%` begins a command.
/// A user's text must arrive as it was written, must not read what Envoy knows,
/// and above all must not make Envoy refuse the configuration.
pub async fn a_percent_sign_is_a_percent_sign(stack: &Stack) -> Result<()> {
    let ground = Ground::start(stack, "percent").await?;
    let site = &ground.site;
    let requests = json!({
        "set": [{"name": "x-share", "value": "100%"}],
        "add": [{"name": "x-command", "value": "%REQ(authorization)%"},
                {"name": "x-twice", "value": "a%%b %20"}],
    });
    let responses = json!({"set": [{"name": "x-sale", "value": "50% off %PROTOCOL%"}]});
    let filters = json!([
        {"type": "RequestHeaderModifier", "requestHeaderModifier": requests},
        {"type": "ResponseHeaderModifier", "responseHeaderModifier": responses},
    ]);
    let mut whole = rule("/a%20b", "edge", &ground.url());
    whole["filters"] = filters.clone();
    let mut part = rule("/", "edge", &ground.url());
    part["backends"][0]["filters"] = filters;
    let away = json!({
        "matches": [{"path": {"type": "PathPrefix", "value": "/old"}}],
        "filters": [{"type": "RequestRedirect", "requestRedirect": {
            "path": {"type": "ReplaceFullPath", "replaceFullPath": "/100%25"}}}],
    });
    let mut rewritten = rule("/sale", "edge", &ground.url());
    rewritten["filters"] = json!([{"type": "URLRewrite", "urlRewrite": {
        "path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/50%25"}}}]);
    site.proxy("web", "percent.test", json!([whole, part, away, rewritten]))
        .await?;
    site.until_true("web", "Programmed").await?;
    answers(site, "percent.test", 200).await?;
    for path in ["/echo", "/a%20b/c"] {
        let answer = get(site.addr(), "percent.test", path).await?;
        let sale = answer.header("x-sale").unwrap_or_default();
        ensure!(sale == "50% off %PROTOCOL%", "{path}: {sale}");
        let requests = ground.web.record.requests();
        let seen = requests.last().context("a request")?;
        ensure!(seen.path == path, "{seen:?}");
        for (name, value) in [
            ("x-share", "100%"),
            ("x-command", "%REQ(authorization)%"),
            ("x-twice", "a%%b %20"),
        ] {
            ensure!(seen.header(name) == Some(value), "{path} {name}: {seen:?}");
        }
    }
    let answer = get(site.addr(), "percent.test", "/old").await?;
    let location = answer.header("location").unwrap_or_default();
    ensure!(location.ends_with("/100%25"), "{location}");
    get(site.addr(), "percent.test", "/sale/x").await?;
    let requests = ground.web.record.requests();
    ensure!(
        requests.last().is_some_and(|r| r.path == "/50%25/x"),
        "{:?}",
        requests.last()
    );
    // What comes later is still taken.
    site.proxy(
        "later",
        "later.test",
        json!([rule("/", "edge", &ground.url())]),
    )
    .await?;
    answers(site, "later.test", 200).await?;
    envoy_took_everything(stack, site).await?;
    ground.site.end().await
}
