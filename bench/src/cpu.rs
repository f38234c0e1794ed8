//! CPU time and memory of the processes under test, from /proc.

use std::fs;

use adit_tests::process::{Process, rss};
use anyhow::{Context as _, Result};

use crate::stats::Figures;

/// What some processes had used at one moment.
pub struct Meter<'a> {
    processes: Vec<(&'a str, u32, f64)>,
}

impl<'a> Meter<'a> {
    /// Starts counting for these processes, each under its role's name.
    pub fn start(processes: impl IntoIterator<Item = (&'a str, &'a Process)>) -> Result<Self> {
        let processes = processes.into_iter().map(|(role, process)| {
            let pid = process.pid();
            anyhow::Ok((role, pid, seconds(pid)?))
        });
        Ok(Self {
            processes: processes.collect::<Result<_>>()?,
        })
    }

    /// The CPU time used since then, times `scale`; processes of one role are
    /// one figure.
    pub fn stop(self, scale: f64) -> Result<Figures> {
        let mut used = Figures::new();
        for (role, pid, before) in self.processes {
            *used.entry(role.to_owned()).or_default() += (seconds(pid)? - before) * scale;
        }
        Ok(used)
    }
}

/// Resident memory of all of them together, in bytes.
pub fn resident<'a>(processes: impl IntoIterator<Item = &'a Process>) -> Result<u64> {
    processes.into_iter().map(|p| rss(p.pid())).sum()
}

/// CPU seconds of a process so far: the first field of each thread's schedstat,
/// which counts nanoseconds. proc_pid_stat(5) counts ticks of 10 ms, and those
/// are a tenth of what one process uses in one short round. A thread that has
/// ended is missing; Envoy's and tokio's workers live as long as their process.
fn seconds(pid: u32) -> Result<f64> {
    let gone = || format!("process {pid}, which is measured, has ended");
    let mut nanos = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).with_context(gone)? {
        // Threads come and go between the listing and the look.
        let Ok(text) = fs::read_to_string(thread?.path().join("schedstat")) else {
            continue;
        };
        let first = text.split_whitespace().next();
        nanos += first
            .and_then(|n| n.parse::<u64>().ok())
            .context("schedstat: no number; this kernel counts no CPU time for each thread")?;
    }
    Ok(nanos as f64 / 1e9)
}
