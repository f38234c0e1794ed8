//! A backend that means connectors by their labels.

use adit_tests::{
    client::http::get,
    kube::{Class, Kind, Stack, objects::is_true, site::Site},
    process::until,
    services::http::HttpService,
};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

/// Requests that are shared out.
const REQUESTS: usize = 200;
/// Of them, what a backend of weight 1 beside one of weight 3 may get: 50 are
/// expected, and five standard deviations (6.1) to either side are allowed.
const A_QUARTER: std::ops::RangeInclusive<usize> = 20..=80;

pub async fn all_connectors_of_a_selector_serve_the_oldest_first(stack: &Stack) -> Result<()> {
    let site = Site::start(stack, Class::Envoy140, "selector").await?;
    // One service that two devices can reach, and an agent on each.
    let web = HttpService::start()?;
    let start = async |name: &str| {
        let mut agent = site.agent(name, &[web.addr.to_string()])?;
        agent.set("label", json!(["shop=main"]));
        agent.start().await?;
        site.until(Kind::CONNECTOR, name, "Ready", |c| is_true(c, "Ready"))
            .await?;
        anyhow::Ok(agent)
    };
    // Of one age in seconds, the name decides.
    let mut first = start("a-first").await?;
    let second = start("b-second").await?;
    let rules = json!([{"backends": [{
        "endpoint": format!("http://{}", web.addr),
        "connector": {"selector": {"matchLabels": {"shop": "main"}}},
    }]}]);
    site.proxy("shop", "shop.test", rules).await?;
    let targets = async |what: &str, ids: &[&str]| {
        let wanted = json!(ids.join(","));
        let ours = "networking.datumapis.com/httpproxy=shop";
        site.objects
            .until_list(Kind::ENVOY_PATCH_POLICY, "selector", ours, what, |all| {
                all.len() == 1 && all[0]["spec"].to_string().contains(&wanted.to_string())
            })
            .await
            .with_context(|| site.last_words())
    };
    targets("both connectors", &[&first.key.id, &second.key.id]).await?;
    site.until_true("shop", "Programmed").await?;
    site.until_true("shop", "ConnectorsReady").await?;
    let served = async || {
        until("an answer", async || {
            let answer = get(site.addr(), "shop.test", "/echo").await.ok()?;
            (answer.status == 200).then_some(())
        })
        .await
        .with_context(|| site.last_words())
    };
    served().await?;

    // The first goes: the other serves, and nobody programs anything.
    let mark = stack.plane.mark();
    first.kill()?;
    served().await?;
    let some = |p: &Value| {
        let conditions = p["status"]["conditions"].to_string();
        conditions.contains("SomeNotReady") && conditions.contains("the others serve")
    };
    site.until(Kind::HTTP_PROXY, "shop", "one of two", some)
        .await?;
    served().await?;
    let mut writes = stack.plane.writes_since(mark)?;
    writes.retain(|w| w.namespace == "selector" && w.reprograms());
    ensure!(writes.is_empty(), "{writes:?}");

    // One more with the label joins behind them, one without it leaves.
    let third = start("c-third").await?;
    let ids = [&*first.key.id, &*second.key.id, &*third.key.id];
    targets("three connectors", &ids).await?;
    site.objects
        .delete(Kind::CONNECTOR, "selector", "a-first")
        .await?;
    targets("the two that are left", &ids[1..]).await?;
    site.until_true("shop", "Programmed").await?;
    site.until_true("shop", "ConnectorsReady").await?;
    served().await?;
    site.end().await
}

pub async fn requests_are_shared_out_by_weight(stack: &Stack) -> Result<()> {
    let site = Site::start(stack, Class::Envoy140, "weights").await?;
    // Two services, each behind an agent of its own; of a third nobody is to
    // get anything.
    let (most, some, none) = (
        HttpService::start()?,
        HttpService::start()?,
        HttpService::start()?,
    );
    let mut agents = Vec::new();
    let mut backends = Vec::new();
    for (name, weight, service) in [("most", 3, &most), ("some", 1, &some), ("none", 0, &none)] {
        let mut agent = site.agent(name, &[service.addr.to_string()])?;
        agent.start().await?;
        site.until(Kind::CONNECTOR, name, "Ready", |c| is_true(c, "Ready"))
            .await?;
        backends.push(json!({
            "endpoint": format!("http://{}", service.addr),
            "connector": {"name": name}, "weight": weight,
        }));
        agents.push(agent);
    }
    site.proxy("shop", "shop.test", json!([{"backends": backends}]))
        .await?;
    site.until_true("shop", "Programmed").await?;
    let send = async || {
        for n in 0..REQUESTS {
            let answer = get(site.addr(), "shop.test", "/echo").await?;
            ensure!(
                answer.status == 200,
                "request {n}: {answer:?}\n{}",
                site.last_words()
            );
        }
        anyhow::Ok(())
    };
    let counted = || [&most, &some, &none].map(|s| s.record.requests().len());
    send().await?;
    let [a, b, c] = counted();
    println!("weights 3:1:0, {REQUESTS} requests: {a}, {b}, {c}");
    ensure!(a + b == REQUESTS && c == 0, "{a} {b} {c}");
    ensure!(A_QUARTER.contains(&b), "{a} {b}");

    // Turned round, with the same names and services.
    backends[0]["weight"] = json!(1);
    backends[1]["weight"] = json!(3);
    site.proxy("shop", "shop.test", json!([{"backends": backends}]))
        .await?;
    site.until_true("shop", "Programmed").await?;
    send().await?;
    let [after_a, after_b, c] = counted();
    let (a, b) = (after_a - a, after_b - b);
    println!("weights 1:3:0, {REQUESTS} requests: {a}, {b}, {c}");
    ensure!(a + b == REQUESTS && c == 0, "{a} {b} {c}");
    ensure!(A_QUARTER.contains(&a), "{a} {b}");
    site.end().await
}
