//! Metrics: what dialer and connector serve when nothing has happened yet, and
//! what the reconciler and whoever talks to a Kubernetes API would serve.

use std::{fmt::Write as _, path::Path, process::Command, time::Duration};

use adit_control::{Class, Contact, Failure};
use adit_reconciler::kubernetes::metrics::{Metrics, Picture};
use anyhow::{Context, Result, ensure};
use prometheus_client::{encoding::text::encode, registry::Registry};

use super::{MADE, cell};
use crate::{admin::Admin, binaries, process::Process};

/// Processes that serve all of their metrics from the start, and what they need.
const PROCESSES: [(&str, &[&str]); 2] = [
    // One of them is there only with a relay, which need not answer.
    (
        "connector",
        &[
            "--targets",
            "127.0.0.1:1",
            "--allow",
            "any",
            "--relay",
            "http://127.0.0.1:1",
        ],
    ),
    ("dialer", &["--socket", "dialer.sock"]),
];

/// The page.
pub async fn page() -> Result<String> {
    let mut page = format!(
        "# Which metrics are there?\n\n{MADE}\nAs `/metrics` of each process serves them. Labels, what to \
         look at, and what Envoy serves: [observe.md](../observe.md).\n"
    );
    for (role, flags) in PROCESSES {
        let text = serve(role, flags).await.context(role)?;
        section(&mut page, &format!("`adit {role}`"), &text)?;
    }
    section(&mut page, "`adit reconciler`", &reconciler())?;
    let more = "`adit connector` and `adit dialer`, with a Kubernetes API";
    section(
        &mut page,
        more,
        &control_plane()?.replace("# HELP ", "# HELP …"),
    )?;
    Ok(page)
}

fn section(page: &mut String, heading: &str, text: &str) -> Result<()> {
    let mut rows: Vec<_> = rows(text).collect();
    ensure!(
        rows.len() > 4,
        "{heading} has only {} metrics:\n{text}",
        rows.len()
    );
    rows.sort();
    writeln!(page, "\n## {heading}\n\n| metric | type | |\n|---|---|---|")?;
    *page += &rows.concat();
    Ok(())
}

async fn serve(role: &str, flags: &[&str]) -> Result<String> {
    let dir = tempfile::Builder::new().prefix("adit-metrics-").tempdir()?;
    let admin = dir.path().join("admin.sock");
    let mut command = Command::new(binaries::adit()?);
    command
        .arg(role)
        .args(flags)
        .args(["--key-file", "key", "--bind", "127.0.0.1:0"])
        .arg("--admin")
        .arg(format!("unix:{}", admin.display()))
        .current_dir(dir.path())
        .env_clear();
    let mut process = Process::start(role, dir.path(), &mut command)?;
    let admin = Admin::from(Path::new(&admin));
    process
        .until("metrics", async || admin.get("/metrics").await.ok())
        .await
}

/// One of each, because what has not happened is not served.
fn reconciler() -> String {
    let metrics = Metrics::default();
    metrics.reconciled("kind", Duration::ZERO, Some(Class::Conflict));
    metrics.wrote("kind", "verb");
    metrics.watch_failed("kind");
    let mut picture = Picture::default();
    picture.queued.insert("kind".into(), 1);
    let condition = ("kind".into(), "condition".into(), "status".into());
    picture.conditions.insert(condition, 1);
    metrics.encode(&picture)
}

fn control_plane() -> Result<String> {
    let contact = Contact::new("namespace/name".into());
    let class = Class::Conflict;
    contact.failed(
        "step",
        Failure {
            class,
            text: "why".into(),
        },
    );
    contact.wrote("kind");
    let mut registry = Registry::default();
    contact.register(&mut registry);
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

/// A row for each `# HELP` with its `# TYPE`.
fn rows(text: &str) -> impl Iterator<Item = String> + '_ {
    text.lines().filter_map(move |line| {
        let (name, help) = line.strip_prefix("# HELP ")?.split_once(' ')?;
        let mut types = text.lines().filter_map(|line| {
            let (of, kind) = line.strip_prefix("# TYPE ")?.split_once(' ')?;
            (of == name.trim_start_matches('…')).then_some(kind)
        });
        let kind = types.next()?;
        // As it is written in a query.
        let suffix = if kind == "counter" { "_total" } else { "" };
        Some(format!("| `{name}{suffix}` | {kind} | {} |\n", cell(help)))
    })
}
