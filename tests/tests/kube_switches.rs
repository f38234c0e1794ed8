//! What Envoy Gateway says when an extension that Adit needs is switched off, and
//! that a stack survives a restart of Envoy Gateway.

use adit_tests::{
    expect_ok,
    kube::{
        Class, Kind, Stack, by_hand, enter,
        envoy_gateway::Extensions,
        objects::{condition, is_true},
    },
};
use anyhow::{Context, Result, ensure};
use serde_json::Value;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_switched_off_is_said_in_the_statuses() {
    expect_ok(switches().await);
}

async fn switches() -> Result<()> {
    enter()?;
    let stack = Stack::start(Extensions::default()).await?;
    let tested = off_and_on(&stack).await;
    tested.with_context(|| stack.last_words())
}

async fn off_and_on(stack: &Stack) -> Result<()> {
    let (objects, ns) = (stack.admin().await?, "switches");
    objects.make_namespace(ns, &[]).await?;
    stack.make_gateway(Class::Envoy140, ns, "gw").await?;
    stack.stop_envoy_gateway().await?;
    let off = Extensions {
        patch_policy: false,
        backend: false,
    };
    stack.start_envoy_gateway(off).await?;

    let cluster = by_hand::cluster(ns, "r");
    let patch = by_hand::patch("r", "gw", &cluster, "/nowhere.sock".as_ref());
    objects.apply(ns, patch).await?;
    objects.apply(ns, by_hand::placeholder("r-0")).await?;
    let route = by_hand::route("r", "off.example.com", "gw", "r-0");
    objects.apply(ns, route).await?;
    let refused =
        |route: &Value| condition(route, "ResolvedRefs").is_some_and(|c| c["status"] == "False");
    let route = objects
        .until(Kind::HTTP_ROUTE, ns, "r", "ResolvedRefs=False", refused)
        .await?;
    let why = condition(&route, "ResolvedRefs").map(|c| &c["reason"]);
    ensure!(why.is_some_and(|r| r == "UnsupportedValue"), "{route:#}");
    let disabled =
        |policy: &Value| condition(policy, "Accepted").is_some_and(|c| c["reason"] == "Disabled");
    objects
        .until(Kind::ENVOY_PATCH_POLICY, ns, "r", "Disabled", disabled)
        .await?;

    stack.stop_envoy_gateway().await?;
    stack.start_envoy_gateway(Extensions::default()).await?;
    let route = objects
        .until(Kind::HTTP_ROUTE, ns, "r", "ResolvedRefs", |route| {
            is_true(route, "ResolvedRefs")
        })
        .await?;
    ensure!(is_true(&route, "Accepted"), "{route:#}");
    objects
        .until(Kind::ENVOY_PATCH_POLICY, ns, "r", "Programmed", |policy| {
            is_true(policy, "Programmed")
        })
        .await?;
    objects.delete_namespace(ns).await
}
