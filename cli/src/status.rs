//! `adit status`: a running process as a table.

use std::{fmt::Write as _, process::ExitCode, time::Duration};

use adit_tunnel::{
    admin::AdminAddr,
    status::{PathKind, Peer, PeerState, Role, Status},
};
use anyhow::{Context as _, bail};
use clap::Args;

use crate::http;

#[derive(Args)]
pub(crate) struct StatusArgs {
    /// The process's admin address: IP:PORT or unix:PATH
    #[arg(long, env = "ADIT_ADMIN", default_value = "127.0.0.1:9901")]
    admin: AdminAddr,
    /// Print the answer as it came
    #[arg(long)]
    json: bool,
    /// Print again every second
    #[arg(long, conflicts_with = "json")]
    watch: bool,
}

pub(crate) fn main(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        loop {
            let (code, body) = http::get(&args.admin, "/status").await.context(
                "is it running, and is this its admin address? (--admin, or ADIT_ADMIN)",
            )?;
            if code != 200 {
                bail!("{} answered with status {code}", args.admin);
            }
            if args.json {
                println!("{}", String::from_utf8_lossy(&body).trim_end());
                return Ok(ExitCode::SUCCESS);
            }
            let status: Status =
                serde_json::from_slice(&body).context("the answer is no status of this version")?;
            if args.watch {
                print!("\x1b[2J\x1b[H");
            }
            print!("{}", table(&status));
            if !args.watch {
                return Ok(ExitCode::SUCCESS);
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    })
}

fn table(status: &Status) -> String {
    let role = match status.role {
        Role::Dialer => "dialer",
        Role::Connector => "connector",
    };
    let ready = if status.ready { "ready" } else { "not ready" };
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{role} {}\n{ready} for {}, version {}, {} streams open, {} waiting",
        status.endpoint_id,
        shown_seconds(status.uptime_seconds),
        status.version,
        status.streams,
        status.queued
    );
    if let Some(relay) = &status.relay {
        let state = match (relay.connected, &relay.last_error) {
            (true, _) => "connected".to_owned(),
            (false, Some(error)) => format!("not connected: {error}"),
            (false, None) => "not connected".to_owned(),
        };
        let _ = writeln!(text, "relay {} {state}", relay.url);
    }
    if let Some(control) = &status.control_plane {
        let state = match (control.connected, control.lease_renewed_seconds) {
            (false, _) => "not connected".to_owned(),
            (true, None) => "connected, no Lease renewed yet".to_owned(),
            (true, Some(age)) => format!("connected, Lease renewed {} ago", shown_seconds(age)),
        };
        let _ = writeln!(text, "kubernetes {} {state}", control.object);
        for line in control.notice.iter().chain(&control.last_error) {
            let _ = writeln!(text, "  {line}");
        }
    }
    let mut rows = vec![
        [
            "PEER",
            "NAME",
            "STATE",
            "PATH",
            "RTT",
            "STREAMS",
            "SENT",
            "RECEIVED",
            "LAST ERROR",
        ]
        .map(str::to_owned),
    ];
    rows.extend(status.peers.iter().map(row));
    let widths: [usize; 9] =
        std::array::from_fn(|i| rows.iter().map(|r| r[i].chars().count()).max().unwrap_or(0));
    for row in &rows {
        let cells = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        let _ = writeln!(text, "{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
    if status.peers.is_empty() {
        text.push_str("(none yet)\n");
    }
    text
}

fn row(peer: &Peer) -> [String; 9] {
    let dash = || "-".to_owned();
    let error = peer
        .last_error
        .as_ref()
        .map(|error| match peer.last_error_seconds {
            Some(seconds) => format!("{error} ({} ago)", shown_seconds(seconds)),
            None => error.clone(),
        });
    [
        peer.endpoint_id.chars().take(10).collect(),
        peer.name.clone().unwrap_or_else(dash),
        match peer.state {
            PeerState::Idle => "idle",
            PeerState::Dialing => "dialing",
            PeerState::Connected => "connected",
            PeerState::Offline => "offline",
        }
        .into(),
        match peer.path {
            Some(PathKind::Direct) => "direct".into(),
            Some(PathKind::Relay) => "relay".into(),
            None => dash(),
        },
        peer.rtt_ms.map_or_else(dash, |ms| format!("{ms:.1}ms")),
        peer.streams.to_string(),
        shown_bytes(peer.bytes_sent),
        shown_bytes(peer.bytes_received),
        error.unwrap_or_else(dash),
    ]
}

fn shown_seconds(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        _ => format!("{}h{}m", seconds / 3600, seconds / 60 % 60),
    }
}

fn shown_bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} B"),
        _ => format!("{value:.1} {}", UNITS[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_reads_as_a_table() {
        let status: Status = serde_json::from_value(serde_json::json!({
            "role": "dialer", "version": "0.1.0", "endpointId": "ab".repeat(32), "uptimeSeconds": 61,
            "ready": true, "bound": [], "streams": 2, "queued": 0,
            "controlPlane": {"object": "shops/edge", "connected": true, "leaseRenewedSeconds": 7, "lastError": "why"},
            "peers": [{"endpointId": "cd".repeat(32), "state": "connected", "path": "relay", "rttMs": 12.34,
                "streams": 2, "streamsTotal": 2, "bytesSent": 2048, "bytesReceived": 1, "lastError": "gone", "lastErrorSeconds": 5}],
        }))
        .expect("a status");
        let text = table(&status);
        let last = text.lines().last().expect("a row");
        let cells: Vec<_> = last
            .split("  ")
            .map(str::trim)
            .filter(|c| !c.is_empty())
            .collect();
        assert_eq!(
            cells,
            [
                "cdcdcdcdcd",
                "-",
                "connected",
                "relay",
                "12.3ms",
                "2",
                "2.0 KiB",
                "1 B",
                "gone (5s ago)"
            ]
        );
        assert!(text.contains("ready for 1m1s"), "{text}");
        assert!(
            text.contains("kubernetes shops/edge connected, Lease renewed 7s ago\n  why\n"),
            "{text}"
        );
    }
}
