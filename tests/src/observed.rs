//! The queries of `observe/`: the dashboard's and the alerts', and whether what
//! they name exists.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{binaries::root, process::until, prometheus::Prometheus, promql::Names};

/// A query and where it stands.
#[derive(Debug, Clone)]
pub struct Query {
    /// As in `panel "Dials" B`.
    pub place: String,
    /// In PromQL.
    pub expression: String,
}

impl Query {
    /// Whether only processes with a Kubernetes API have its metrics.
    pub fn needs_kubernetes(&self) -> bool {
        let kubernetes = ["adit_reconciler_", "_control_plane_"];
        kubernetes.iter().any(|part| self.expression.contains(part))
    }
}

/// A file of `observe/`.
pub fn file(name: &str) -> PathBuf {
    root().join("observe").join(name)
}

/// The dashboard.
pub fn dashboard() -> Result<Value> {
    Ok(serde_json::from_slice(&fs::read(file(
        "grafana-dashboard.json",
    ))?)?)
}

/// The alert rules, all groups in one list.
pub fn rules() -> Result<Vec<Value>> {
    let groups: Value = serde_saphyr::from_str(&fs::read_to_string(file("alerts.yaml"))?)?;
    let groups = groups["groups"].as_array().context("groups")?.clone();
    let rules = groups.iter().filter_map(|g| g["rules"].as_array());
    Ok(rules.flatten().cloned().collect())
}

/// The dashboard's queries, with what Grafana would write for its variables.
pub fn panels() -> Result<Vec<Query>> {
    let dashboard = dashboard()?;
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().context("panels")? {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"].as_str().context("expr")?;
            // Grafana makes it four scrapes at least.
            let expression = expression.replace("$__rate_interval", "4s");
            queries.push(Query {
                place: format!("panel {} {}", panel["title"], target["refId"]),
                expression: expression.replace("$instance", ".*"),
            });
        }
    }
    ensure!(
        queries.iter().all(|q| !q.expression.contains('$')),
        "a variable that Grafana gets from nowhere"
    );
    Ok(queries)
}

/// The alerts' queries.
pub fn alerts() -> Result<Vec<Query>> {
    let query = |rule: &Value| {
        Some(Query {
            place: format!("alert {}", rule["alert"]),
            expression: rule["expr"].as_str()?.to_owned(),
        })
    };
    rules()?
        .iter()
        .map(|rule| query(rule).context("an expr"))
        .collect()
}

/// Writes the rules with a `for` that tests can wait for.
pub fn hasty_rules(dir: &Path) -> Result<PathBuf> {
    let mut all: Value = serde_saphyr::from_str(&fs::read_to_string(file("alerts.yaml"))?)?;
    for group in all["groups"].as_array_mut().context("groups")? {
        for rule in group["rules"].as_array_mut().context("rules")? {
            rule["for"] = "1s".into();
        }
    }
    let path = dir.join("alerts.json");
    fs::write(&path, serde_json::to_vec_pretty(&all)?)?;
    Ok(path)
}

/// Runs a query; every metric, label and value that it names must exist. How
/// many series it gives.
pub async fn run(prometheus: &Prometheus, query: &Query) -> Result<usize> {
    let Query { place, expression } = query;
    let found = prometheus.query(expression).await;
    let found = found.with_context(|| format!("{place}: {expression}"))?;
    let names = Names::of(expression);
    ensure!(!names.selectors.is_empty(), "{place} selects nothing");
    let mut all = Vec::new();
    for selector in &names.selectors {
        let series = prometheus.series(&selector.text).await?;
        ensure!(
            !series.is_empty(),
            "{place}: nobody exports {}",
            selector.text
        );
        for label in &selector.labels {
            ensure!(
                series.iter().any(|s| s.get(label).is_some()),
                "{place}: {} has no label {label}",
                selector.text
            );
        }
        all.extend(series);
    }
    for label in &names.labels {
        ensure!(
            all.iter().any(|s| s.get(label).is_some()),
            "{place}: no label {label} to group by"
        );
    }
    Ok(found.len())
}

/// Runs queries until each of a panel's shows something, with traffic between.
pub async fn until_all(
    prometheus: &Prometheus,
    queries: &[Query],
    mut traffic: impl AsyncFnMut() -> Result<()>,
) -> Result<()> {
    for query in queries {
        traffic().await?;
        let mut last = run(prometheus, query).await;
        if query.place.starts_with("panel") {
            let found = until(&query.place, async || {
                if !matches!(last, Ok(1..)) {
                    // A rate needs two scrapes with an event between.
                    traffic().await.ok()?;
                    last = run(prometheus, query).await;
                }
                matches!(last, Ok(1..)).then_some(())
            });
            let found = found.await;
            found.with_context(|| format!("{}: {last:?}", query.expression))?;
        } else {
            last?;
        }
    }
    Ok(())
}
