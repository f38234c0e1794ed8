//! Clients of every kind, let in and refused.

use adit_tests::{
    client::{
        connect, grpc,
        http::{Client, empty},
        patiently, ws,
    },
    kube::{Class, Stack},
    pattern::Pattern,
    process::until,
    services::grpc::Note,
};
use anyhow::{Context, Result, ensure};
use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio::io::AsyncWriteExt;

use super::scene::Scene;

pub async fn every_client_reaches_the_agents_service_on_1_39(stack: &Stack) -> Result<()> {
    every_client(stack, Class::Envoy139, "clients-139").await
}

pub async fn every_client_reaches_the_agents_service_on_1_40(stack: &Stack) -> Result<()> {
    every_client(stack, Class::Envoy140, "clients-140").await
}

pub async fn a_policy_by_label_refuses_everything_connect_too(stack: &Stack) -> Result<()> {
    let scene = Scene::start(stack, Class::Envoy140, "policy").await?;
    let addr = scene.site.addr();
    let selector = |proxy: &str| {
        json!({"group": "gateway.networking.k8s.io", "kind": "HTTPRoute",
               "matchLabels": {"networking.datumapis.com/httpproxy": proxy}})
    };
    scene
        .site
        .objects
        .apply(
            "policy",
            json!({
                "apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": "SecurityPolicy",
                "metadata": {"name": "nobody"},
                "spec": {
                    "targetSelectors": [selector("web"), selector("h2"), selector("grpc"), selector("echo")],
                    "authorization": {"defaultAction": "Deny"},
                },
            }),
        )
        .await?;
    scene.answers("web.test", 403).await?;
    scene.answers("h2.test", 403).await?;
    scene.answers("grpc.test", 403).await?;
    let refused = until("refused CONNECT", async || {
        let answer = connect::http1(addr, &scene.authority(), b"").await.ok()?;
        (answer.status == 403).then_some(())
    });
    refused.await.with_context(|| scene.site.last_words())?;
    let seen = scene.echo.record.connections();
    let h2c = connect::Http2::connect(addr).await?;
    ensure!(
        h2c.tunnel(&scene.authority()).await?.status == 403,
        "CONNECT by HTTP/2"
    );
    let socket = ws::open(addr, "web.test").await;
    ensure!(socket.is_err(), "a WebSocket was let in");
    for host in ["h2.test", "grpc.test"] {
        let mut stub = grpc::Client::connect(addr, host).await?;
        let note = Note {
            text: "x".into(),
            number: 1,
        };
        ensure!(
            stub.unary(note).await.is_err(),
            "a gRPC call was let in at {host}"
        );
    }
    ensure!(
        scene.echo.record.connections() == seen,
        "a refused CONNECT reached the service"
    );
    scene.site.end().await
}

async fn every_client(stack: &Stack, class: Class, namespace: &str) -> Result<()> {
    let scene = Scene::start(stack, class, namespace).await?;
    let addr = scene.site.addr();
    let all = async {
        let mut h1 = Client::http1(addr, "web.test").await?;
        let answer = h1.get("/echo?x=1").await?;
        ensure!(answer.status == 200 && answer.json()?["path"] == "/echo?x=1");
        h1.upload(7, 3 << 20).await?;
        let got = h1.download("/download?bytes=3000000&seed=9").await?;
        ensure!(got.len == 3_000_000 && got.sha256 == Pattern::sha256(9, 3_000_000));

        let mut h2 = Client::http2(addr, "h2.test").await?;
        let version = h2.get("/echo").await?.json()?["version"].clone();
        ensure!(version == "HTTP/2.0", "{version}");
        h2.upload(8, 3 << 20).await?;

        let mut socket = ws::open(addr, "web.test").await?;
        socket.send("hello".into()).await?;
        let back = socket.next().await.context("an answer")??;
        ensure!(back.into_text()?.as_str() == "hello");

        let note = Note {
            text: "x".into(),
            number: 5,
        };
        for host in ["h2.test", "grpc.test"] {
            let mut stub = grpc::Client::connect(addr, host).await?;
            ensure!(stub.unary(note.clone()).await?.into_inner() == note);
        }

        let mut tunnel = connect::http1(addr, &scene.authority(), b"early").await?;
        ensure!(tunnel.status == 200, "{}", tunnel.head);
        ensure!(tunnel.read_exact(5).await? == b"early");
        tunnel.tcp.write_all(b"more").await?;
        ensure!(tunnel.read_exact(4).await? == b"more");

        let h2c = connect::Http2::connect(addr).await?;
        let mut tunnel = h2c.tunnel(&scene.authority()).await?;
        ensure!(tunnel.status == 200, "{}", tunnel.status);
        tunnel.send("whole").await?;
        ensure!(tunnel.read_at_least(5).await? == b"whole");

        // Neither another port nor a host without a tunnel is opened by CONNECT.
        ensure!(connect::http1(addr, "echo.test:1", b"").await?.status != 200);
        ensure!(connect::http1(addr, "web.test:80", b"").await?.status != 200);
        Ok(())
    };
    patiently("every client", all)
        .await
        .with_context(|| scene.site.last_words())?;

    // What is ours to set never comes from a client.
    let mut forged = Client::http1(addr, "web.test").await?;
    let headers = [
        ("x-adit-anything", "1"),
        ("x-datum-target-host", "evil"),
        ("datum-node-id", "evil"),
    ];
    let seen = forged
        .send(http::Method::GET, "/echo", &headers, empty())
        .await?;
    for (name, _) in headers {
        ensure!(
            !seen.text().contains(name),
            "{name} reached the service: {}",
            seen.text()
        );
    }
    scene.site.end().await
}
