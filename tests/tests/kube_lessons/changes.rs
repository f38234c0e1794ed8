//! Changes under one name.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use adit_tests::{
    client::{connect, http::get, patiently},
    kube::{
        Class, Kind, Stack,
        objects::is_true,
        site::{Site, rule, tunnel},
    },
    process::until,
    services::{
        http::HttpService,
        tcp::{Manner, TcpService},
        tls::Authority,
    },
};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::ground::*;

const LABEL: &str = "networking.datumapis.com/httpproxy=web";

/// Number 2. An object of the same name and generation 1 is taken for the one
/// that was: its status may stay empty, or speak of the old one. What is made
/// for an HTTPProxy that is made again has other names.
pub async fn a_proxy_deleted_and_made_again_is_programmed_again(stack: &Stack) -> Result<()> {
    let mut ground = Ground::start(stack, "again").await?;
    let services = [HttpService::start()?, HttpService::start()?];
    let targets: Vec<_> = services.iter().map(|s| s.addr.to_string()).collect();
    ground.agent.set("targets", json!(targets)).reconfigure()?;
    let site = &ground.site;
    let port = services[1].addr.port().to_string();
    site.until(Kind::CONNECTOR_ADVERTISEMENT, "edge", "both targets", |a| {
        a["spec"].to_string().contains(&port)
    })
    .await?;
    let mut seen = Vec::new();
    for round in 0..6 {
        let service = &services[round % 2];
        let url = format!("http://{}", service.addr);
        site.proxy("web", "again.test", json!([rule("/", "edge", &url)]))
            .await?;
        site.until_true("web", "Programmed").await?;
        let before = service.record.requests().len();
        // Programmed means served, by the right one: not after a while.
        let answer = get(site.addr(), "again.test", "/echo").await?;
        ensure!(
            answer.status == 200 && service.record.requests().len() == before + 1,
            "round {round}: {} {}\n{}",
            answer.status,
            answer.text(),
            site.last_words()
        );
        let patches = site.objects.list(Kind::ENVOY_PATCH_POLICY, "again", LABEL);
        for patch in patches.await? {
            let name = patch["metadata"]["name"].as_str().unwrap_or_default();
            if patch["metadata"]["deletionTimestamp"].is_null() && !seen.contains(&name.to_owned())
            {
                seen.push(name.to_owned());
            }
        }
        ensure!(seen.len() > round, "a name was used again: {seen:?}");
        site.objects
            .delete(Kind::HTTP_PROXY, "again", "web")
            .await?;
    }
    ground.site.end().await
}

/// Number 18. What https needed (a TLS policy, a protocol of the port) must not
/// outlive it.
pub async fn tls_to_the_service_comes_and_goes_without_a_trace(stack: &Stack) -> Result<()> {
    let mut site = Site::start(stack, Class::Envoy140, "scheme").await?;
    let authority = Authority::new()?;
    let ca = site.dir().join("service-ca.pem");
    std::fs::write(&ca, authority.pem())?;
    site.restart_dialer(&["--tls-ca", &ca.to_string_lossy()])
        .await?;
    let plain = HttpService::start()?;
    let secure = HttpService::start_tls(authority.server(&["localhost"])?)?;
    let at = |service: &HttpService| format!("localhost:{}", service.addr.port());
    let mut agent = site.agent("edge", &[at(&plain), at(&secure)])?;
    agent.start().await?;
    for round in 0..2 {
        for (scheme, service) in [("https", &secure), ("http", &plain), ("h2c", &plain)] {
            let url = format!("{scheme}://{}", at(service));
            let before = service.record.requests().len();
            site.proxy("web", "scheme.test", json!([rule("/", "edge", &url)]))
                .await?;
            until("requests by the new scheme", async || {
                let answer = get(site.addr(), "scheme.test", "/echo").await.ok()?;
                let requests = service.record.requests();
                let last = requests.last()?;
                let version = if scheme == "h2c" {
                    "HTTP/2.0"
                } else {
                    "HTTP/1.1"
                };
                (answer.status == 200 && requests.len() > before && last.version == version)
                    .then_some(())
            })
            .await
            .with_context(|| format!("round {round}, {scheme}\n{}", site.last_words()))?;
            site.until_true("web", "Programmed").await?;
            // What was needed before is gone.
            for kind in [Kind::HTTP_ROUTE, Kind::BACKEND, Kind::ENVOY_PATCH_POLICY] {
                site.objects
                    .until_list(kind, "scheme", LABEL, "one of each", |all| all.len() == 1)
                    .await
                    .with_context(|| site.last_words())?;
            }
            let policies = site.objects.list(Kind::BACKEND_TLS_POLICY, "scheme", "");
            ensure!(policies.await?.is_empty(), "a BackendTLSPolicy");
        }
    }
    envoy_took_everything(stack, &site).await?;
    site.end().await
}

/// Number 13. A conflict is the normal case of two writers: whoever meets it
/// looks again soon, however many there were. (Minutes of back-off would
/// outlast this test's patience.)
pub async fn conflicting_writes_delay_nobody_for_long(stack: &Stack) -> Result<()> {
    let mut ground = Ground::start(stack, "conflicts").await?;
    let other = ground.another().await?;
    let site = &ground.site;
    site.proxy(
        "web",
        "busy.test",
        json!([rule("/", "edge", &ground.url())]),
    )
    .await?;
    site.until_true("web", "Programmed").await?;
    // Somebody who writes to all of it, as fast as the API server lets him.
    let stop = Arc::new(AtomicBool::new(false));
    let meddler = {
        let (objects, stop) = (site.objects.clone(), stop.clone());
        tokio::spawn(async move {
            let mut writes = 0_u32;
            while !stop.load(Ordering::SeqCst) {
                for kind in [Kind::HTTP_ROUTE, Kind::ENVOY_PATCH_POLICY, Kind::BACKEND] {
                    for object in objects.list(kind, "conflicts", LABEL).await? {
                        let name = object["metadata"]["name"].as_str().unwrap_or_default();
                        let note = json!({"metadata": {
                            "annotations": {"meddler": writes.to_string()},
                            "labels": {"networking.datumapis.com/route": "meddler"},
                        }});
                        // It may be gone by now.
                        let _ = objects.merge(kind, "conflicts", name, None, &note).await;
                        writes += 1;
                    }
                }
                // What is changed and gone at once is a conflict for whoever
                // puts the change right.
                for object in objects.list(Kind::BACKEND, "conflicts", LABEL).await? {
                    let name = object["metadata"]["name"].as_str().unwrap_or_default();
                    let spoilt = json!({"spec": {"endpoints": [{"ip": {
                        "address": "233.252.0.99", "port": writes % 1000 + 1}}]}});
                    let merged = objects.merge(Kind::BACKEND, "conflicts", name, None, &spoilt);
                    if merged.await.is_ok() {
                        objects.delete(Kind::BACKEND, "conflicts", name).await?;
                    }
                    writes += 2;
                }
                let note = json!({"metadata": {"annotations": {"meddler": writes.to_string()}}});
                for (kind, name) in [(Kind::HTTP_PROXY, "web"), (Kind::CONNECTOR, "edge")] {
                    objects.merge(kind, "conflicts", name, None, &note).await?;
                }
            }
            anyhow::Ok(writes)
        })
    };
    let began = Instant::now();
    let conflicts = async || -> Result<u64> {
        let metrics = site.admin.get("/metrics").await?;
        let all = metrics.lines().filter(|l| {
            l.starts_with("adit_reconciler_reconcile_failures_total{")
                && l.contains("class=\"conflict\"")
        });
        let counts = all.filter_map(|l| l.rsplit(' ').next()?.parse::<u64>().ok());
        Ok(counts.sum())
    };
    ensure!(conflicts().await? == 0, "before the meddler there is none");
    for round in 0..4 {
        let service = if round % 2 == 0 { &other } else { &ground.web };
        let url = format!("http://{}", service.addr);
        let before = service.record.requests().len();
        site.proxy("web", "busy.test", json!([rule("/", "edge", &url)]))
            .await?;
        until("traffic at the new endpoint", async || {
            let answer = get(site.addr(), "busy.test", "/echo").await.ok()?;
            (answer.status == 200 && service.record.requests().len() > before).then_some(())
        })
        .await
        .with_context(|| format!("round {round}\n{}", site.last_words()))?;
    }
    let met = until("a conflict that the reconciler met", async || {
        let met = conflicts().await.ok()?;
        (met > 0).then_some(met)
    })
    .await
    .with_context(|| site.last_words())?;
    stop.store(true, Ordering::SeqCst);
    let writes = patiently("the meddler's end", async { meddler.await? }).await?;
    println!(
        "4 changes in {:?} against {writes} writes, {met} conflicts",
        began.elapsed()
    );
    site.until_true("web", "Programmed").await?;
    // And what the meddler took is put right.
    for kind in [Kind::HTTP_ROUTE, Kind::ENVOY_PATCH_POLICY, Kind::BACKEND] {
        let label = "networking.datumapis.com/route";
        let ours = |o: &Value| o["metadata"]["labels"][label] != "meddler";
        site.objects
            .until_list(kind, "conflicts", LABEL, "one, and ours", |all| {
                all.len() == 1 && ours(&all[0])
            })
            .await
            .with_context(|| site.last_words())?;
    }
    ground.site.end().await
}

/// Number 20. CONNECT belongs to one route; its neighbours on the Gateway, and
/// those with the same host name, stay what they are.
pub async fn beside_connect_everything_else_is_served(stack: &Stack) -> Result<()> {
    let mut ground = Ground::start(stack, "beside").await?;
    let echo = TcpService::start(Manner::Echo)?;
    let targets = json!([ground.web.addr.to_string(), echo.addr.to_string()]);
    ground.agent.set("targets", targets).reconfigure()?;
    let site = &ground.site;
    let port = echo.addr.port().to_string();
    site.until(Kind::CONNECTOR_ADVERTISEMENT, "edge", "both", |a| {
        a["spec"].to_string().contains(&port)
    })
    .await?;
    let web = rule("/", "edge", &ground.url());
    let tcp = tunnel("edge", &format!("tcp://{}", echo.addr));
    // Alone, with CONNECT of the same host name before and after it, and in one
    // HTTPProxy with it.
    site.proxy("alone", "alone.test", json!([web])).await?;
    site.proxy("both", "both.test", json!([tcp, web])).await?;
    site.proxy("tcp", "apart.test", json!([tcp])).await?;
    site.proxy("web", "apart.test", json!([web])).await?;
    for name in ["alone", "both", "tcp", "web"] {
        let proxy = site.until_true(name, "Programmed").await?;
        ensure!(is_true(&proxy, "Accepted"), "{proxy:#}");
    }
    for host in ["alone.test", "both.test", "apart.test"] {
        answers(site, host, 200).await?;
        for path in ["/", "/deep/er?x=1", "/download?bytes=10"] {
            let answer = get(site.addr(), host, path).await?;
            ensure!(answer.status == 200, "{host}{path}: {answer:?}");
        }
    }
    for (host, wanted) in [
        ("both.test", true),
        ("apart.test", true),
        ("alone.test", false),
    ] {
        let authority = format!("{host}:{}", echo.addr.port());
        let mut opened = connect::http1(site.addr(), &authority, b"ping").await?;
        ensure!((opened.status == 200) == wanted, "{host}: {}", opened.head);
        if wanted {
            let back = patiently("an echo", opened.read_exact(4)).await?;
            ensure!(back == b"ping", "{back:?}");
        }
    }
    envoy_took_everything(stack, site).await?;
    ground.site.end().await
}
