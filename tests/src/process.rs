//! A child process with its log, killed when dropped.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::client::PATIENCE;

/// How often a condition is looked at again.
const LOOK: Duration = Duration::from_millis(20);

/// A running child; its output goes to a file.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a command; `name` is for messages and for the log's file name.
    pub fn start(name: &str, dir: &Path, command: &mut Command) -> Result<Self> {
        let log = dir.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("start {name}: {:?}", command.get_program()))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log,
        })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything it wrote, with what processes of that name wrote before it.
    pub fn log(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The file of [`Process::log`].
    pub fn log_file(&self) -> PathBuf {
        self.log.clone()
    }

    /// The last lines it wrote, for a message about a failure.
    pub fn last_words(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }

    /// Waits for a condition that this process must bring about.
    pub async fn until<T>(
        &mut self,
        what: &str,
        mut look: impl AsyncFnMut() -> Option<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look().await {
                return Ok(found);
            }
            if let Some(status) = self.child.try_wait()? {
                bail!(
                    "{} ended ({status}) before {what}:\n{}",
                    self.name,
                    self.last_words()
                );
            }
            if Instant::now() > deadline {
                bail!(
                    "{}: no {what} within {} s:\n{}",
                    self.name,
                    PATIENCE.as_secs(),
                    self.last_words()
                );
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Whether it runs still.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        signal_pid(self.pid(), signal)
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM, and waits until it ends by itself.
    pub async fn terminate(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait().await
    }

    /// Waits until it ends by itself.
    pub async fn wait(&mut self) -> Result<ExitStatus> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("{} does not end:\n{}", self.name, self.last_words());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Resident memory in bytes.
    pub fn rss(&self) -> Result<u64> {
        rss(self.pid())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// The same command with at most so many open files.
pub fn with_open_files(command: &Command, most: u32) -> Command {
    let mut limited = Command::new("sh");
    limited
        .arg("-c")
        .arg(format!("ulimit -n {most} && exec \"$0\" \"$@\""))
        .arg(command.get_program())
        .args(command.get_args())
        .env_clear();
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            limited.env(name, value);
        }
    }
    limited
}

/// Allows this process as many open files as it may have.
pub fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let most = getrlimit(Resource::Nofile).maximum;
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: most,
            maximum: most,
        },
    );
}

/// Waits for a condition that no process of ours is known to bring about.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return Ok(found);
        }
        if Instant::now() > deadline {
            bail!("no {what} within {} s", PATIENCE.as_secs());
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Sends a signal to a process that is not our child, as `adit run`'s children.
pub fn signal_pid(pid: u32, signal: Signal) -> Result<()> {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .context("a process id")?;
    kill_process(pid, signal).with_context(|| format!("send {signal:?} to {pid:?}"))
}

/// Resident memory of a process in bytes.
pub fn rss(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))
        .with_context(|| format!("process {pid}"))?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    let kib = line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok());
    Ok(kib.context("VmRSS")? * 1024)
}

/// The children of a process: (pid, command line), grandchildren included.
pub fn descendants(pid: u32) -> Vec<(u32, String)> {
    // A child may have been started by any thread.
    let mut pids: Vec<u32> = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
    {
        let Ok(entry) = entry else { continue };
        let list = fs::read_to_string(entry.path().join("children")).unwrap_or_default();
        pids.extend(
            list.split_whitespace()
                .filter_map(|p| p.parse::<u32>().ok()),
        );
    }
    let mut found = Vec::new();
    for pid in pids {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        found.push((pid, line));
        found.extend(descendants(pid));
    }
    found
}
