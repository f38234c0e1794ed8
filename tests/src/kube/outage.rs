//! An API server that dies, and one that takes its place.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, Result};
use rustix::process::Signal;

use super::ControlPlane;
use crate::process::{self, Process};

/// The time without an API server; its etcd goes on.
pub struct Outage {
    command: Vec<String>,
    dir: PathBuf,
}

impl Outage {
    /// SIGKILL.
    pub fn begin(plane: &ControlPlane) -> Result<Self> {
        let port = format!("--secure-port={}", plane.api.port());
        let own = process::descendants(std::process::id());
        let found = own.iter().find(|(_, line)| line.contains(&port));
        let (pid, _) = found.with_context(|| format!("an API server among {own:?}"))?;
        let line = fs::read(format!("/proc/{pid}/cmdline"))?;
        let words = line.split(|b| *b == 0).filter(|w| !w.is_empty());
        let words = words.map(|w| String::from_utf8_lossy(w).into_owned());
        let command = words.collect();
        process::signal_pid(*pid, Signal::KILL)?;
        Ok(Self {
            command,
            dir: plane.dir().to_owned(),
        })
    }

    /// Another one on the same port with the same data. It is not waited for.
    pub fn end(self) -> Result<Process> {
        let mut again = Command::new(self.command.first().context("a program")?);
        again.args(&self.command[1..]);
        Process::start("kube-apiserver-again", &self.dir, &mut again)
    }
}
