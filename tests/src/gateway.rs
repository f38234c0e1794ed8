//! `adit run` as a child process: Envoy and dialer from a directory.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use rustix::process::Signal;
use serde_json::Value;

use crate::{
    admin::Admin,
    binaries, envoy,
    keys::Key,
    manifests::Manifests,
    process::{self, Process},
};

/// What `adit run` is started with.
pub struct Settings {
    /// The Envoy version.
    pub version: String,
    /// Envoy's workers.
    pub concurrency: u16,
    /// More environment, as `ADIT_RELAY`: it reaches the dialer too.
    pub env: Vec<(String, String)>,
    /// Where Envoy listens; any free port of loopback if nothing is said.
    pub listen: SocketAddr,
}

impl Settings {
    /// The usual number of workers, nothing more.
    pub fn of(version: &str) -> Self {
        Self {
            version: version.to_owned(),
            concurrency: binaries::concurrency(),
            env: Vec::new(),
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
        }
    }

    /// With one more environment variable.
    pub fn env(mut self, name: &str, value: impl ToString) -> Self {
        self.env.push((name.to_owned(), value.to_string()));
        self
    }
}

/// A port of loopback that an Envoy which is killed finds free again: it is below
/// those that the kernel gives to whoever asks for any.
pub fn steady_port() -> Result<SocketAddr> {
    const RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
    let range = fs::read_to_string(RANGE).context(RANGE)?;
    let least: u16 = range
        .split_whitespace()
        .next()
        .context(RANGE)?
        .parse()
        .context(RANGE)?;
    let free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    let port = (0..100)
        .map(|_| rand::random_range(1024..least))
        .find(free)
        .with_context(|| format!("no free port between 1024 and {least}"))?;
    Ok((Ipv4Addr::LOCALHOST, port).into())
}

/// A running `adit run`.
pub struct Gateway {
    /// The supervisor and the log of all three processes.
    pub process: Process,
    /// The directory of manifests.
    pub manifests: Manifests,
    /// Where clients connect.
    pub addr: SocketAddr,
    /// Envoy's admin server.
    pub envoy: Admin,
    /// The dialer's admin server.
    pub dialer: Admin,
    state: PathBuf,
}

impl Gateway {
    /// The directory of manifests that [`Gateway::start`] will read.
    pub fn manifests(dir: &Path) -> Result<Manifests> {
        Manifests::new(&dir.join("manifests"))
    }

    /// Starts `adit run` and waits until Envoy listens and the dialer is ready.
    pub async fn start(dir: &Path, dialer: &Key, settings: &Settings) -> Result<Self> {
        let manifests = Self::manifests(dir)?;
        let state = dir.join("state");
        let dialer_admin = dir.join("dialer-admin.sock");
        let mut command = Command::new(binaries::adit()?);
        command
            .arg("run")
            .arg("-c")
            .arg(&manifests.dir)
            .arg("--listen")
            .arg(settings.listen.to_string())
            .arg("--state-dir")
            .arg(&state)
            .arg("--envoy")
            .arg(binaries::envoy(&settings.version)?)
            .arg("--module")
            .arg(binaries::module()?)
            .arg("--concurrency")
            .arg(settings.concurrency.to_string())
            .env_clear()
            .env("ADIT_BIND", "127.0.0.1:0")
            .env("ADIT_KEY_FILE", &dialer.file)
            .env("ADIT_ADMIN", format!("unix:{}", dialer_admin.display()))
            .envs(settings.env.iter().cloned());
        let mut process = Process::start("run", dir, &mut command)?;
        let envoy = Admin::Unix(state.join("envoy-admin.sock"));
        let dialer = Admin::Unix(dialer_admin);
        let log = process.log_file();
        let addr = process
            .until("ready gateway", async || listening(&log))
            .await?;
        Ok(Self {
            process,
            manifests,
            addr,
            envoy,
            dialer,
            state,
        })
    }

    /// Where Envoy listens now: it was started anew and took another port.
    pub async fn listening(&mut self) -> Result<SocketAddr> {
        let envoy = self.envoy.clone();
        let found = self.process.until("listening Envoy", async || {
            let ready = envoy.get("/ready").await.ok()?;
            let listeners = envoy.json("/listeners?format=json").await.ok()?;
            let name = listeners["listener_statuses"][0]["name"].as_str()?;
            let addr = envoy::listener(&envoy, name).await.ok()?;
            (ready.trim() == "LIVE").then_some(addr)
        });
        self.addr = found.await?;
        Ok(self.addr)
    }

    /// The state directory.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// The dialer's process id.
    pub fn dialer_pid(&self) -> Result<u32> {
        self.child("dialer", |line| line.contains(" dialer "))
    }

    /// Envoy's process id.
    pub fn envoy_pid(&self) -> Result<u32> {
        self.child("envoy", |line| line.contains("--disable-hot-restart"))
    }

    fn child(&self, name: &str, is: impl Fn(&str) -> bool) -> Result<u32> {
        let all = process::descendants(self.process.pid());
        let found = all.iter().find(|(_, line)| is(line));
        found
            .map(|(pid, _)| *pid)
            .with_context(|| format!("no {name} among {all:?}"))
    }

    /// SIGKILL for the dialer; `adit run` starts another.
    pub fn kill_dialer(&self) -> Result<()> {
        process::signal_pid(self.dialer_pid()?, Signal::KILL)
    }

    /// SIGKILL for Envoy; `adit run` starts another.
    pub fn kill_envoy(&self) -> Result<()> {
        process::signal_pid(self.envoy_pid()?, Signal::KILL)
    }

    /// What the dialer's `/status` says.
    pub async fn status(&self) -> Result<Value> {
        self.dialer.json("/status").await
    }

    /// The dialer's row for a connector, if it has one.
    pub async fn peer(&self, id: &str) -> Result<Option<Value>> {
        let status = self.status().await?;
        let peers = status["peers"].as_array().context("peers")?;
        Ok(peers.iter().find(|p| p["endpointId"] == id).cloned())
    }

    /// The path to a connector, `direct` or `relay`, if it is connected.
    pub async fn path(&self, id: &str) -> Option<String> {
        let peer = self.peer(id).await.ok()??;
        Some(peer["path"].as_str()?.to_owned())
    }
}

/// The address in the line that `adit run` prints once it serves.
fn listening(log: &Path) -> Option<SocketAddr> {
    let log = std::fs::read_to_string(log).ok()?;
    let line = log
        .lines()
        .find_map(|l| l.strip_prefix("listening on http://"))?;
    line.trim().parse().ok()
}
