//! Backends that may not be reached: each is said with its own reason, none is
//! programmed, and each is mended by what its message asks for.

use adit_tests::{
    client::http::get,
    keys::Key,
    kube::{
        Class, Kind, Stack,
        objects::{condition, is_true},
        site::{CLASS, Site},
    },
    process::until,
    services::http::HttpService,
};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

pub async fn what_may_not_be_reached_is_said_and_not_programmed(stack: &Stack) -> Result<()> {
    let site = Site::start(stack, Class::Envoy140, "refusals").await?;
    let (web, hidden) = (HttpService::start()?, HttpService::start()?);
    let mut agent = site.agent("edge", &[web.addr.to_string()])?;
    agent.start().await?;
    site.until(Kind::CONNECTOR, "edge", "Ready", |c| is_true(c, "Ready"))
        .await?;
    let (url, hidden_url) = (
        format!("http://{}", web.addr),
        format!("http://{}", hidden.addr),
    );
    let edge = json!({"name": "edge"});
    let cases = [
        (
            "hidden",
            json!({"endpoint": hidden_url, "connector": edge}),
            "NotAdvertised",
            hidden.addr.to_string(),
        ),
        (
            "nobody",
            json!({"endpoint": url, "connector": {"name": "nobody"}}),
            "ConnectorNotFound",
            "nobody".to_owned(),
        ),
        (
            "labels",
            json!({"endpoint": url, "connector": {"selector": {"matchLabels": {"a": "b"}}}}),
            "ConnectorNotFound",
            "a=b".to_owned(),
        ),
    ];
    for (name, backend, reason, said) in cases {
        let rules = json!([{"backends": [backend]}]);
        site.proxy(name, &format!("{name}.test"), rules).await?;
        let refused = site
            .until_false(Kind::HTTP_PROXY, name, "Accepted", reason)
            .await?;
        let told = condition(&refused, "Accepted").context("Accepted")?;
        ensure!(
            told["message"].to_string().contains(&said),
            "{name}: {told}"
        );
        ensure!(!is_true(&refused, "Programmed"), "{refused:#}");
        let ours = format!("networking.datumapis.com/httpproxy={name}");
        for kind in [Kind::ENVOY_PATCH_POLICY, Kind::BACKEND] {
            let made = site.objects.list(kind, "refusals", &ours).await?;
            ensure!(made.is_empty(), "{name}: {made:#?}");
        }
        let answer = get(site.addr(), &format!("{name}.test"), "/").await?;
        ensure!(!answer.status.is_success(), "{name}: {answer:?}");
    }
    ensure!(hidden.record.connections() == 0, "it was reached");
    let unknown = json!([{"backends": [{"endpoint": url, "connector": {"name": "odd"}}]}]);
    site.objects
        .apply(
            "refusals",
            json!({
                "apiVersion": "networking.datumapis.com/v1alpha1", "kind": "Connector",
                "metadata": {"name": "odd"}, "spec": {"connectorClassName": "no-such-class"},
            }),
        )
        .await?;
    site.proxy("odd", "odd.test", unknown).await?;
    let refused = site
        .until_false(
            Kind::HTTP_PROXY,
            "odd",
            "Accepted",
            "ConnectorClassNotFound",
        )
        .await?;
    let told = condition(&refused, "Accepted").context("Accepted")?;
    ensure!(
        told["message"].to_string().contains("no-such-class"),
        "{told}"
    );
    let udp = json!([{"backends": [{"endpoint": "udp://127.0.0.1:53", "connector": edge}]}]);
    site.proxy("udp", "udp.test", udp).await?;
    site.until_false(Kind::HTTP_PROXY, "udp", "Accepted", "UnsupportedProtocol")
        .await?;

    // The agent advertises it: served. It takes that back: said, and cut off.
    let serves = async |host: &str, wanted: bool| {
        until(&format!("{host} served: {wanted}"), async || {
            let answer = get(site.addr(), host, "/echo").await.ok()?;
            (answer.status.is_success() == wanted).then_some(())
        })
        .await
        .with_context(|| site.last_words())
    };
    let both = json!([web.addr.to_string(), hidden.addr.to_string()]);
    agent.set("targets", both).reconfigure()?;
    serves("hidden.test", true).await?;
    site.until_true("hidden", "Programmed").await?;
    agent
        .set("targets", json!([web.addr.to_string()]))
        .reconfigure()?;
    serves("hidden.test", false).await?;
    site.until_false(Kind::HTTP_PROXY, "hidden", "Accepted", "NotAdvertised")
        .await?;
    let mut seen = 0;
    until("no more requests of the hidden service", async || {
        let _ = get(site.addr(), "hidden.test", "/").await;
        let before = std::mem::replace(&mut seen, hidden.record.requests().len());
        (before == seen).then_some(())
    })
    .await?;

    // An administrator takes the capability away, and gives it back.
    let rules = json!([{"backends": [{"endpoint": url, "connector": edge}]}]);
    site.proxy("web", "web.test", rules).await?;
    serves("web.test", true).await?;
    let disabled = |disabled: bool| {
        json!({"spec": {"capabilities": [
            {"type": "ConnectTCP", "connectTCP": {"disabled": disabled}}]}})
    };
    let set = async |value: Value| {
        site.objects
            .merge(Kind::CONNECTOR, "refusals", "edge", None, &value)
            .await
    };
    set(disabled(true)).await?;
    site.until_false(Kind::HTTP_PROXY, "web", "Accepted", "CapabilityDisabled")
        .await?;
    serves("web.test", false).await?;
    set(disabled(false)).await?;
    serves("web.test", true).await?;
    site.until_true("web", "Programmed").await?;

    // An agent that says by itself that it may not.
    let denied = json!({
        "type": "ConnectTCP", "status": "False", "reason": "Denied", "message": "not here",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    let by_hand = [
        json!({
            "apiVersion": "networking.datumapis.com/v1alpha1", "kind": "Connector",
            "metadata": {"name": "shy"}, "spec": {"connectorClassName": CLASS},
        }),
        json!({
            "apiVersion": "networking.datumapis.com/v1alpha1", "kind": "ConnectorAdvertisement",
            "metadata": {"name": "shy"},
            "spec": {"connectorRef": {"name": "shy"}, "layer4": [{"name": "all", "services": [{
                "address": web.addr.ip().to_string(),
                "ports": [{"name": "web", "port": web.addr.port()}],
            }]}]},
        }),
    ];
    for object in by_hand {
        site.objects.apply("refusals", object).await?;
    }
    let status = json!({"status": {
        "capabilities": [{"type": "ConnectTCP", "conditions": [denied]}],
        "connectionDetails": {"type": "PublicKey", "publicKey": {
            "id": Key::new(site.dir(), "shy")?.id, "homeRelay": "", "discoveryMode": "DNS",
            "addresses": [{"address": "192.0.2.1", "port": 4242}],
        }},
    }});
    let shy = (Kind::CONNECTOR, "refusals", "shy");
    site.objects
        .merge(shy.0, shy.1, shy.2, Some("status"), &status)
        .await?;
    let rules = json!([{"backends": [{"endpoint": url, "connector": {"name": "shy"}}]}]);
    site.proxy("shy", "shy.test", rules).await?;
    site.until_false(Kind::HTTP_PROXY, "shy", "Accepted", "CapabilityDisabled")
        .await?;
    let status = json!({"status": {"capabilities": [{"type": "ConnectTCP"}]}});
    site.objects
        .merge(shy.0, shy.1, shy.2, Some("status"), &status)
        .await?;
    site.until_true("shy", "Accepted").await?;
    site.end().await
}
