//! `adit status`: a running dialer or connector as a table.

use std::{process::ExitCode, time::Duration};

use adit_tunnel::{
    admin::AdminAddr,
    status::{PathKind, Peer, PeerState, Role, Status},
};
use anyhow::{Context as _, Result};

use crate::{admin_client, table};

/// The arguments of `adit status`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Admin address of the process: IP:PORT or unix:PATH
    #[arg(
        long,
        env = "ADIT_ADMIN",
        default_value = "127.0.0.1:9901",
        value_name = "ADDRESS"
    )]
    admin: AdminAddr,
    /// Print the process's own JSON
    #[arg(long)]
    json: bool,
    /// Show it again every SECONDS until interrupted
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2", value_parser = clap::value_parser!(u64).range(1..=3600))]
    watch: Option<u64>,
}

/// Asks and shows. The exit status is 1 when the process is not ready.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    loop {
        let body = runtime
            .block_on(admin_client::get(&arguments.admin, "/status"))
            .context("is the process running, and is this its --admin address?")?;
        let status: Status = serde_json::from_slice(&body).with_context(|| {
            format!(
                "{} did not answer with a status: is it an adit process?",
                arguments.admin
            )
        })?;
        if arguments.json {
            println!("{}", serde_json::to_string(&status)?);
        } else {
            print!("{}", show(&status));
        }
        let Some(seconds) = arguments.watch else {
            return Ok(if status.ready {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            });
        };
        std::thread::sleep(Duration::from_secs(seconds));
        if !arguments.json {
            println!();
        }
    }
}

fn show(status: &Status) -> String {
    let (role, peer) = match status.role {
        Role::Dialer => ("dialer", "CONNECTOR"),
        Role::Connector => ("connector", "DIALER"),
    };
    let ready = if status.ready { "ready" } else { "NOT READY" };
    let relay = match &status.relay {
        None => "none configured".to_owned(),
        Some(relay) if relay.connected => format!("{} (connected)", relay.url),
        Some(relay) => format!(
            "{} (NOT CONNECTED{})",
            relay.url,
            relay
                .last_error
                .as_ref()
                .map(|e| format!(": {e}"))
                .unwrap_or_default()
        ),
    };
    let mut out = format!(
        "{role} {} {ready}, up {}\nrelay {relay}\nstreams {} open, {} waiting\n",
        status.endpoint_id,
        humantime_seconds(status.uptime_seconds),
        status.streams,
        status.queued,
    );
    if status.peers.is_empty() {
        return out;
    }
    let header = [
        peer,
        "STATE",
        "PATH",
        "RTT",
        "STREAMS",
        "SENT",
        "RECEIVED",
        "LAST ERROR",
    ];
    let rows: Vec<_> = status.peers.iter().map(row).collect();
    out.push('\n');
    out.push_str(&table::render(&header, &rows));
    out
}

fn row(peer: &Peer) -> Vec<String> {
    let id = peer.endpoint_id.get(..10).unwrap_or(&peer.endpoint_id);
    let name = peer
        .name
        .as_ref()
        .map_or_else(|| id.to_owned(), |name| format!("{name} ({id})"));
    let state = match peer.state {
        PeerState::Idle => "idle",
        PeerState::Dialing => "dialing",
        PeerState::Connected => "connected",
        PeerState::Offline => "offline",
    };
    let path = match peer.path {
        Some(PathKind::Direct) => "direct",
        Some(PathKind::Relay) => "relay",
        None => "-",
    };
    let error = match (&peer.last_error, peer.last_error_seconds) {
        (Some(error), Some(ago)) => format!("{error} ({} ago)", humantime_seconds(ago)),
        (Some(error), None) => error.clone(),
        (None, _) => "-".to_owned(),
    };
    vec![
        name,
        state.to_owned(),
        path.to_owned(),
        peer.rtt_ms
            .map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1} ms")),
        format!("{} ({} in all)", peer.streams, peer.streams_total),
        table::bytes(peer.bytes_sent),
        table::bytes(peer.bytes_received),
        error,
    ]
}

/// `2d 3h`, `4m 5s`: the two largest units.
fn humantime_seconds(seconds: u64) -> String {
    let parts = [
        (seconds / 86_400, "d"),
        (seconds / 3600 % 24, "h"),
        (seconds / 60 % 60, "m"),
        (seconds % 60, "s"),
    ];
    let first = parts.iter().position(|(n, _)| *n > 0).unwrap_or(3);
    let shown = parts[first..].iter().take(2).filter(|(n, _)| *n > 0);
    let text: Vec<_> = shown.map(|(n, unit)| format!("{n}{unit}")).collect();
    if text.is_empty() {
        "0s".to_owned()
    } else {
        text.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_reads_as_a_table() {
        let status = Status {
            role: Role::Dialer,
            version: "0.1.0".into(),
            endpoint_id: "ab".repeat(32),
            uptime_seconds: 3700,
            ready: true,
            bound: vec![],
            relay: None,
            streams: 2,
            queued: 0,
            peers: vec![Peer {
                endpoint_id: "cd".repeat(32),
                name: Some("default/shop".into()),
                state: PeerState::Connected,
                path: Some(PathKind::Direct),
                remote: None,
                rtt_ms: Some(1.25),
                streams: 2,
                streams_total: 40,
                bytes_sent: 2048,
                bytes_received: 0,
                last_error: Some("refused".into()),
                last_error_seconds: Some(61),
            }],
        };
        let shown = show(&status);
        assert!(shown.starts_with("dialer abab"), "{shown}");
        assert!(shown.contains("ready, up 1h 1m"), "{shown}");
        assert!(
            shown.contains("default/shop (cdcdcdcdcd)  connected  direct  1.2 ms"),
            "{shown}"
        );
        assert!(shown.contains("refused (1m 1s ago)"), "{shown}");
    }
}
