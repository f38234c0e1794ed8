//! Children: started, watched, started again, and never left behind.

use std::{
    env,
    ffi::OsString,
    fmt, fs,
    io::Write as _,
    net::SocketAddr,
    os::unix::{fs::OpenOptionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{ExitCode, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use adit_reconciler::emit::Admin;
use adit_tunnel::admin::AdminAddr;
use anyhow::Context as _;
use rustix::process::{Pid, Signal, getppid, kill_process, set_parent_process_death_signal};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, ChildStderr, Command},
    sync::mpsc,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{options::RunOptions, state::State};
use crate::{http, notify};

/// The hidden command that a child begins as.
pub(crate) const LEASH: &str = "leash";
/// So many failures in a row before it was ever ready: it will not mend.
pub(super) const HOPELESS: u32 = 3;
/// Between a death and the next start: doubled from the first to the second.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// Alive this long, the next death is a first one again.
const HEALTHY: Duration = Duration::from_secs(10);
/// For a child to end after SIGTERM, beyond its own grace period.
const MARGIN: Duration = Duration::from_secs(3);

/// What a child is.
pub(super) struct Spec {
    name: &'static str,
    program: PathBuf,
    arguments: Vec<OsString>,
    /// How long it may take to end when asked to.
    pub grace: Duration,
    /// Where its words about a refused update go, if it is Envoy.
    refusal: Option<Arc<Mutex<Option<String>>>>,
}

/// A child has ended by itself.
#[derive(Debug)]
pub(super) struct Fault {
    name: &'static str,
    why: String,
    /// How often in a row.
    pub times: u32,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} has ended: {}; starting it again",
            self.name, self.why
        )
    }
}

impl Spec {
    /// The dialer: this program again.
    pub fn dialer(options: &RunOptions, state: &State) -> anyhow::Result<Self> {
        let mut dialer = options.dialer.clone();
        dialer.socket = Some(state.dialer_socket.clone());
        dialer.state = Some(state.files.dialer_state());
        dialer.admin = Some(state.dialer_admin.clone());
        dialer.endpoint.key_file = Some(state.dialer_key.clone());
        let grace = dialer.grace_period.map_or(Duration::from_secs(10), |g| g.0);
        let mut file = serde_json::to_value(&dialer)?;
        if let (Value::Object(file), Value::Object(log)) =
            (&mut file, serde_json::to_value(&options.log)?)
        {
            file.extend(log);
        }
        write_private(&state.dialer_options, &serde_json::to_vec_pretty(&file)?)?;
        Ok(Self {
            name: "the dialer",
            program: env::current_exe().context("where this program is")?,
            arguments: vec![
                "dialer".into(),
                "--config".into(),
                state.dialer_options.clone().into(),
            ],
            grace,
            refusal: None,
        })
    }

    /// Envoy.
    pub fn envoy(
        program: &Path,
        options: &RunOptions,
        state: &State,
        refusal: Arc<Mutex<Option<String>>>,
        grace: Duration,
    ) -> Self {
        let level = options
            .envoy_log_level
            .clone()
            .unwrap_or_else(|| "warning".into());
        let mut arguments: Vec<OsString> = vec![
            "--config-path".into(),
            state.files.bootstrap().into(),
            "--disable-hot-restart".into(),
            "--log-level".into(),
            level.into(),
            "--log-format".into(),
            "[%l][%n] %v".into(),
            "--drain-time-s".into(),
            grace.as_secs().max(1).to_string().into(),
        ];
        if let Some(workers) = options.concurrency {
            arguments.extend(["--concurrency".into(), workers.to_string().into()]);
        }
        Self {
            name: "Envoy",
            program: program.to_owned(),
            arguments,
            grace: Duration::ZERO,
            refusal: Some(refusal),
        }
    }

    fn start(&self) -> anyhow::Result<Child> {
        let mut command = Command::new(env::current_exe().context("where this program is")?);
        command
            .arg(LEASH)
            .arg(std::process::id().to_string())
            .arg("--")
            .arg(&self.program)
            .args(&self.arguments)
            .stdin(Stdio::null())
            // A terminal's Ctrl-C is for us; the children are told in order.
            .process_group(0)
            .kill_on_drop(true);
        // What we were told by the environment is in the children's options.
        for (name, _) in
            env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"ADIT_"))
        {
            command.env_remove(name);
        }
        // Whether we are ready is ours to tell.
        command.env_remove(notify::VARIABLE);
        if self.refusal.is_some() {
            command.stderr(Stdio::piped());
        }
        command
            .spawn()
            .with_context(|| format!("start {}", self.name))
    }
}

/// Keeps a child running until told to stop; then ends it in order.
pub(super) async fn supervise(spec: Spec, stop: CancellationToken, faults: mpsc::Sender<Fault>) {
    let (mut wait, mut times) = (BACK_OFF.0, 0);
    loop {
        let started = Instant::now();
        let why = match spec.start() {
            Err(error) => crate::causes::line(&error),
            Ok(mut child) => {
                if let (Some(stderr), Some(refusal)) = (child.stderr.take(), &spec.refusal) {
                    tokio::spawn(forward(stderr, Arc::clone(refusal)));
                }
                tokio::select! {
                    () = stop.cancelled() => return end(&spec, child).await,
                    status = child.wait() => match status {
                        Ok(status) => shown(status),
                        Err(error) => error.to_string(),
                    },
                }
            }
        };
        if started.elapsed() > HEALTHY {
            (wait, times) = (BACK_OFF.0, 0);
        }
        times += 1;
        let _ = faults
            .send(Fault {
                name: spec.name,
                why,
                times,
            })
            .await;
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(wait) => wait = (wait * 2).min(BACK_OFF.1),
        }
    }
}

async fn end(spec: &Spec, mut child: Child) {
    let pid = child
        .id()
        .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    if let Some(pid) = pid {
        let _ = kill_process(pid, Signal::TERM);
    }
    if timeout(spec.grace + MARGIN, child.wait()).await.is_err() {
        tracing::warn!("{} did not end in time and is killed", spec.name);
        let _ = child.kill().await;
    }
}

fn shown(status: ExitStatus) -> String {
    status.to_string()
}

/// Envoy's log lines become ours; its words about a refused update are kept.
async fn forward(stderr: ChildStderr, refusal: Arc<Mutex<Option<String>>>) {
    let mut lines = BufReader::new(stderr).split(b'\n');
    while let Ok(Some(line)) = lines.next_segment().await {
        let line = String::from_utf8_lossy(&line);
        if line.trim().is_empty() {
            continue;
        }
        let (level, logger, text) = parse(&line);
        if let Some((_, reason)) = text.split_once("update rejected: ") {
            *refusal.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(reason.trim().to_owned());
        }
        match level {
            "critical" | "error" => tracing::error!(target: "envoy", logger, "{text}"),
            "warning" => tracing::warn!(target: "envoy", logger, "{text}"),
            "debug" => tracing::debug!(target: "envoy", logger, "{text}"),
            "trace" => tracing::trace!(target: "envoy", logger, "{text}"),
            _ => tracing::info!(target: "envoy", logger, "{text}"),
        }
    }
}

/// `[level][logger] text`; a line of another form is text.
fn parse(line: &str) -> (&str, &str, &str) {
    let parts = || {
        let (level, rest) = line.strip_prefix('[')?.split_once("][")?;
        let (logger, text) = rest.split_once("] ")?;
        Some((level, logger, text))
    };
    parts().unwrap_or(("info", "", line))
}

/// Waits until Envoy listens and the dialer is ready; where Envoy listens.
pub(super) async fn ready(envoy: Admin, state: &State) -> SocketAddr {
    // Of a port that the system chooses we learn nothing.
    let ask = !matches!(&state.dialer_admin, AdminAddr::Tcp(addr) if addr.port() == 0);
    loop {
        let dialer = !ask
            || matches!(
                http::get(&state.dialer_admin, "/readyz").await,
                Ok((200, _))
            );
        if dialer && let Some(address) = listening(&envoy).await {
            return address;
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until Envoy has refused something, and gives its words.
pub(super) async fn refused(refusal: Arc<Mutex<Option<String>>>) -> String {
    loop {
        if let Some(reason) = refusal
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
        {
            return reason;
        }
        sleep(Duration::from_millis(50)).await;
    }
}

async fn listening(envoy: &Admin) -> Option<SocketAddr> {
    let live = envoy.get("/ready").await.ok()?;
    if live.trim() != "LIVE" {
        return None;
    }
    let text = envoy.get("/listeners?format=json").await.ok()?;
    let all: Value = serde_json::from_str(&text).ok()?;
    let mut listeners = all["listener_statuses"].as_array()?.iter();
    let ours = listeners.find(|l| l["name"] == "adit")?;
    let socket = &ours["local_address"]["socket_address"];
    let port = u16::try_from(socket["port_value"].as_u64()?).ok()?;
    Some(SocketAddr::new(
        socket["address"].as_str()?.parse().ok()?,
        port,
    ))
}

/// Becomes `command`, which ends when `parent` does, however it ends.
pub(crate) fn leash(parent: u32, command: &[OsString]) -> anyhow::Result<ExitCode> {
    set_parent_process_death_signal(Some(Signal::KILL)).context("ask to end with the parent")?;
    // It may have ended before that.
    let alive =
        getppid().is_some_and(|pid| u32::try_from(pid.as_raw_nonzero().get()) == Ok(parent));
    let Some((program, arguments)) = command.split_first().filter(|_| alive) else {
        return Ok(ExitCode::FAILURE);
    };
    adit_tunnel::open_files::raise();
    let error = std::process::Command::new(program).args(arguments).exec();
    Err(error).with_context(|| format!("run {}", Path::new(program).display()))
}

/// Writes a file that only its owner may read.
fn write_private(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let write = || {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(bytes)
    };
    write().with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn envoys_lines_keep_their_level() {
        assert_eq!(
            parse("[warning][config] Filesystem config update rejected: no"),
            ("warning", "config", "Filesystem config update rejected: no")
        );
        assert_eq!(parse("  continued"), ("info", "", "  continued"));
    }
}
