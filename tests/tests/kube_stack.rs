//! The harness itself: a real Kubernetes API, Envoy Gateway and Envoy, and the
//! mechanism of the design done by hand.

use std::{fs, path::Path, time::Instant};

use adit_tests::{
    client::{PATIENCE, http},
    kube::{
        Class, Kind, Objects, Stack, by_hand,
        objects::{condition, is_true},
        stack::configured,
    },
    on_the_stack,
    process::until,
    services::http::HttpService,
};
use anyhow::{Context, Result, ensure};
use axum::{Router, routing::get};
use serde_json::{Value, json};
use tokio::{net::UnixListener, task::JoinHandle};

on_the_stack!(
    a_route_to_a_backend_on_loopback_serves,
    a_placeholder_and_a_patch_reach_a_unix_socket_and_fail_closed_without_the_patch,
    a_gateway_is_programmed_only_with_stubs_and_its_envoy_goes_with_it,
    an_object_goes_with_its_owner_and_a_namespace_with_all_in_it,
    a_user_may_do_what_the_role_says_and_no_more,
);

async fn a_route_to_a_backend_on_loopback_serves(stack: &Stack) -> Result<()> {
    for version in adit_tests::binaries::ENVOYS {
        let objects = stack.admin().await?;
        let service = HttpService::start()?;
        let namespace = format!("plain-{}", version.replace('.', "-"));
        objects.make_namespace(&namespace, &[]).await?;
        let class = Class::of(version)?;
        let gateway = stack.make_gateway(class, &namespace, "gw").await?;
        let backend = by_hand::backend("web", "127.0.0.1", service.addr.port());
        objects.apply(&namespace, backend).await?;
        let route = by_hand::route("web", "plain.example.com", "gw", "web");
        objects.apply(&namespace, route).await?;
        let accepted = |route: &Value| is_true(route, "Accepted") && is_true(route, "ResolvedRefs");
        objects
            .until(Kind::HTTP_ROUTE, &namespace, "web", "Accepted", accepted)
            .await?;
        let answer = until("answer of the service", async || {
            let answer = http::get(gateway.addr, "plain.example.com", "/echo")
                .await
                .ok()?;
            (answer.status == 200).then_some(answer)
        })
        .await?;
        ensure!(answer.json()?["path"] == "/echo", "{}", answer.text());
        let info = stack
            .proxy(&gateway.of)
            .await?
            .admin
            .json("/server_info")
            .await?;
        let found = info["version"].as_str().unwrap_or_default();
        ensure!(found.contains(version), "{version} was asked for: {found}");
        objects.delete_namespace(&namespace).await?;
    }
    Ok(())
}

async fn a_placeholder_and_a_patch_reach_a_unix_socket_and_fail_closed_without_the_patch(
    stack: &Stack,
) -> Result<()> {
    let (objects, ns, host) = (stack.admin().await?, "by-hand", "hand.example.com");
    objects.make_namespace(ns, &[]).await?;
    let gateway = stack.make_gateway(Class::Envoy140, ns, "gw").await?;
    let socket = stack.plane.dir().join("by-hand.sock");
    let _service = serve_on(&socket)?;

    // The policy first: it waits for its route.
    let cluster = by_hand::cluster(ns, "r");
    objects
        .apply(ns, by_hand::patch("r", "gw", &cluster, &socket))
        .await?;
    let waiting = |policy: &Value| {
        is_true(policy, "Accepted")
            && condition(policy, "Programmed").is_some_and(|c| c["reason"] == "ResourceNotFound")
    };
    objects
        .until(
            Kind::ENVOY_PATCH_POLICY,
            ns,
            "r",
            "ResourceNotFound",
            waiting,
        )
        .await?;
    objects.apply(ns, by_hand::placeholder("r-0")).await?;
    objects
        .apply(ns, by_hand::route("r", host, "gw", "r-0"))
        .await?;
    objects
        .until(Kind::ENVOY_PATCH_POLICY, ns, "r", "Programmed", |policy| {
            is_true(policy, "Programmed")
        })
        .await?;
    let served = until("answer through the Unix socket", async || {
        let answer = http::get(gateway.addr, host, "/").await.ok()?;
        // Nothing but the socket may ever answer here.
        (answer.status == 200).then_some(answer.text())
    })
    .await?;
    ensure!(served == "by the socket", "{served}");

    let admin = stack.proxy(&gateway.of).await?.admin;
    let endpoints = configured(&admin, "dynamic_endpoint_configs", &cluster)
        .await?
        .with_context(|| format!("no endpoints of {cluster}"))?;
    let address = &endpoints["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"];
    ensure!(address["pipe"]["path"] == json!(socket), "{endpoints:#}");

    objects.delete(Kind::ENVOY_PATCH_POLICY, ns, "r").await?;
    let refused = until("refusal", async || {
        let started = Instant::now();
        let answer = http::get(gateway.addr, host, "/").await.ok()?;
        (answer.status == 503).then(|| started.elapsed())
    })
    .await?;
    println!("without its patch a route answers 503 in {refused:?}");
    ensure!(refused < PATIENCE / 2, "that is a timeout, no refusal");
    objects.delete_namespace(ns).await
}

async fn a_gateway_is_programmed_only_with_stubs_and_its_envoy_goes_with_it(
    stack: &Stack,
) -> Result<()> {
    let (objects, ns) = (stack.admin().await?, "stubs");
    objects.make_namespace(ns, &[]).await?;
    let gateway = stack.make_gateway(Class::Envoy140, ns, "gw").await?;
    let seen = objects
        .get(Kind::GATEWAY, ns, "gw")
        .await?
        .context("the Gateway")?;
    let programmed = &seen["status"]["conditions"]
        .as_array()
        .context("conditions")?;
    let programmed = programmed.iter().find(|c| c["type"] == "Programmed");
    let reason = programmed.map(|c| &c["reason"]);
    ensure!(
        reason.is_some_and(|r| r == "AddressNotAssigned"),
        "{seen:#}"
    );
    stack.pretend_deployed(Class::Envoy140, ns, "gw").await?;
    let pid = stack.proxy(&gateway.of).await?.pid;
    objects.delete_namespace(ns).await?;
    until("end of the Gateway's Envoy", async || {
        // A zombie has no command line.
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.is_empty().then_some(())
    })
    .await
}

async fn an_object_goes_with_its_owner_and_a_namespace_with_all_in_it(stack: &Stack) -> Result<()> {
    let (plane, ns) = (&stack.plane, "owners");
    let objects = plane.admin().await?;
    objects.make_namespace(ns, &[]).await?;
    let owner = objects.apply(ns, by_hand::placeholder("owner")).await?;
    let mut owned = by_hand::placeholder("owned");
    owned["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": "Backend", "name": "owner",
        "uid": owner["metadata"]["uid"],
    }]);
    objects.apply(ns, owned).await?;
    objects.apply(ns, by_hand::placeholder("left")).await?;

    let mark = plane.mark();
    objects.delete(Kind::BACKEND, ns, "owner").await?;
    objects.until_gone(Kind::BACKEND, ns, "owned").await?;
    // A request is logged after it was answered.
    let deleted = until("both deletions in the audit log", async || {
        let writes = plane.writes_since(mark).ok()?.into_iter();
        let deleted = writes.filter(|w| w.verb == "delete" && w.resource == "backends");
        let names: Vec<_> = deleted.map(|w| w.name).collect();
        let both = ["owner", "owned"]
            .iter()
            .all(|n| names.iter().any(|name| name == n));
        both.then_some(names)
    })
    .await?;
    ensure!(!deleted.iter().any(|name| name == "left"), "{deleted:?}");
    objects.delete_namespace(ns).await?;
    ensure!(objects.get(Kind::BACKEND, ns, "left").await?.is_none());
    Ok(())
}

async fn a_user_may_do_what_the_role_says_and_no_more(stack: &Stack) -> Result<()> {
    let (objects, ns) = (stack.admin().await?, "roles");
    objects.make_namespace(ns, &[]).await?;
    objects.apply(ns, by_hand::placeholder("b")).await?;
    let rules = json!([{
        "apiGroups": ["gateway.envoyproxy.io"], "resources": ["backends"], "verbs": ["get"],
    }]);
    let file = stack
        .plane
        .user_with("system:serviceaccount:roles:reader", ns, rules)
        .await?;
    let reader = Objects::open(&file).await?;
    let found = until("right to read", async || {
        reader.get(Kind::BACKEND, ns, "b").await.ok()
    })
    .await?;
    ensure!(found.is_some());
    let mark = stack.plane.mark();
    let refused = reader.delete(Kind::BACKEND, ns, "b").await;
    ensure!(format!("{refused:?}").contains("forbidden"), "{refused:?}");
    let writes = stack.plane.writes_since(mark)?;
    let tried = writes.iter().find(|w| w.user.ends_with(":reader"));
    ensure!(
        tried.is_some_and(|w| w.verb == "delete" && w.code == 403),
        "{writes:?}"
    );
    objects.delete_namespace(ns).await
}

fn serve_on(socket: &Path) -> Result<JoinHandle<()>> {
    let listener = UnixListener::bind(socket)?;
    let router = Router::new().fallback(get(|| async { "by the socket" }));
    Ok(tokio::spawn(async move {
        let _ = axum::serve(listener, router).await;
    }))
}
