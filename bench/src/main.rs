//! Envoy to a service through Adit, beside the same Envoy to the same service
//! over TCP: in one run, round by round, so that a noisy machine troubles both
//! alike. Read the ratios and the CPU times; single times mean little.
//!
//! `cargo run --release -p adit-bench` measures what is in `target/release`:
//! build that first with `cargo build --release`.

mod cpu;
mod load;

use std::time::Duration;

use adit_tests::{
    bare::{self, Dialer},
    binaries,
    connector::Connector,
    envoy::{self, Envoy},
    keys::Key,
    services::http::HttpService,
};
use anyhow::{Context as _, Result};
use clap::Parser;
use serde_json::json;

use crate::{
    cpu::Cpu,
    load::{Bulk, Requests},
};

/// Measures Adit beside plain TCP through one Envoy.
#[derive(Parser)]
struct Cli {
    /// Envoy's version
    #[arg(long, default_value = binaries::ENVOYS[1])]
    envoy_version: String,
    /// Rounds; the medians are shown
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Seconds of small requests in each round and variant
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// MiB down, and up, in each round and variant
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..=4096))]
    mib: u64,
    /// Connections of the client
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    connections: u16,
    /// One JSON object for each variant and workload
    #[arg(long)]
    json: bool,
}

/// The hosts, each a way to the same service. The first is what the others are
/// compared with.
const VARIANTS: [(&str, &str); 4] = [
    ("tcp-h1", "Envoy → TCP, HTTP/1.1"),
    ("adit-h1", "Envoy → Adit, HTTP/1.1"),
    ("tcp-h2", "Envoy → TCP, HTTP/2"),
    ("adit-h2", "Envoy → Adit, HTTP/2"),
];

fn main() -> Result<()> {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(run(&cli))
}

async fn run(cli: &Cli) -> Result<()> {
    let dir = tempfile::Builder::new().prefix("adit-bench-").tempdir()?;
    let service = HttpService::start()?;
    let dialer_key = Key::new(dir.path(), "dialer")?;
    let at = service.addr.to_string();
    let mut connector = Connector::new(
        dir.path(),
        "edge",
        &[&dialer_key.id],
        std::slice::from_ref(&at),
    )?;
    connector.start().await?;
    let addr = *connector
        .bound()
        .await?
        .first()
        .context("a bound address")?;
    let hints = [(connector.key.id.as_str(), addr)];
    let dialer = Dialer::start(dir.path(), &dialer_key, &hints, &[]).await?;

    let target = bare::target(&[&connector.key.id], &at, Duration::from_secs(10))?;
    let mut hosts = Vec::new();
    let mut clusters = Vec::new();
    for (name, _) in VARIANTS {
        let h2 = name.ends_with("h2");
        let mut route = envoy::prefix_route(name);
        if name.starts_with("adit") {
            route["metadata"] = bare::metadata(&target, false);
            clusters.push(bare::cluster(name, &dialer.socket, &target, h2)?);
        } else {
            clusters.push(envoy::tcp_cluster(name, service.addr, h2));
        }
        hosts.push(envoy::virtual_host(
            name,
            &[&format!("{name}.test")],
            &[route],
        ));
    }
    let listener = envoy::http_listener("main", &json!(hosts), &[bare::filter()?]);
    let resources = json!({"listeners": [listener], "clusters": clusters});
    let envoy = Envoy::start(&cli.envoy_version, dir.path(), 1, &resources).await?;
    let at = envoy.listener("main").await?;

    let pids = [
        envoy.process.pid(),
        dialer.process.pid(),
        connector.process()?.pid(),
    ];
    let mut requests: Vec<Vec<Requests>> = vec![Vec::new(); VARIANTS.len()];
    let mut down: Vec<Vec<Bulk>> = vec![Vec::new(); VARIANTS.len()];
    let mut up: Vec<Vec<Bulk>> = vec![Vec::new(); VARIANTS.len()];
    for round in 0..=cli.rounds {
        for (i, (name, _)) in VARIANTS.iter().enumerate() {
            let host = format!("{name}.test");
            let span = Duration::from_secs(cli.seconds);
            let r = load::requests(at, &host, cli.connections, span, &pids).await?;
            let d = load::download(at, &host, cli.mib, &pids).await?;
            let u = load::upload(at, &host, cli.mib, &pids).await?;
            // The first round warms up connections, caches and congestion windows.
            if round > 0 {
                requests[i].push(r);
                down[i].push(d);
                up[i].push(u);
            }
            eprint!(".");
        }
    }
    eprintln!();
    show(cli, &requests, &down, &up)
}

fn show(cli: &Cli, requests: &[Vec<Requests>], down: &[Vec<Bulk>], up: &[Vec<Bulk>]) -> Result<()> {
    if !cli.json {
        println!(
            "Envoy {}, 1 worker; {} rounds; medians; {} connections, GET of {} s; {} MiB each way",
            cli.envoy_version, cli.rounds, cli.connections, cli.seconds, cli.mib
        );
        println!("CPU is Envoy + dialer + connector.\n");
        println!(
            "{:<24} {:>9} {:>6} {:>9} {:>9} {:>20} | {:>8} {:>17} | {:>8} {:>17}",
            "",
            "req/s",
            "ratio",
            "p50 ms",
            "p99 ms",
            "CPU µs/request",
            "down MB/s",
            "CPU s/GB",
            "up MB/s",
            "CPU s/GB"
        );
    }
    for (i, (name, title)) in VARIANTS.iter().enumerate() {
        let rate = median(requests[i].iter().map(|r| r.per_second));
        // Each pair of variants: plain TCP first, Adit second.
        let plain = i - i % 2;
        let ratio = median(
            requests[i]
                .iter()
                .zip(&requests[plain])
                .map(|(a, b)| a.per_second / b.per_second),
        );
        let p50 = median(requests[i].iter().map(|r| r.p50_ms));
        let p99 = median(requests[i].iter().map(|r| r.p99_ms));
        let cost = Cpu::median(requests[i].iter().map(|r| r.cpu_us));
        let [(d, dc), (u, uc)] = [&down[i], &up[i]].map(|bulks| {
            (
                median(bulks.iter().map(|b| b.mb_per_second)),
                Cpu::median(bulks.iter().map(|b| b.cpu_per_gb)),
            )
        });
        if cli.json {
            println!(
                "{}",
                json!({
                    "name": name, "envoy": cli.envoy_version, "rounds": cli.rounds,
                    "requestsPerSecond": rate, "ratio": ratio, "p50Ms": p50, "p99Ms": p99,
                    "cpuMicrosPerRequest": cost.json(),
                    "downMBPerSecond": d, "downCpuSecondsPerGB": dc.json(),
                    "upMBPerSecond": u, "upCpuSecondsPerGB": uc.json(),
                })
            );
        } else {
            println!(
                "{title:<24} {rate:>9.0} {ratio:>6.2} {p50:>9.2} {p99:>9.2} {:>20} | {d:>9.0} {:>17} | {u:>8.0} {:>17}",
                cost.show(0),
                dc.show(2),
                uc.show(2)
            );
        }
    }
    Ok(())
}

/// The middle value; 0 of none.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
