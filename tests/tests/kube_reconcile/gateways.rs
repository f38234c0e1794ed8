//! Which Gateway an HTTPProxy is programmed at.

use std::{net::SocketAddr, process::Command};

use adit_tests::{
    client::http::get,
    kube::{
        Class, Kind, Stack,
        site::{Site, rule},
    },
    process::until,
    services::http::HttpService,
};
use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::place::*;

pub async fn a_gateway_elsewhere_is_used_as_long_as_it_allows_it(stack: &Stack) -> Result<()> {
    let objects = stack.admin().await?;
    for namespace in ["far-gw", "near-gw"] {
        objects.make_namespace(namespace, &[]).await?;
    }
    stack.make_gateway(Class::Envoy140, "far-gw", "far").await?;
    let flags = ["--gateway", "far-gw/far"];
    let place = Place::start(&stack.plane, "guest", &flags).await?;
    place.connector("box").await?;
    place.apply(proxy("web", "guest.test", 80)).await?;
    place.programmed("web").await?;
    let there = async |kind| objects.list(kind, "far-gw", OURS).await;
    ensure!(there(Kind::ENVOY_PATCH_POLICY).await?.len() == 1);
    // Not any more.
    let same = json!([{"name": "http", "port": 18080, "protocol": "HTTP",
        "allowedRoutes": {"namespaces": {"from": "Same"}}}]);
    let patch = json!({"spec": {"listeners": same}});
    objects
        .merge(Kind::GATEWAY, "far-gw", "far", None, &patch)
        .await?;
    place
        .refused("web", "Programmed", "NotAllowedByListeners")
        .await?;
    for kind in [Kind::ENVOY_PATCH_POLICY, Kind::ENVOY_EXTENSION_POLICY] {
        objects
            .until_list(kind, "far-gw", OURS, "nothing of a guest", |all| {
                all.is_empty()
            })
            .await
            .with_context(|| place.reconciler.last_words())?;
    }
    for kind in MADE {
        ensure!(place.names(kind).await?.is_empty(), "{kind:?}");
    }
    objects
        .until_list(Kind::REFERENCE_GRANT, "guest", OURS, "no grant", |all| {
            all.is_empty()
        })
        .await?;
    // One that names another Gateway by its annotation, which is not there yet.
    let mut named = proxy("named", "named.test", 80);
    named["metadata"]["annotations"] = json!({"networking.datumapis.com/gateway": "guest-gw"});
    place.apply(named).await?;
    place
        .refused("named", "Programmed", "GatewayNotFound")
        .await?;
    stack
        .make_gateway(Class::Envoy140, "guest", "guest-gw")
        .await?;
    place.programmed("named").await?;
    place.end().await?;
    for namespace in ["far-gw", "near-gw"] {
        objects.delete_namespace(namespace).await?;
    }
    Ok(())
}

pub async fn a_proxy_without_a_gateway_gets_one_of_its_own(stack: &Stack) -> Result<()> {
    let place = Place::start(&stack.plane, "own", &["--gateway-class", "envoy-1-40"]).await?;
    place.connector("box").await?;
    place.apply(proxy("web", "own.test", 80)).await?;
    place.programmed("web").await?;
    let gateway = place.until(Kind::GATEWAY, "web", "made", |_| true).await?;
    ensure!(
        gateway["spec"]["gatewayClassName"] == "envoy-1-40",
        "{gateway:#}"
    );
    ensure!(
        gateway["metadata"]["ownerReferences"][0]["name"] == "web",
        "{gateway:#}"
    );
    // With another Gateway the one that was made goes, when the other serves.
    stack.make_gateway(Class::Envoy140, "own", "edge").await?;
    let annotation =
        json!({"metadata": {"annotations": {"networking.datumapis.com/gateway": "edge"}}});
    place
        .objects
        .merge(Kind::HTTP_PROXY, "own", "web", None, &annotation)
        .await?;
    place
        .objects
        .until_gone(Kind::GATEWAY, "own", "web")
        .await?;
    place.programmed("web").await?;
    let policies = place
        .objects
        .list(Kind::ENVOY_PATCH_POLICY, "own", OURS)
        .await?;
    ensure!(policies.len() == 1, "{policies:#?}");
    ensure!(
        policies[0]["spec"]["targetRef"]["name"] == "edge",
        "{policies:#?}"
    );
    place.end().await
}

pub async fn a_gateway_without_the_module_gets_nothing(stack: &Stack) -> Result<()> {
    let objects = stack.admin().await?;
    objects.make_namespace("bare", &[]).await?;
    stack.make_gateway(Class::NoModule, "bare", "edge").await?;
    let place = Place::start(&stack.plane, "bare", &["--gateway", "bare/edge"]).await?;
    place.connector("box").await?;
    place.apply(proxy("web", "bare.test", 80)).await?;
    place
        .refused("web", "Programmed", "ModuleNotInstalled")
        .await?;
    for kind in MADE.into_iter().chain([Kind::ENVOY_EXTENSION_POLICY]) {
        ensure!(place.names(kind).await?.is_empty(), "{kind:?}");
    }
    // A backend without a connector needs no module.
    let mut plain = proxy("plain", "plain.test", 80);
    plain["spec"]["rules"] = json!([{"backends": [{"endpoint": "http://192.0.2.9:80"}]}]);
    place.apply(plain).await?;
    place.programmed("plain").await?;
    ensure!(place.names(Kind::ENVOY_PATCH_POLICY).await?.is_empty());
    place.end().await
}

/// Of a class that merges its Gateways there is one Envoy, and Envoy Gateway
/// takes patches for the class only.
pub async fn gateways_of_one_envoy_serve_each_its_own(stack: &Stack) -> Result<()> {
    let site = Site::start(stack, Class::Merged, "merged").await?;
    let other = stack.make_gateway(Class::Merged, "merged", "other").await?;
    let web = HttpService::start()?;
    let mut agent = site.agent("box", &[web.addr.to_string()])?;
    agent.start().await?;
    let rules = json!([rule("/", "box", &format!("http://{}", web.addr))]);
    site.proxy("web", "web.test", rules.clone()).await?;
    let mut second = proxy("second", "second.test", 80);
    second["metadata"]["annotations"] = json!({"networking.datumapis.com/gateway": "other"});
    second["spec"]["rules"] = rules;
    site.objects.apply("merged", second).await?;
    for (name, host, addr) in [
        ("web", "web.test", site.addr()),
        ("second", "second.test", other.addr),
    ] {
        site.until_true(name, "Programmed").await?;
        // Envoy and its listeners are new, too.
        until(&format!("an answer of {host}"), async || {
            let answer = get(addr, host, "/echo").await.ok()?;
            (answer.status == 200).then_some(())
        })
        .await
        .with_context(|| site.last_words())?;
        let of = format!("networking.datumapis.com/httpproxy={name}");
        let patches = site
            .objects
            .list(Kind::ENVOY_PATCH_POLICY, "merged", &of)
            .await?;
        ensure!(patches.len() == 1, "{patches:#?}");
        let target = &patches[0]["spec"]["targetRef"];
        ensure!(
            target["kind"] == "GatewayClass" && target["name"] == Class::Merged.name(),
            "{target}"
        );
    }
    // One Envoy, and yet each host name only where it belongs.
    for (host, addr) in [("second.test", site.addr()), ("web.test", other.addr)] {
        let answer = get(addr, host, "/echo").await?;
        ensure!(answer.status == 404, "{host}: {answer:?}");
    }
    // One goes, the other stays.
    site.objects
        .delete(Kind::HTTP_PROXY, "merged", "second")
        .await?;
    let one = |all: &[serde_json::Value]| all.len() == 1;
    site.objects
        .until_list(Kind::ENVOY_PATCH_POLICY, "merged", OURS, "one policy", one)
        .await
        .with_context(|| site.last_words())?;
    ensure!(get(site.addr(), "web.test", "/echo").await?.status == 200);
    site.end().await
}

/// As everywhere without Adit: Envoy goes there by itself. The API takes no
/// loopback address, so the service has another one.
pub async fn a_backend_without_a_connector_is_served(stack: &Stack) -> Result<()> {
    const ADDRESS: &str = "192.0.2.19";
    let added = Command::new("ip")
        .args(["addr", "replace", &format!("{ADDRESS}/32"), "dev", "lo"])
        .status()?;
    ensure!(added.success(), "ip addr replace: {added}");
    let any: SocketAddr = format!("{ADDRESS}:0").parse()?;
    let service = HttpService::start_at(any, None)?;
    let objects = stack.admin().await?;
    objects.make_namespace("plain", &[]).await?;
    let gateway = stack.make_gateway(Class::NoModule, "plain", "edge").await?;
    let place = Place::start(&stack.plane, "plain", &["--gateway", "plain/edge"]).await?;
    for scheme in ["http", "h2c"] {
        let mut plain = proxy(scheme, &format!("{scheme}.test"), 80);
        let endpoint = format!("{scheme}://{}", service.addr);
        plain["spec"]["rules"] = json!([{"backends": [{"endpoint": endpoint}]}]);
        place.apply(plain).await?;
        place.programmed(scheme).await?;
        // Envoy is new, too.
        until(&format!("an answer by {scheme}"), async || {
            let host = format!("{scheme}.test");
            let answer = get(gateway.addr, &host, "/echo?a=b").await.ok()?;
            (answer.status == 200).then_some(())
        })
        .await
        .with_context(|| place.reconciler.last_words())?;
        let seen = service.record.requests();
        let last = seen.last().context("the service saw it")?;
        let version = if scheme == "http" {
            "HTTP/1.1"
        } else {
            "HTTP/2.0"
        };
        ensure!(
            last.path == "/echo?a=b" && last.version == version,
            "{last:?}"
        );
    }
    // It ends, and comes back: Envoy's matter, nobody writes anything.
    let mark = stack.plane.mark();
    let addr = service.addr;
    drop(service);
    let status = async |wanted: u16| {
        until(&format!("{wanted} of http.test"), async || {
            let answer = get(gateway.addr, "http.test", "/echo").await.ok()?;
            (answer.status == wanted).then_some(())
        })
        .await
    };
    status(503).await?;
    let _service = HttpService::start_at(addr, None)?;
    status(200).await?;
    let mut writes = stack.plane.writes_since(mark)?;
    writes.retain(|w| w.namespace == "plain" && w.reprograms());
    ensure!(writes.is_empty(), "{writes:?}");
    place.end().await
}
