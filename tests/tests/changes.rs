//! The directory is edited while traffic flows.
//!
//! | edit | what must hold |
//! |---|---|
//! | new host, changed host, removed host, again and again | no request of another host fails |
//! | another target while verdicts are outstanding | every one of them is answered 200 |
//! | a route's file is removed | its tunnels end, others go on |
//! | an allowed dialer or a target is taken away at the connector | its tunnels are reset |
//! | a file becomes nonsense | the last good one serves on; the log names file and line |
//! | files that are no manifests, twice the same, or in conflict | the good ones serve on; the log names each |
//! | a connector's address | reached again, no Envoy connection dropped |
//! | a connector's address in DNS | reached again |

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use adit_tests::{
    client::{
        connect::{End, Http2, Http2Tunnel},
        http::{Client, get},
        patiently,
    },
    dns::Dns,
    envoy,
    fake_connector::{Asked, FakeConnector},
    manifests::{self, Backend},
    on_each_envoy,
    process::until,
    services::{
        http::HttpService,
        tcp::{Manner, TcpService},
    },
    stage::{EDGE, Plan, Stage},
};
use anyhow::{Context, Result, ensure};
use futures_util::future::join_all;
use serde_json::json;

on_each_envoy!(
    edits_under_load_lose_no_request_of_others,
    a_cluster_changed_under_load_with_verdicts_outstanding_loses_nothing,
    a_route_that_is_removed_ends_its_tunnels_and_no_others,
    what_the_connector_revokes_is_reset,
    a_file_that_becomes_nonsense_keeps_the_last_good_one,
    a_directory_full_of_nonsense_harms_nothing_that_is_good,
    a_device_on_a_new_address_is_reached_again_by_its_manifest,
    a_device_on_a_new_address_is_reached_again_by_dns,
);

/// Waits for an answer of a host.
async fn answers(stage: &Stage, host: &str, status: u16) -> Result<Duration> {
    let begun = Instant::now();
    until(&format!("{status} of {host}"), async || {
        let answer = get(stage.addr(), host, "/echo").await.ok()?;
        (answer.status == status).then_some(())
    })
    .await
    .with_context(|| stage.gateway.process.last_words())?;
    Ok(begun.elapsed())
}

async fn tunnel(stage: &Stage, authority: &str) -> Result<(Http2, Http2Tunnel)> {
    let client = Http2::connect(stage.addr()).await?;
    let mut tunnel = client.tunnel(authority).await?;
    ensure!(
        tunnel.status == 200,
        "CONNECT {authority}: {}",
        tunnel.status
    );
    still_works(&mut tunnel).await?;
    Ok((client, tunnel))
}

async fn still_works(tunnel: &mut Http2Tunnel) -> Result<()> {
    tunnel.send("hello").await?;
    let got = patiently("the echo", tunnel.read_at_least(5)).await?;
    ensure!(got == b"hello", "the tunnel said {got:?}");
    Ok(())
}

async fn is_reset(tunnel: &mut Http2Tunnel) -> Result<()> {
    let cut = async { Ok(tunnel.read_to_end().await) };
    let (_, end) = patiently("the end of the tunnel", cut).await?;
    ensure!(
        matches!(end, End::Reset(_)),
        "a revoked tunnel ended {end:?}"
    );
    Ok(())
}

async fn edits_under_load_lose_no_request_of_others(version: &str) -> Result<()> {
    let stage = Plan::of(version).start().await?;
    let (_client, mut held) = tunnel(&stage, &stage.echo_authority()).await?;
    let done = AtomicBool::new(false);
    let sent = AtomicUsize::new(0);
    let load = async |n: u64| {
        let mut client = Client::http1(stage.addr(), "web.test").await?;
        while !done.load(Ordering::SeqCst) {
            let answer = client.get("/echo").await?;
            ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
            if n == 0 {
                client.upload(n, 200_000).await?;
            }
            sent.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    };
    let edits = async {
        let manifests = &stage.gateway.manifests;
        let other = HttpService::start()?;
        let result = async {
            for round in 0..4 {
                let host = format!("new-{round}.test");
                let name = format!("new-{round}");
                // Through Envoy itself, then through the connector.
                let direct = Backend {
                    via: None,
                    ..Backend::through(EDGE, format!("http://{}", other.addr))
                };
                manifests.proxy(&name, &host, &direct)?;
                let through = Backend::through(EDGE, format!("http://{}", stage.web.addr));
                manifests.proxy("moving", "moving.test", &through)?;
                answers(&stage, "moving.test", 200).await?;
                manifests.remove("moving")?;
                answers(&stage, "moving.test", 404).await?;
                manifests.remove(&name)?;
            }
            anyhow::Ok(())
        };
        let result = result.await;
        done.store(true, Ordering::SeqCst);
        result
    };
    let (edited, loads) = tokio::join!(edits, join_all((0..4).map(load)));
    edited?;
    loads.into_iter().collect::<Result<()>>()?;
    still_works(&mut held)
        .await
        .context("the tunnel that stood all along")?;
    println!("{} requests during the edits", sent.load(Ordering::SeqCst));
    Ok(())
}

async fn a_cluster_changed_under_load_with_verdicts_outstanding_loses_nothing(
    version: &str,
) -> Result<()> {
    let stage = Plan::of(version).start().await?;
    let slow = async |asked: Asked| {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        asked.serve().await
    };
    let first = FakeConnector::start(slow).await?;
    let second = FakeConnector::start(slow).await?;
    stage.add_fake("slow", &first.id, first.addr)?;
    answers(&stage, "slow.test", 200).await?;
    let before = first.streams.load(Ordering::SeqCst);
    let addr = stage.addr();
    let asked = (0..20).map(|_| async move {
        let mut client = Client::http1(addr, "slow.test").await?;
        let answer = patiently("an answer", client.get("/")).await?;
        ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
        // The same client goes on after the change.
        let answer = patiently("another answer", client.get("/")).await?;
        ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
        Ok(())
    });
    let change = async {
        until("outstanding verdicts", async || {
            (first.streams.load(Ordering::SeqCst) > before).then_some(())
        })
        .await?;
        // Another connector under the same name: another target.
        stage.add_fake("slow", &second.id, second.addr)?;
        until("a stream at the second", async || {
            let _ = get(addr, "slow.test", "/").await;
            (second.streams.load(Ordering::SeqCst) > 0).then_some(())
        })
        .await
    };
    let (changed, answers) = tokio::join!(change, join_all(asked));
    changed?;
    answers.into_iter().collect()
}

async fn a_route_that_is_removed_ends_its_tunnels_and_no_others(version: &str) -> Result<()> {
    let other = TcpService::start(Manner::Echo)?;
    let stage = Plan::of(version)
        .service("other", format!("tcp://{}", other.addr))
        .env("ADIT_DRAIN_TIMEOUT", "500ms")
        .start()
        .await?;
    let (_stays, mut stays) = tunnel(&stage, &stage.echo_authority()).await?;
    let authority = format!("other.test:{}", other.addr.port());
    let (_goes, mut goes) = tunnel(&stage, &authority).await?;
    let begun = Instant::now();
    stage.gateway.manifests.remove("other")?;
    is_reset(&mut goes).await?;
    println!(
        "the removed route's tunnel ended after {:?}",
        begun.elapsed()
    );
    still_works(&mut stays).await?;
    until("end at the service", async || {
        (other.record.open() == 0).then_some(())
    })
    .await
}

async fn what_the_connector_revokes_is_reset(version: &str) -> Result<()> {
    let other = TcpService::start(Manner::Echo)?;
    let mut stage = Plan::of(version)
        .service("other", format!("tcp://{}", other.addr))
        .start()
        .await?;
    let (_stays, mut stays) = tunnel(&stage, &stage.echo_authority()).await?;
    let authority = format!("other.test:{}", other.addr.port());
    let (_goes, mut goes) = tunnel(&stage, &authority).await?;

    // A target.
    let fewer: Vec<_> = stage
        .targets
        .iter()
        .filter(|t| **t != other.addr.to_string())
        .collect();
    let fewer = json!(fewer);
    let begun = Instant::now();
    stage.connector.set("targets", fewer).reconfigure()?;
    is_reset(&mut goes).await?;
    println!("a target's tunnel was reset after {:?}", begun.elapsed());
    still_works(&mut stays).await?;
    let client = Http2::connect(stage.addr()).await?;
    let refused = client.tunnel(&authority).await?;
    ensure!(
        refused.status == 502,
        "a revoked target: {}",
        refused.status
    );

    // The dialer.
    let begun = Instant::now();
    stage.connector.set("allow", json!([])).reconfigure()?;
    is_reset(&mut stays).await?;
    println!("a dialer's tunnel was reset after {:?}", begun.elapsed());
    let answer = get(stage.addr(), "web.test", "/echo").await?;
    ensure!(answer.status.is_server_error(), "{}", answer.status);

    // And given back.
    let allow = json!([stage.dialer.id]);
    stage.connector.set("allow", allow).reconfigure()?;
    answers(&stage, "web.test", 200).await?;
    Ok(())
}

async fn a_file_that_becomes_nonsense_keeps_the_last_good_one(version: &str) -> Result<()> {
    let stage = Plan::of(version).start().await?;
    answers(&stage, "web.test", 200).await?;
    let manifests = &stage.gateway.manifests;
    manifests.write("web", "kind: HTTPProxy\nspec:\n  rules: [\n")?;
    // Something good at the same time is taken.
    let good = Backend::through(EDGE, format!("http://{}", stage.web.addr));
    manifests.proxy("good", "good.test", &good)?;
    answers(&stage, "good.test", 200).await?;
    ensure!(get(stage.addr(), "web.test", "/echo").await?.status == 200);
    let log = stage.gateway.process.log();
    ensure!(
        log.contains("web.yaml:"),
        "no file and line in the log: {log}"
    );
    // Whole again.
    manifests.proxy("web", "web.test", &good)?;
    manifests.remove("good")?;
    answers(&stage, "good.test", 404).await?;
    ensure!(get(stage.addr(), "web.test", "/echo").await?.status == 200);
    Ok(())
}

async fn a_directory_full_of_nonsense_harms_nothing_that_is_good(version: &str) -> Result<()> {
    let stage = Plan::of(version).start().await?;
    answers(&stage, "web.test", 200).await?;
    let (_client, mut held) = tunnel(&stage, &stage.echo_authority()).await?;
    let manifests = &stage.gateway.manifests;
    let dir = &manifests.dir;
    let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, dir.join(name));
    link("round.yaml", "round.yaml")?;
    link("/nowhere/at/all.yaml", "dangling.yaml")?;
    link(".", "inside")?;
    std::fs::write(dir.join("binary.yaml"), [0xff_u8, 0xfe, 0, 1, 2])?;
    std::fs::write(dir.join("huge.yaml"), vec![b'#'; 64 << 20])?;
    manifests.write(
        "unknown",
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: x\n",
    )?;
    let good = Backend::through(EDGE, format!("http://{}", stage.web.addr));
    // The same object again, and another that claims the same hostname.
    let again = manifests::proxy("web", "web.test", std::slice::from_ref(&good));
    manifests.write("zz-again", &again)?;
    let elsewhere = Backend::through(EDGE, "http://127.0.0.1:9".to_owned());
    manifests.proxy("zz-conflict", "web.test", &elsewhere)?;
    // A connector that nobody knows, and UDP, which is not carried yet.
    let nobody = Backend::through("nobody", "http://127.0.0.1:80".to_owned());
    manifests.proxy("zz-nobody", "nobody.test", &nobody)?;
    let udp = Backend::through(EDGE, "udp://127.0.0.1:53".to_owned());
    manifests.proxy("zz-udp", "udp.test", &udp)?;
    // Written last: when it works, all of the above was looked at.
    manifests.proxy("zzz-good", "good.test", &good)?;
    answers(&stage, "good.test", 200).await?;
    ensure!(get(stage.addr(), "web.test", "/echo").await?.status == 200);
    answers(&stage, "nobody.test", 500).await?;
    still_works(&mut held).await?;
    let log = stage.gateway.process.log();
    for said in [
        "round.yaml",
        "dangling.yaml",
        "binary.yaml",
        "huge.yaml",
        "zz-again.yaml:",
        "zz-conflict.yaml:",
        "zz-nobody.yaml:",
        "zz-udp.yaml:",
    ] {
        ensure!(log.contains(said), "nothing is said of {said}: {log}");
    }
    Ok(())
}

async fn a_device_on_a_new_address_is_reached_again_by_its_manifest(version: &str) -> Result<()> {
    let mut stage = Plan::of(version).start().await?;
    answers(&stage, "web.test", 200).await?;
    let updates = envoy::stat(&stage.gateway.envoy, "cluster_manager.cluster_modified").await?;
    stage.connector.kill()?;
    stage.connector.start().await?;
    stage.hint(&stage.connector.bound().await?)?;
    let took = answers(&stage, "web.test", 200).await?;
    println!("reached {took:?} after the manifest knew");
    let after = envoy::stat(&stage.gateway.envoy, "cluster_manager.cluster_modified").await?;
    ensure!(
        updates == after,
        "an address changed {} clusters",
        after - updates
    );
    Ok(())
}

async fn a_device_on_a_new_address_is_reached_again_by_dns(version: &str) -> Result<()> {
    let dns = Dns::start().await?;
    let mut plan = Plan::of(version)
        .env("ADIT_DNS_ORIGIN", "connect.test")
        .env("ADIT_DNS_RESOLVER", dns.addr);
    plan.hints = false;
    let mut stage = plan.start().await?;
    let name = format!("_iroh.{}.connect.test", stage.connector.key.z32);
    // Nobody knows it: offline, and not for ever.
    ensure!(get(stage.addr(), "web.test", "/echo").await?.status == 503);
    let publish = |addr: std::net::SocketAddr| {
        let good = format!("addr={addr}");
        // Keys that nobody knows, and a dead address, must not hurt.
        dns.set(&name, &["ver=7", "nonsense", "addr=127.0.0.1:9", &good]);
    };
    publish(stage.connector.bound().await?[0]);
    let took = answers(&stage, "web.test", 200).await?;
    println!("reached {took:?} after DNS knew");
    stage.connector.kill()?;
    stage.connector.start().await?;
    publish(stage.connector.bound().await?[0]);
    let took = answers(&stage, "web.test", 200).await?;
    println!("reached {took:?} after DNS knew the new address");
    ensure!(dns.queries() > 0);
    Ok(())
}
