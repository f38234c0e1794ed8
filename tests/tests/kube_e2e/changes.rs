//! Changes under load: no request is lost, none goes astray.

use adit_tests::{
    client::{http::get, load::Load},
    kube::{Class, Kind, Stack, site::rule},
    process::until,
    services::http::HttpService,
};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::scene::Scene;

pub async fn a_changed_endpoint_moves_traffic_and_loses_none(stack: &Stack) -> Result<()> {
    let mut scene = Scene::start(stack, Class::Envoy140, "moves").await?;
    let other = HttpService::start()?;
    let targets = json!([
        scene.web.addr.to_string(),
        scene.echo.addr.to_string(),
        other.addr.to_string()
    ]);
    scene.agent.set("targets", targets).reconfigure()?;
    scene
        .site
        .until(Kind::CONNECTOR_ADVERTISEMENT, "edge", "new target", |a| {
            a["spec"]
                .to_string()
                .contains(&format!("{}", other.addr.port()))
        })
        .await?;
    let load = Load::begin(scene.site.addr(), "web.test", "/echo", 6);
    load.answers(50).await?;
    let services = [
        (&other, &scene.web),
        (&scene.web, &other),
        (&other, &scene.web),
    ];
    for (new, old) in services {
        let endpoint = format!("http://{}", new.addr);
        let before = new.record.requests().len();
        scene
            .site
            .proxy("web", "web.test", json!([rule("/", "edge", &endpoint)]))
            .await?;
        until("traffic at the new endpoint", async || {
            (new.record.requests().len() > before + 20).then_some(())
        })
        .await
        .with_context(|| scene.site.last_words())?;
        scene.site.until_true("web", "Programmed").await?;
        // The old route is gone, and with it the last request for the old service.
        let labels = "networking.datumapis.com/httpproxy=web";
        scene
            .site
            .objects
            .until_list(Kind::HTTP_ROUTE, "moves", labels, "single route", |r| {
                r.len() == 1
            })
            .await?;
        load.answers(50).await?;
        let settled = old.record.requests().len();
        load.answers(50).await?;
        ensure!(
            old.record.requests().len() == settled,
            "the old service still gets requests"
        );
    }
    let answered = load.end().await.with_context(|| scene.site.last_words())?;
    println!("{answered} requests, none failed, while the endpoint changed three times");
    scene.site.end().await
}

pub async fn a_rule_on_top_misleads_no_request(stack: &Stack) -> Result<()> {
    let mut scene = Scene::start(stack, Class::Envoy140, "on-top").await?;
    let services = [
        HttpService::start()?,
        HttpService::start()?,
        HttpService::start()?,
    ];
    let mut targets: Vec<_> = services.iter().map(|s| s.addr.to_string()).collect();
    targets.extend([scene.web.addr.to_string(), scene.echo.addr.to_string()]);
    scene.agent.set("targets", json!(targets)).reconfigure()?;
    scene
        .site
        .until(Kind::CONNECTOR_ADVERTISEMENT, "edge", "new targets", |a| {
            services
                .iter()
                .all(|s| a["spec"].to_string().contains(&s.addr.port().to_string()))
        })
        .await?;
    let prefixes = ["/a", "/b", "/c"];
    let one = |n: usize| rule(prefixes[n], "edge", &format!("http://{}", services[n].addr));
    scene
        .site
        .proxy("many", "many.test", json!([one(1), one(2)]))
        .await?;
    scene.site.until_true("many", "Programmed").await?;
    let served = until("both rules", async || {
        let b = get(scene.site.addr(), "many.test", "/b/1").await.ok()?;
        let c = get(scene.site.addr(), "many.test", "/c/1").await.ok()?;
        (b.status == 200 && c.status == 200).then_some(())
    });
    served.await.with_context(|| scene.site.last_words())?;
    let loads = ["/b/x", "/c/x"].map(|path| Load::begin(scene.site.addr(), "many.test", path, 3));
    loads[0].answers(20).await?;
    // On top, away again, and on top of a rule that goes at the same time.
    let orders: [Vec<Value>; 4] = [
        vec![one(0), one(1), one(2)],
        vec![one(1), one(2)],
        vec![one(2), one(1)],
        vec![one(0), one(2), one(1)],
    ];
    for rules in orders {
        let with_a = rules.len() == 3;
        scene
            .site
            .proxy("many", "many.test", Value::Array(rules))
            .await?;
        let status = if with_a { 200 } else { 404 };
        until("the new order", async || {
            let answer = get(scene.site.addr(), "many.test", "/a/1").await.ok()?;
            (answer.status == status).then_some(())
        })
        .await
        .with_context(|| scene.site.last_words())?;
        scene.site.until_true("many", "Programmed").await?;
        for load in &loads {
            load.answers(20).await?;
        }
    }
    for load in loads {
        let answered = load.end().await.with_context(|| scene.site.last_words())?;
        println!("{answered} requests, none failed, while rules were inserted and moved");
    }
    for (service, prefix) in services.iter().zip(prefixes) {
        for request in service.record.requests() {
            ensure!(
                request.path.starts_with(prefix),
                "{} came to {prefix}",
                request.path
            );
        }
    }
    scene.site.end().await
}
