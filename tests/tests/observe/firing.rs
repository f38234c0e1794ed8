//! Each alert fires for what it is about and for nothing else, with made-up series
//! and the `for` of the file: an hour of one look a minute, by promtool's clock.

use std::{collections::BTreeSet, fs};

use adit_tests::{
    observed,
    prometheus::{self, promtool},
};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

/// The alert that fires, if any, and the series, in promtool's notation.
type Case = (&'static str, &'static [(&'static str, &'static str)]);

const CALM: &str = "";
const DEAD: &str = "0x60";
const ONE: &str = "1x60";
/// One more a minute.
const GROWS: &str = "0+1x60";

#[rustfmt::skip]
const CASES: &[Case] = &[
    ("AditRequestsFail", &[
        (r#"envoy_adit_requests_total{outcome="offline"}"#, "0+6x60"),
        (r#"envoy_adit_requests_total{outcome="answered"}"#, "0+94x60"),
    ]),
    ("AditRequestsFail", &[
        (r#"envoy_dynamicmodulescustom_requests_total{outcome="tls"}"#, "0+6x60"),
        (r#"envoy_dynamicmodulescustom_requests_total{outcome="answered"}"#, "0+94x60"),
    ]),
    (CALM, &[
        (r#"envoy_adit_requests_total{outcome="offline"}"#, "0+4x60"),
        (r#"envoy_adit_requests_total{outcome="answered"}"#, "0+96x60"),
    ]),
    // What the service, Envoy or the client did is no failure of a tunnel.
    (CALM, &[
        (r#"envoy_adit_requests_total{outcome="answered"}"#, GROWS),
        (r#"envoy_adit_requests_total{outcome="envoy"}"#, "0+9x60"),
        (r#"envoy_adit_requests_total{outcome="no_answer"}"#, "0+9x60"),
    ]),
    ("AditMisconfigured", &[
        (r#"envoy_adit_requests_total{outcome="misconfigured"}"#, GROWS),
        (r#"envoy_adit_requests_total{outcome="answered"}"#, "0+99x60"),
    ]),
    ("AditDialerUnreachable", &[
        (r#"envoy_adit_requests_total{outcome="internal"}"#, GROWS),
        (r#"envoy_adit_requests_total{outcome="answered"}"#, "0+99x60"),
    ]),
    ("AditCircuitBreaker", &[
        ("envoy_cluster_upstream_rq_pending_overflow", GROWS),
        ("envoy_cluster_upstream_rq_retry_overflow", DEAD),
    ]),
    ("AditProcessDown", &[("up", DEAD)]),
    (CALM, &[("up", ONE)]),
    ("AditConnectorOffline", &[(r#"adit_dialer_verdicts_total{outcome="offline"}"#, GROWS)]),
    ("AditServiceUnreachable", &[(r#"adit_dialer_verdicts_total{outcome="timeout"}"#, GROWS)]),
    ("AditDenied", &[(r#"adit_dialer_verdicts_total{outcome="denied"}"#, GROWS)]),
    ("AditOverloaded", &[(r#"adit_dialer_verdicts_total{outcome="overloaded"}"#, GROWS)]),
    (CALM, &[
        (r#"adit_dialer_verdicts_total{outcome="ok"}"#, GROWS),
        (r#"adit_dialer_verdicts_total{outcome="left"}"#, GROWS),
        (r#"adit_dialer_verdicts_total{outcome="offline"}"#, "7x60"),
    ]),
    ("AditKeyNotAllowed", &[
        (r#"adit_connector_connections_rejected_total{reason="not-allowed"}"#, GROWS),
    ]),
    ("AditConnectionLimit", &[
        (r#"adit_connector_connections_rejected_total{reason="handshake-limit"}"#, GROWS),
    ]),
    ("AditDialsSlow", &[
        (r#"adit_dialer_dial_seconds_bucket{le="2.0"}"#, "0+9x60"),
        (r#"adit_dialer_dial_seconds_bucket{le="5.0"}"#, "0+10x60"),
        (r#"adit_dialer_dial_seconds_bucket{le="+Inf"}"#, "0+10x60"),
    ]),
    (CALM, &[
        (r#"adit_dialer_dial_seconds_bucket{le="2.0"}"#, "0+98x60"),
        (r#"adit_dialer_dial_seconds_bucket{le="5.0"}"#, "0+100x60"),
        (r#"adit_dialer_dial_seconds_bucket{le="+Inf"}"#, "0+100x60"),
    ]),
    ("AditMostlyRelayed", &[("adit_dialer_links", "4x60"), ("adit_dialer_links_relayed", "3x60")]),
    (CALM, &[("adit_dialer_links", "4x60"), ("adit_dialer_links_relayed", "2x60")]),
    (CALM, &[("adit_dialer_links", DEAD), ("adit_dialer_links_relayed", DEAD)]),
    ("AditRelayGone", &[("adit_connector_relay_connected", DEAD)]),
    ("AditStreamsWait", &[("adit_dialer_queued", "3x60"), ("adit_connector_streams_queued", DEAD)]),
    ("AditStreamsWait", &[("adit_dialer_queued", DEAD), ("adit_connector_streams_queued", "3x60")]),
    // A line that empties again is what it is for.
    (CALM, &[("adit_dialer_queued", "0x57 3x3")]),
    ("AditDialerSocket", &[
        (r#"adit_dialer_preface_failures_total{outcome="invalid"}"#, GROWS),
        ("adit_dialer_accept_failures_total", DEAD),
    ]),
    ("AditDialerSocket", &[
        (r#"adit_dialer_preface_failures_total{outcome="invalid"}"#, DEAD),
        ("adit_dialer_accept_failures_total", GROWS),
    ]),
    ("AditReloadFailed", &[(r#"adit_connector_reloads_total{result="error"}"#, GROWS)]),
    ("AditNoLeader", &[
        (r#"adit_reconciler_leader{instance="a"}"#, DEAD),
        (r#"adit_reconciler_leader{instance="b"}"#, DEAD),
    ]),
    (CALM, &[
        (r#"adit_reconciler_leader{instance="a"}"#, DEAD),
        (r#"adit_reconciler_leader{instance="b"}"#, ONE),
    ]),
    ("AditReconcilesFail", &[
        (r#"adit_reconciler_reconcile_failures_total{kind="HTTPProxy",class="forbidden"}"#, GROWS),
    ]),
    (CALM, &[
        (r#"adit_reconciler_reconcile_failures_total{kind="HTTPProxy",class="conflict"}"#, GROWS),
    ]),
    ("AditWatchesEnd", &[(r#"adit_reconciler_watch_errors_total{kind="HTTPProxy"}"#, GROWS)]),
    // A watch ends now and then: once in ten minutes is nothing.
    (CALM, &[(r#"adit_reconciler_watch_errors_total{kind="HTTPProxy"}"#, "0+0.1x60")]),
    ("AditReconcilerStuck", &[
        (r#"adit_reconciler_queued{instance="a",kind="HTTPProxy"}"#, "5x60"),
        (r#"adit_reconciler_leader{instance="a"}"#, ONE),
    ]),
    // One that waits for the lead works nothing off.
    (CALM, &[
        (r#"adit_reconciler_queued{instance="a",kind="HTTPProxy"}"#, "5x60"),
        (r#"adit_reconciler_leader{instance="a"}"#, DEAD),
        (r#"adit_reconciler_leader{instance="b"}"#, ONE),
    ]),
    ("AditNotProgrammed", &[
        (r#"adit_reconciler_objects{kind="HTTPProxy",condition="Programmed",status="False"}"#, ONE),
    ]),
    (CALM, &[
        (r#"adit_reconciler_objects{kind="HTTPProxy",condition="Programmed",status="True"}"#, ONE),
        (r#"adit_reconciler_objects{kind="HTTPProxy",condition="Programmed",status="False"}"#, DEAD),
    ]),
    ("AditConnectorsNotReady", &[
        (r#"adit_reconciler_objects{kind="Connector",condition="Ready",status="False"}"#, ONE),
    ]),
    ("AditControlPlaneAway", &[("adit_dialer_control_plane_connected", DEAD)]),
    ("AditControlPlaneAway", &[("adit_connector_control_plane_connected", DEAD)]),
    ("AditAttention", &[("adit_dialer_control_plane_attention", ONE)]),
    ("AditAttention", &[("adit_connector_control_plane_attention", ONE)]),
    ("AditLeaseOld", &[("adit_dialer_control_plane_lease_age_seconds", "90x60")]),
    ("AditLeaseOld", &[("adit_connector_control_plane_lease_age_seconds", "90x60")]),
    (CALM, &[("adit_connector_control_plane_lease_age_seconds", "-1x60")]),
];

#[test]
fn each_alert_fires_for_its_fault_and_is_silent_otherwise() -> Result<()> {
    if !prometheus::is_there() {
        return Ok(());
    }
    let rules = observed::rules()?;
    let names: BTreeSet<_> = rules.iter().filter_map(|r| r["alert"].as_str()).collect();
    let made: BTreeSet<_> = CASES.iter().map(|(alert, _)| *alert).collect();
    let left_out: Vec<_> = names.difference(&made).collect();
    ensure!(left_out.is_empty(), "no case for {left_out:?}");

    let said = run(CASES)?;
    ensure!(said.is_empty(), "{said}");
    // Not only because promtool looks at nothing.
    let wrong: Case = ("AditProcessDown", &[("up", ONE)]);
    ensure!(!run(&[wrong])?.is_empty(), "a wrong case passes");
    Ok(())
}

/// What promtool finds wrong with the cases; nothing when all is right.
fn run(cases: &[Case]) -> Result<String> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("cases.json");
    let content = json!({
        "rule_files": [observed::file("alerts.yaml")],
        "evaluation_interval": "1m",
        "tests": cases.iter().map(case).collect::<Vec<_>>(),
    });
    fs::write(&path, serde_json::to_vec(&content)?)?;
    let said = promtool(&["test", "rules", path.to_str().context("a path")?])?;
    if said.status.success() {
        return Ok(String::new());
    }
    Ok(super::words(&said))
}

fn case((alert, series): &Case) -> Value {
    let input = series.iter().map(|(series, values)| {
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let job = match labels.contains("instance=") {
            true => r#"job="adit""#,
            false => r#"job="adit",instance="a""#,
        };
        json!({"series": format!("{name}{{{job},{labels}"), "values": values})
    });
    let firing = match *alert {
        CALM => json!([]),
        alert => json!([{"labels": format!("{{alertname={alert:?}}}"), "value": 1}]),
    };
    json!({
        "name": format!("{alert} {series:?}"),
        "interval": "1m",
        "input_series": input.collect::<Vec<_>>(),
        "promql_expr_test": [{
            "expr": r#"count by (alertname) (ALERTS{alertstate="firing"})"#,
            "eval_time": "60m",
            "exp_samples": firing,
        }],
    })
}
