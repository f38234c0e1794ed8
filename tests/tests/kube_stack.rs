//! The harness itself: a real Kubernetes API, Envoy Gateway and Envoy, and the
//! mechanism of the design done by hand.

use adit_tests::{
    client::http,
    kube::{Class, Kind, Stack, objects::is_true},
    on_the_stack,
    process::until,
    services::http::HttpService,
};
use anyhow::{Result, ensure};
use serde_json::json;

on_the_stack!(
    an_object_goes_with_its_owner,
    a_route_to_a_backend_on_loopback_serves,
);

async fn an_object_goes_with_its_owner(stack: &Stack) -> Result<()> {
    let plane = &stack.plane;
    let objects = plane.admin().await?;
    objects.make_namespace("owners", &[]).await?;
    let owner = objects
        .apply(
            "owners",
            json!({
                "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
                "metadata": {"name": "owner"},
                "spec": {"gatewayClassName": "none", "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}]},
            }),
        )
        .await?;
    objects
        .apply(
            "owners",
            json!({
                "apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": "Backend",
                "metadata": {"name": "owned", "ownerReferences": [{
                    "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "name": "owner",
                    "uid": owner["metadata"]["uid"],
                }]},
                "spec": {"endpoints": [{"ip": {"address": "127.0.0.1", "port": 1}}]},
            }),
        )
        .await?;
    let mark = plane.mark();
    objects.delete(Kind::GATEWAY, "owners", "owner").await?;
    objects.until_gone(Kind::BACKEND, "owners", "owned").await?;
    let writes = plane.writes_since(mark)?;
    ensure!(
        writes
            .iter()
            .any(|w| w.verb == "delete" && w.resource == "backends" && w.name == "owned"),
        "{writes:?}"
    );
    objects.delete_namespace("owners").await
}

async fn a_route_to_a_backend_on_loopback_serves(stack: &Stack) -> Result<()> {
    let objects = stack.admin().await?;
    let service = HttpService::start()?;
    objects.make_namespace("plain", &[]).await?;
    let gateway = stack.make_gateway(Class::Envoy140, "plain", "gw").await?;
    objects
        .apply(
            "plain",
            json!({
                "apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": "Backend",
                "metadata": {"name": "echo"},
                "spec": {"endpoints": [{"ip": {"address": "127.0.0.1", "port": service.addr.port()}}]},
            }),
        )
        .await?;
    objects
        .apply(
            "plain",
            json!({
                "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
                "metadata": {"name": "echo"},
                "spec": {
                    "parentRefs": [{"name": "gw"}],
                    "hostnames": ["plain.example.com"],
                    "rules": [{"backendRefs": [{
                        "group": "gateway.envoyproxy.io", "kind": "Backend", "name": "echo",
                    }]}],
                },
            }),
        )
        .await?;
    objects
        .until(Kind::HTTP_ROUTE, "plain", "echo", "Accepted", |route| {
            is_true(route, "Accepted")
        })
        .await?;
    let proxy = stack.proxy(&gateway.of).await?;
    let answer = until("answer", async || {
        let answer = http::get(gateway.addr, "plain.example.com", "/echo")
            .await
            .ok()?;
        (answer.status == 200).then_some(answer)
    })
    .await?;
    println!("{} {:?}", answer.text(), proxy);
    objects.delete_namespace("plain").await
}
