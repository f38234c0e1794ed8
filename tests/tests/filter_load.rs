//! What a connection carries: the transport socket in real Envoy with a dialer
//! that does as it is told.
//!
//! | what | how |
//! |---|---|
//! | large bodies | both ways at once, over HTTP/1.1 and HTTP/2 |
//! | many connections | all waiting for a verdict at once |
//! | back-pressure | a reader that stalls, on either side |
//! | health checks | HTTP/1.1, HTTP/2 and TCP; they run on Envoy's main thread |

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use adit_tests::{
    client::{connect, http::Client, patiently},
    filter_stage::{FakeDialer, Opened, start_each, unchanged},
    on_each_envoy,
    pattern::{Hasher, Pattern},
    process,
    services::http::HttpService,
};
use adit_wire::ErrorClass;
use anyhow::{Result, bail};
use futures_util::future::try_join_all;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::Notify,
    time::timeout,
};

on_each_envoy!(
    large_bodies_pass_whole_over_both_protocols,
    many_connections_open_at_once,
    a_stalled_reader_stops_the_writer,
    health_checks_go_all_the_way,
);

async fn request_head(opened: &mut Opened) -> Result<()> {
    let mut got = Vec::new();
    while !got.ends_with(b"\r\n\r\n") {
        if opened.stream.read_buf(&mut got).await? == 0 {
            bail!("no whole request");
        }
    }
    Ok(())
}

async fn large_bodies_pass_whole_over_both_protocols(version: &str) -> Result<()> {
    const LEN: u64 = 48 << 20;
    let dir = tempfile::tempdir()?;
    let web = HttpService::start()?;
    let service = web.addr;
    let _dialer = FakeDialer::start(&dir.path().join("dialer.sock"), move |opened| {
        opened.join(service)
    })?;
    let (_envoy, addr) = start_each(version, dir.path(), &["h1", "h2"], unchanged).await?;
    for host in ["h1.test", "h2.test"] {
        let both = async {
            let down = async {
                let path = format!("/download?bytes={LEN}&seed=3");
                let mut client = Client::http1(addr, host).await?;
                let got = client.download(&path).await?;
                assert_eq!((got.len, got.sha256), (LEN, Pattern::sha256(3, LEN)));
                Ok(())
            };
            let up = async { Client::http2(addr, host).await?.upload(4, LEN).await };
            tokio::try_join!(down, up)
        };
        patiently(host, both).await?;
    }
    Ok(())
}

async fn many_connections_open_at_once(version: &str) -> Result<()> {
    const MANY: usize = 300;
    let dir = tempfile::tempdir()?;
    let waiting = Arc::new(AtomicUsize::new(0));
    let all = Arc::new(Notify::new());
    let state = (waiting.clone(), all.clone());
    let _dialer = FakeDialer::start(&dir.path().join("dialer.sock"), move |mut opened| {
        let (waiting, all) = state.clone();
        async move {
            // No verdict until every connection waits for one.
            let notified = all.notified();
            if waiting.fetch_add(1, Ordering::SeqCst) + 1 == MANY {
                all.notify_waiters();
            } else {
                notified.await;
            }
            opened.accept().await?;
            request_head(&mut opened).await?;
            // It ends after one answer and says so: Envoy may give a waiting
            // request to any connection that is free.
            let answer = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok";
            opened.stream.write_all(answer).await?;
            opened.end().await
        }
    })?;
    // Reached only by a hang.
    let patient = |cluster: &mut Value| cluster["connect_timeout"] = json!("300s");
    let (_envoy, addr) = start_each(version, dir.path(), &["a"], patient).await?;
    let requests = (0..MANY).map(|_| async move {
        let mut client = Client::http1(addr, "a.test").await?;
        Ok::<_, anyhow::Error>(client.get("/").await?.text())
    });
    let answers = patiently("all answers", try_join_all(requests)).await?;
    let others: Vec<_> = answers.iter().filter(|a| *a != "ok").collect();
    assert!(
        others.is_empty(),
        "{} are not: {:?}",
        others.len(),
        others[0]
    );
    Ok(())
}

/// Processor time of a process so far.
fn cpu(pid: u32) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<_> = stat
        .rsplit_once(')')
        .map_or("", |(_, rest)| rest)
        .split_whitespace()
        .collect();
    // utime and stime are fields 14 and 15 of proc(5), in ticks of 10 ms.
    let ticks = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    Ok(Duration::from_millis(ticks * 10))
}

async fn a_stalled_reader_stops_the_writer(version: &str) -> Result<()> {
    const LEN: u64 = 96 << 20;
    const BOUND: u64 = 48 << 20;
    const QUIET: Duration = Duration::from_millis(700);
    let dir = tempfile::tempdir()?;
    let go = Arc::new(Notify::new());
    let (stalled_at, hash) = (
        Arc::new(AtomicUsize::new(0)),
        Arc::new(std::sync::Mutex::new(String::new())),
    );
    let shared = (go.clone(), stalled_at.clone(), hash.clone());
    let _dialer = FakeDialer::start(&dir.path().join("dialer.sock"), move |mut opened| {
        let (go, stalled_at, hash) = shared.clone();
        async move {
            opened.accept().await?;
            if opened.target.name == "up" {
                go.notified().await;
                let mut hasher = Hasher::default();
                let mut buffer = vec![0; 1 << 18];
                while hasher.len() < LEN {
                    let n = opened.stream.read(&mut buffer).await?;
                    if n == 0 {
                        bail!("ended after {} bytes", hasher.len());
                    }
                    hasher.update(&buffer[..n]);
                }
                *hash.lock().expect("not poisoned") = hasher.finish();
                opened.stream.write_all(b"done").await?;
                return opened.end().await;
            }
            let mut pattern = Pattern::new(6);
            let mut written = 0;
            while written < LEN {
                let piece = pattern.next_piece(LEN - written);
                let mut at = 0;
                while at < piece.len() {
                    let write = opened.stream.write(&piece[at..]);
                    tokio::pin!(write);
                    at += match timeout(QUIET, &mut write).await {
                        Ok(n) => n?,
                        Err(_) => {
                            stalled_at.store(written as usize + at, Ordering::SeqCst);
                            go.notify_one();
                            write.await?
                        }
                    };
                }
                written += piece.len() as u64;
            }
            opened.end().await
        }
    })?;
    let (envoy, addr) = start_each(version, dir.path(), &["up", "down"], unchanged).await?;

    let up = async {
        let mut tunnel = connect::http1(addr, "up.test:7777", b"").await?;
        assert_eq!(tunnel.status, 200);
        let mut pattern = Pattern::new(5);
        let (mut written, mut stalled) = (0, None);
        while written < LEN {
            let piece = pattern.next_piece(LEN - written);
            let mut at = 0;
            while at < piece.len() {
                let write = tunnel.tcp.write(&piece[at..]);
                tokio::pin!(write);
                at += match timeout(QUIET, &mut write).await {
                    Ok(n) => n?,
                    Err(_) => {
                        stalled.get_or_insert(written + at as u64);
                        let before = cpu(envoy.process.pid())?;
                        tokio::time::sleep(QUIET).await;
                        let spent = cpu(envoy.process.pid())? - before;
                        println!("upload stalled: Envoy used {spent:?} of {QUIET:?}");
                        go.notify_one();
                        write.await?
                    }
                };
            }
            written += piece.len() as u64;
        }
        assert_eq!(tunnel.read_exact(4).await?, b"done");
        Ok(stalled)
    };
    let stalled = patiently("the upload", up).await?.expect("it stalled");
    println!("upload: {stalled} bytes before the reader read");
    assert!(stalled < BOUND, "{stalled} bytes were buffered");
    assert_eq!(*hash.lock().expect("not poisoned"), Pattern::sha256(5, LEN));

    let down = async {
        let mut tunnel = connect::http1(addr, "down.test:7777", b"").await?;
        assert_eq!(tunnel.status, 200);
        go.notified().await;
        let mut hasher = Hasher::default();
        hasher.update(&tunnel.early);
        let mut buffer = vec![0; 1 << 18];
        while hasher.len() < LEN {
            let n = tunnel.tcp.read(&mut buffer).await?;
            if n == 0 {
                bail!("ended after {} bytes", hasher.len());
            }
            hasher.update(&buffer[..n]);
        }
        assert_eq!(hasher.finish(), Pattern::sha256(6, LEN));
        Ok(())
    };
    patiently("the download", down).await?;
    let stalled = stalled_at.load(Ordering::SeqCst) as u64;
    println!("download: {stalled} bytes before the reader read");
    assert!(stalled > 0 && stalled < BOUND, "{stalled} bytes buffered");
    let rss = envoy.process.rss()?;
    println!("Envoy's memory after both: {} MiB", rss >> 20);
    Ok(())
}

async fn health_checks_go_all_the_way(version: &str) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let web = HttpService::start()?;
    let service = web.addr;
    let up = Arc::new(AtomicBool::new(false));
    let state = up.clone();
    let _dialer = FakeDialer::start(&dir.path().join("dialer.sock"), move |opened| {
        let up = state.load(Ordering::SeqCst);
        async move {
            match up {
                false => opened.refuse(ErrorClass::Offline).await,
                true => opened.join(service).await,
            }
        }
    })?;
    let change = |cluster: &mut Value| {
        let mut check = json!({
            "timeout": "5s", "interval": "0.05s", "no_traffic_interval": "0.05s",
            "unhealthy_interval": "0.05s", "no_traffic_healthy_interval": "0.05s",
            "unhealthy_threshold": 1, "healthy_threshold": 1,
        });
        match cluster["name"].as_str() {
            Some("tcp") => check["tcp_health_check"] = json!({}),
            _ => check["http_health_check"] = json!({"path": "/echo", "host": "check.test"}),
        }
        cluster["health_checks"] = json!([check]);
        cluster["common_lb_config"] = json!({"healthy_panic_threshold": {"value": 0.0}});
    };
    let names = ["http", "h2", "tcp"];
    // `h2` speaks HTTP/2 to its service, also in the check.
    let (envoy, addr) = start_each(version, dir.path(), &names, |cluster| {
        change(cluster);
        if cluster["name"] == "h2" {
            cluster["health_checks"][0]["http_health_check"]["codec_client_type"] = json!("HTTP2");
        }
    })
    .await?;
    let until = async |what: &str, least: u64| -> Result<()> {
        for name in names {
            let stat = format!("cluster.{name}.{what}");
            process::until(&stat, async || {
                (envoy.stat(&stat).await.ok()? >= least).then_some(())
            })
            .await?;
        }
        Ok(())
    };
    until("health_check.failure", 2).await?;
    for name in names {
        assert_eq!(
            envoy
                .stat(&format!("cluster.{name}.membership_healthy"))
                .await?,
            0
        );
    }
    up.store(true, Ordering::SeqCst);
    until("membership_healthy", 1).await?;
    for name in names {
        let mut client = Client::http1(addr, &format!("{name}.test")).await?;
        let answer = patiently(name, client.get("/echo")).await?;
        assert_eq!(answer.status, 200, "{name}");
    }
    Ok(())
}
