//! A change that is taken back while it is under way.

use std::collections::BTreeMap;

use adit_tests::{
    client::{http::get, load::Load},
    kube::{Kind, Stack, site::rule},
    process::until,
    services::http::HttpService,
};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::ground::*;

const LABEL: &str = "networking.datumapis.com/httpproxy=web";
/// Changes that are taken back.
const ROUNDS: usize = 18;
/// Requests that were sent, by four clients, before Programmed was read and came
/// to the service after it.
const ON_THEIR_WAY: usize = 4;

/// Number 2, within one HTTPProxy. There and back again gives what is made the
/// names it had before, while Envoy Gateway may still say of the old ones what
/// is not true of the new ones. Programmed must mean served, and no request may
/// be lost, however far the change had come when it was taken back.
pub async fn a_change_that_is_taken_back_loses_no_request(stack: &Stack) -> Result<()> {
    let mut ground = Ground::start(stack, "back").await?;
    let other = ground.another().await?;
    let site = &ground.site;
    let to = |service: &HttpService| {
        let url = format!("http://{}", service.addr);
        json!([rule("/", "edge", &url)])
    };
    site.proxy("web", "back.test", to(&ground.web)).await?;
    site.until_true("web", "Programmed").await?;
    answers(site, "back.test", 200).await?;
    let names = async || {
        let all = site.objects.list(Kind::HTTP_ROUTE, "back", LABEL).await?;
        let names = all.iter().map(|r| r["metadata"]["name"].to_string());
        anyhow::Ok(names.collect::<Vec<_>>())
    };
    let first = names().await?;
    let load = Load::begin(site.addr(), "back.test", "/echo", 4);
    load.answers(20).await?;
    // How far the change comes before it is taken back.
    let mut seen = BTreeMap::new();
    for round in 0..ROUNDS {
        site.proxy("web", "back.test", to(&other)).await?;
        let how_far = round % 6;
        let came = until("the first steps of the change", async || {
            let routes = site.objects.list(Kind::HTTP_ROUTE, "back", LABEL);
            let routes = routes.await.ok()?;
            let retired = |r: &Value| {
                !r["metadata"]["annotations"]["networking.datumapis.com/retired"].is_null()
            };
            let old = |r: &&Value| first.contains(&r["metadata"]["name"].to_string());
            let policies = site.objects.list(Kind::ENVOY_PATCH_POLICY, "back", LABEL);
            let policies = policies.await.ok()?;
            Some(match how_far {
                0 => "nothing",
                1 if policies.len() == 2 => "its policy is there",
                2 if routes.len() == 2 => "its route is there",
                3 if routes.iter().filter(old).any(retired) => "the old route is retired",
                4 if !routes.iter().any(|r| old(&r)) => "the old route is gone",
                5 if routes.len() == 1
                    && policies.len() == 1
                    && routes.iter().all(|r| !old(&r)) =>
                {
                    "all of the old is gone"
                }
                // It was quicker than we looked.
                1..=3 if !routes.iter().any(|r| old(&r)) => "it was over",
                _ => return None,
            })
        })
        .await
        .with_context(|| site.last_words())?;
        *seen.entry(came).or_insert(0) += 1;
        site.proxy("web", "back.test", to(&ground.web)).await?;
        site.until_true("web", "Programmed").await?;
        // From now on all is as it was: not one request more goes elsewhere.
        ensure!(
            names().await? == first,
            "round {round}: {:?}",
            names().await?
        );
        let (web, astray) = (
            ground.web.record.requests().len(),
            other.record.requests().len(),
        );
        let answer = get(site.addr(), "back.test", "/echo").await?;
        ensure!(
            answer.status == 200,
            "round {round}, {came}: {answer:?}\n{}",
            site.last_words()
        );
        load.answers(20).await?;
        ensure!(
            ground.web.record.requests().len() > web
                && other.record.requests().len() <= astray + ON_THEIR_WAY,
            "round {round}, {came}: {} requests went astray",
            other.record.requests().len() - astray
        );
    }
    let answered = load.end().await.with_context(|| site.last_words())?;
    println!("{answered} requests, none failed; taken back when {seen:?}");
    envoy_took_everything(stack, site).await?;
    ground.site.end().await
}
