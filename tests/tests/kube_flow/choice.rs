//! A backend that means connectors by their labels.

use adit_tests::{
    client::http::get,
    kube::{Class, Kind, Stack, objects::is_true, site::Site},
    process::until,
    services::http::HttpService,
};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

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
