//! Targets by which somebody would reach what only the device, or the gateway,
//! should reach.
//!
//! End to end only with addresses of loopback, so that a promise that does not
//! hold sends nothing further: metadata addresses, DNS answers that change and
//! the gateway's own network stand in the tables beside `connector/src/service`
//! and `api/src/validate/http_proxy.rs`, where a connect is only written down.

use std::process::Command;

use adit_tests::{
    binaries,
    client::{
        connect,
        http::{Client, empty, get},
        patiently,
    },
    manifests::{self, Backend},
    services::{
        http::HttpService,
        tcp::{Manner, TcpService},
    },
    stage::Plan,
};
use anyhow::{Context as _, Result, ensure};
use http::Method;
use serde_json::{Value, json};

use crate::scenario::{Context, Scenario};

/// This part of the table.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "ssrf-connector",
        fault: "proxies that ask a connector with a wildcard for its own loopback, in each spelling",
        promise: "denied at the connector, its service sees no connection; what is listed is served",
        quick: true,
        run: |context| Box::pin(connector(context)),
    },
    Scenario {
        name: "ssrf-reconciler",
        fault: "proxies to metadata, link-local and unspecified addresses and to numbers that resolvers take for addresses",
        promise: "`adit check` refuses each by its field",
        quick: true,
        run: |_| Box::pin(reconciler()),
    },
];

/// What a client could have a proxy's author write; each is 127.0.0.0/8 or ::1
/// to some resolver.
const LOOPBACK: [&str; 8] = [
    "localhost",
    "LOCALHOST",
    "localhost.",
    "127.0.0.1",
    "127.8.9.10",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "[0:0:0:0:0:ffff:7f00:1]",
];

async fn connector(context: &Context) -> Result<String> {
    let secret = TcpService::start(Manner::Echo)?;
    let listed = HttpService::start()?;
    let port = secret.addr.port();
    // A wildcard for the port; of this machine the list has one service only.
    let targets = json!([format!("*:{port}"), listed.addr.to_string()]);
    let mut plan = Plan::of(&context.version)
        .option("targets", targets)
        .service("listed", format!("http://{}", listed.addr));
    for (n, host) in LOOPBACK.iter().enumerate() {
        plan = plan
            .service(&format!("http-{n}"), format!("http://{host}:{port}"))
            .service(&format!("tcp-{n}"), format!("tcp://{host}:{port}"));
    }
    let stage = plan.start().await?;
    let before = secret.record.connections();
    for (n, host) in LOOPBACK.iter().enumerate() {
        let mut client = Client::http1(stage.addr(), &format!("http-{n}.test")).await?;
        let accept = [("accept", "application/json")];
        let asked = client.send(Method::GET, "/", &accept, empty());
        let answer = patiently(host, asked).await?;
        ensure!(
            answer.status == 502 && answer.json()?["error"] == "denied",
            "{host}: {} {}",
            answer.status,
            answer.text()
        );
        let authority = format!("tcp-{n}.test:{port}");
        let tunnel = patiently(host, connect::http1(stage.addr(), &authority, b"")).await?;
        ensure!(tunnel.status == 502, "CONNECT to {host}: {}", tunnel.head);
    }
    ensure!(
        secret.record.connections() == before,
        "the service behind the wildcard got {} connections",
        secret.record.connections() - before
    );
    let answer = get(stage.addr(), "listed.test", "/echo").await?;
    ensure!(answer.status == 200, "what is listed: {}", answer.status);
    Ok(format!(
        "{} spellings, each by GET and CONNECT: all denied, no connection at the service",
        LOOPBACK.len()
    ))
}

/// Refused wherever the service is: at a device as well as at the gateway.
const NOWHERE: [&str; 26] = [
    "169.254.169.254",
    "169.254.170.2",
    "168.63.129.16",
    "100.100.100.200",
    "[fd00:ec2::254]",
    "[fe80::1]",
    "[::ffff:169.254.169.254]",
    "[::ffff:a9fe:a9fe]",
    "[::169.254.169.254]",
    "[64:ff9b::169.254.169.254]",
    "[2002:a9fe:a9fe::]",
    "[::127.0.0.1]",
    "0.0.0.0",
    "[::]",
    "224.0.0.1",
    "255.255.255.255",
    "2852039166",
    "2130706433",
    "0xa9fea9fe",
    "0x7f.0.0.1",
    "0177.0.0.1",
    "0251.0376.0251.0376",
    "127.1",
    "127.0.0.1.",
    "%31%32%37.0.0.1",
    "user@127.0.0.1",
];

async fn reconciler() -> Result<String> {
    let dir = tempfile::tempdir()?;
    let key = adit_tests::keys::Key::new(dir.path(), "device")?;
    let manifests = adit_tests::manifests::Manifests::new(&dir.path().join("manifests"))?;
    let device = manifests::connector("edge", "edge", &key.id, None, &[]);
    manifests.write("connector", &device)?;
    for (n, host) in NOWHERE.iter().enumerate() {
        for (kind, connector) in [("behind", true), ("here", false)] {
            let mut backend = Backend::through("edge", format!("\"http://{host}:80\""));
            if !connector {
                backend.via = None;
            }
            let name = format!("{kind}-{n}");
            manifests.proxy(&name, &format!("{name}.test"), &backend)?;
        }
    }
    let output = Command::new(binaries::adit()?)
        .arg("check")
        .arg("--json")
        .arg(&manifests.dir)
        .env_clear()
        .output()
        .context("run adit check")?;
    ensure!(!output.status.success(), "adit check found nothing");
    let found: Value = serde_json::from_slice(&output.stdout).context("its JSON")?;
    let diagnostics = found["diagnostics"].as_array().context("diagnostics")?;
    for (n, host) in NOWHERE.iter().enumerate() {
        for kind in ["behind", "here"] {
            let object = format!("HTTPProxy default/{kind}-{n}");
            let refused = diagnostics.iter().any(|d| {
                d["object"] == object
                    && d["severity"] == "error"
                    && d["field"] == "spec.rules[0].backends[0].endpoint"
            });
            ensure!(refused, "{host} ({kind}) passes");
        }
    }
    Ok(format!(
        "{} hosts, each behind a connector and without: all refused",
        NOWHERE.len()
    ))
}
