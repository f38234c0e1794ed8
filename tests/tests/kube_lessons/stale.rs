//! A status of Envoy Gateway's that is wrong, and stays so by itself.

use adit_tests::{
    client::load::Load,
    kube::{Kind, Stack, site::rule},
};
use anyhow::{Context, Result};
use serde_json::json;

use super::ground::*;

const LABEL: &str = "networking.datumapis.com/httpproxy=web";
/// Older than anything that is on its way.
const LONG_AGO: &str = "2026-01-01T00:00:00Z";

/// Envoy Gateway 1.9.1 compares a new status with its cache of the API, which
/// is milliseconds behind: one that turns back that fast stays as it was in
/// between. Here somebody writes such a status; it has to be asked for again,
/// and no request may be lost on the way.
pub async fn a_status_that_was_left_wrong_is_asked_for_again(stack: &Stack) -> Result<()> {
    let ground = Ground::start(stack, "stale").await?;
    let site = &ground.site;
    let rules = json!([rule("/", "edge", &ground.url())]);
    site.proxy("web", "stale.test", rules).await?;
    site.until_true("web", "Programmed").await?;
    answers(site, "stale.test", 200).await?;
    let load = Load::begin(site.addr(), "stale.test", "/echo", 4);
    load.answers(20).await?;
    for (kind, list, type_, reason) in [
        (
            Kind::HTTP_ROUTE,
            "parents",
            "ResolvedRefs",
            "BackendNotFound",
        ),
        (
            Kind::ENVOY_PATCH_POLICY,
            "ancestors",
            "Programmed",
            "ResourceNotFound",
        ),
    ] {
        let all = site.objects.list(kind, "stale", LABEL).await?;
        let [object] = &all[..] else {
            anyhow::bail!("{} of {}", all.len(), kind.kind);
        };
        let name = object["metadata"]["name"].as_str().context("a name")?;
        let generation = object["metadata"]["generation"].as_i64();
        let mut status = object["status"].clone();
        let conditions = status[list][0]["conditions"].as_array_mut();
        for c in conditions.context("conditions")? {
            if c["type"] == type_ {
                c["status"] = json!("False");
                c["reason"] = json!(reason);
                c["lastTransitionTime"] = json!(LONG_AGO);
            }
        }
        let wrong = json!({ "status": status });
        (site.objects)
            .merge(kind, "stale", name, Some("status"), &wrong)
            .await?;
        site.until(kind, name, "asked for again", |o| {
            let conditions = o["status"][list][0]["conditions"].as_array();
            let mut found = conditions
                .into_iter()
                .flatten()
                .filter(|c| c["type"] == type_);
            found.any(|c| c["status"] == "True")
                && o["metadata"]["generation"].as_i64() > generation
        })
        .await?;
        site.until_true("web", "Programmed").await?;
    }
    load.answers(20).await?;
    let answered = load.end().await.with_context(|| site.last_words())?;
    println!("{answered} requests meanwhile, each answered");
    ground.site.end().await
}
