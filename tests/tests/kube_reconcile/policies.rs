//! Policies of users that touch a tunnel, and ours when it loses its grant.

use adit_tests::{
    client::http::{Client, empty},
    kube::{
        Class, Kind, Stack,
        objects::{condition, is_true},
        reconciler,
        site::{Site, rule},
    },
    process::until,
    services::http::HttpService,
};
use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::place::*;

/// What Envoy Gateway would put around a tunnel, or take from it.
pub async fn policies_of_users_that_a_tunnel_cannot_bear_are_named(stack: &Stack) -> Result<()> {
    let place = one_proxy(stack, "bear").await?;
    let backend = place.names(Kind::BACKEND).await?.remove(0);
    let message = |object: &Value| {
        let said = condition(object, "Programmed").map(|c| c["message"].to_string());
        said.unwrap_or_default()
    };
    // TLS to the service by a policy; by the Backend itself; the PROXY protocol.
    let tls = json!({
        "apiVersion": Kind::BACKEND_TLS_POLICY.api_version(), "kind": "BackendTLSPolicy",
        "metadata": {"name": "theirs"},
        "spec": {
            "targetRefs": [{"group": "gateway.envoyproxy.io", "kind": "Backend", "name": backend}],
            "validation": {"hostname": "localhost", "wellKnownCACertificates": "System"},
        },
    });
    let labels = json!({"networking.datumapis.com/httpproxy": "web"});
    let traffic = |spec: Value| {
        let mut policy = json!({
            "apiVersion": Kind::BACKEND_TRAFFIC_POLICY.api_version(),
            "kind": "BackendTrafficPolicy", "metadata": {"name": "theirs"},
            "spec": {"targetSelectors": [{"group": "gateway.networking.k8s.io",
                "kind": "HTTPRoute", "matchLabels": labels}]},
        });
        for (key, value) in spec.as_object().into_iter().flatten() {
            policy["spec"][key] = value.clone();
        }
        policy
    };
    let proxy_protocol = traffic(json!({"proxyProtocol": {"version": "V2"}}));
    for (kind, theirs) in [
        (Kind::BACKEND_TLS_POLICY, tls),
        (Kind::BACKEND_TRAFFIC_POLICY, proxy_protocol),
    ] {
        place.apply(theirs).await?;
        let told = place
            .refused("web", "Programmed", "PolicyOverridden")
            .await?;
        let named = format!("{} bear/theirs", kind.kind);
        ensure!(message(&told).contains(&named), "{}", message(&told));
        place.objects.delete(kind, "bear", "theirs").await?;
        place.programmed("web").await?;
    }
    // A shorter connect timeout does no harm, and is said.
    place
        .apply(traffic(
            json!({"timeout": {"tcp": {"connectTimeout": "1s"}}}),
        ))
        .await?;
    let warned = place
        .until(Kind::HTTP_PROXY, "web", "a warning", |o| {
            is_true(o, "Programmed") && message(o).contains("warning")
        })
        .await?;
    let said = message(&warned);
    ensure!(
        said.contains("BackendTrafficPolicy bear/theirs") && said.contains("connectTimeout of 1s"),
        "{said}"
    );
    place
        .objects
        .delete(Kind::BACKEND_TRAFFIC_POLICY, "bear", "theirs")
        .await?;
    place
        .until(Kind::HTTP_PROXY, "web", "no warning", |o| {
            is_true(o, "Programmed") && !message(o).contains("warning")
        })
        .await?;
    place.end().await
}

/// The policy with the module's filter selects routes in other namespaces by a
/// grant. While there is nobody to make a removed one anew, Envoy Gateway serves
/// such a route without the filter: where a request goes does not hang on it,
/// nor that the headers of a target are removed; the page and the rest of the
/// filter's work do. With the reconciler the filter is back.
pub async fn a_route_without_its_grant_keeps_its_target_and_loses_the_filter(
    stack: &Stack,
) -> Result<()> {
    let flags = ["--watch-namespace", "ungranted-gw"];
    let objects = stack.admin().await?;
    objects.make_namespace("ungranted-gw", &[]).await?;
    let gateway = stack
        .make_gateway(Class::Envoy140, "ungranted-gw", "edge")
        .await?;
    let mut site = Site::with(stack, Class::Envoy140, "ungranted", &flags).await?;
    let web = HttpService::start()?;
    let mut agent = site.agent("box", &[web.addr.to_string()])?;
    agent.start().await?;
    let mut wish = proxy("web", "web.test", 80);
    wish["metadata"]["annotations"] =
        json!({"networking.datumapis.com/gateway": "ungranted-gw/edge"});
    wish["spec"]["rules"] = json!([rule("/", "box", &format!("http://{}", web.addr))]);
    objects.apply("ungranted", wish).await?;
    site.until_true("web", "Programmed").await?;
    // By what it would take from a request, one sees whether the filter is there.
    let filtered = async |wanted: bool| {
        until(&format!("filtered: {wanted}"), async || {
            let mut client = Client::http1(gateway.addr, "web.test").await.ok()?;
            let headers = [("x-adit-anything", "1"), ("x-datum-target-host", "evil")];
            let answer = client.send(http::Method::GET, "/echo", &headers, empty());
            let answer = answer.await.ok()?;
            let there = answer.text().contains("x-adit-anything");
            (answer.status == 200 && there != wanted).then_some(answer.text())
        })
        .await
    };
    filtered(true).await?;
    site.reconciler.terminate().await?;
    for grant in objects
        .list(Kind::REFERENCE_GRANT, "ungranted", OURS)
        .await?
    {
        let name = name_of(&grant);
        objects
            .delete(Kind::REFERENCE_GRANT, "ungranted", &name)
            .await?;
    }
    let seen = filtered(false).await?;
    ensure!(!seen.contains("x-datum-target-host"), "{seen}");
    let dir = tempfile::tempdir()?;
    let socket = site.dialer.socket.to_string_lossy().into_owned();
    let mut flags = vec!["--watch-namespace", "ungranted", "--dialer-socket", &socket];
    flags.extend(["--watch-namespace", "ungranted-gw"]);
    let kubeconfig = stack.plane.kubeconfig();
    let again = reconciler::start(dir.path(), &kubeconfig, "ungranted", &flags).await?;
    filtered(true).await?;
    drop(again);
    objects.delete_namespace("ungranted-gw").await?;
    site.end().await
}
