//! CPU time of the processes under test.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::median;

/// A cost for each of Envoy, dialer and connector.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cpu(pub [f64; 3]);

impl Cpu {
    /// What three processes have used so far, in seconds.
    pub fn now(pids: &[u32; 3]) -> Result<Self> {
        let mut used = [0.0; 3];
        for (used, pid) in used.iter_mut().zip(pids) {
            *used = seconds(*pid)?.as_secs_f64();
        }
        Ok(Self(used))
    }

    /// What they have used since, times `scale`.
    pub fn since(self, pids: &[u32; 3], scale: f64) -> Result<Self> {
        let now = Self::now(pids)?;
        Ok(Self(std::array::from_fn(|i| {
            (now.0[i] - self.0[i]) * scale
        })))
    }

    /// The middle value of each.
    pub fn median(values: impl Iterator<Item = Self>) -> Self {
        let values: Vec<_> = values.collect();
        Self(std::array::from_fn(|i| {
            median(values.iter().map(|v| v.0[i]))
        }))
    }

    /// `21 + 11 + 14`.
    pub fn show(self, digits: usize) -> String {
        self.0.map(|v| format!("{v:.digits$}")).join(" + ")
    }

    /// By name.
    pub fn json(self) -> Value {
        json!({"envoy": self.0[0], "dialer": self.0[1], "connector": self.0[2]})
    }
}

/// User and system time of a process, from proc_pid_stat(5).
fn seconds(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))
        .context("a process that is measured has died")?;
    // The command's name, in brackets, may hold spaces.
    let (_, rest) = stat.rsplit_once(')').context("stat")?;
    let fields: Vec<_> = rest.split_whitespace().collect();
    let ticks: u64 = [11, 12]
        .iter()
        .filter_map(|i| fields.get(*i)?.parse::<u64>().ok())
        .sum();
    let per_second = rustix::param::clock_ticks_per_second();
    Ok(Duration::from_secs_f64(ticks as f64 / per_second as f64))
}
