//! What Envoy Gateway says when an extension that Adit needs is switched off, and
//! that a stack survives a restart of Envoy Gateway.

use adit_tests::{
    expect_ok,
    kube::{
        Class, Kind, Stack, by_hand, enter,
        envoy_gateway::Extensions,
        objects::{condition, is_true},
        site::{Site, rule},
    },
    services::http::HttpService,
};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_switched_off_is_said_in_the_statuses() {
    expect_ok(switches().await);
}

async fn switches() -> Result<()> {
    enter()?;
    let stack = Stack::start(Extensions::default()).await?;
    let tested = async {
        off_and_on(&stack).await?;
        an_httpproxy_says_what_is_off(&stack).await
    };
    tested.await.with_context(|| stack.last_words())
}

/// The same, as who wrote an HTTPProxy is told: which of the two it is, and
/// what to set. Nobody has to write anything again when it is set.
async fn an_httpproxy_says_what_is_off(stack: &Stack) -> Result<()> {
    let site = Site::start(stack, Class::Envoy140, "told").await?;
    let web = HttpService::start()?;
    let mut agent = site.agent("edge", &[web.addr.to_string()])?;
    agent.start().await?;
    let url = format!("http://{}", web.addr);
    for (patch_policy, backend, reason, words) in [
        (false, true, "PatchPolicyDisabled", "enableEnvoyPatchPolicy"),
        (true, false, "Invalid", "enableBackend"),
        (
            false,
            false,
            "PatchPolicyDisabled",
            "enableEnvoyPatchPolicy",
        ),
    ] {
        stack.stop_envoy_gateway().await?;
        let off = Extensions {
            patch_policy,
            backend,
        };
        stack.start_envoy_gateway(off).await?;
        site.proxy("web", "told.test", json!([rule("/", "edge", &url)]))
            .await?;
        let told = site
            .until_false(Kind::HTTP_PROXY, "web", "Programmed", reason)
            .await?;
        let said = condition(&told, "Programmed").context("Programmed")?["message"].to_string();
        println!("{off:?}: {said}");
        ensure!(said.contains(words), "{off:?}: {said}");
        ensure!(is_true(&told, "Accepted"), "{told:#}");
        stack.stop_envoy_gateway().await?;
        stack.start_envoy_gateway(Extensions::default()).await?;
        site.until_true("web", "Programmed").await?;
        site.objects.delete(Kind::HTTP_PROXY, "told", "web").await?;
        for kind in [Kind::HTTP_ROUTE, Kind::ENVOY_PATCH_POLICY] {
            site.objects
                .until_list(kind, "told", "", "nothing left", <[Value]>::is_empty)
                .await
                .with_context(|| site.last_words())?;
        }
    }
    site.end().await
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
