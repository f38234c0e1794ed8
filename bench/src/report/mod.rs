//! What a run came to: as JSON, as a page of the book, and as charts.

mod charts;
pub mod markdown;
pub mod svg;

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::{
    run::Plan,
    stats::{Sample, median},
    targets::{self, Target},
};

/// A whole run.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Where it ran.
    pub machine: Machine,
    /// Envoy's version.
    pub envoy: String,
    /// Adit's version.
    pub adit: String,
    /// Envoy's worker threads.
    pub workers: u16,
    /// A look, not numbers to publish.
    pub quick: bool,
    /// How many rounds.
    pub rounds: u32,
    /// MiB of each large body.
    pub body_mib: u64,
    /// What was promised, and what was found.
    pub targets: Vec<Target>,
    /// Requests a second, speeds and times as ratios to another path's.
    pub ratios: Vec<Ratio>,
    /// Paths that could not be measured.
    pub left_out: Vec<LeftOut>,
    /// Loads that failed on a path.
    pub failures: Vec<Failure>,
    /// Everything measured.
    pub series: Vec<Series>,
}

/// The machine's shape.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    /// Processors.
    pub cores: usize,
    /// Memory.
    pub memory_gib: u64,
    /// As in `x86_64`.
    pub architecture: String,
}

/// One load on one path.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Series {
    /// The path's name.
    pub path: String,
    /// The load's name.
    pub load: String,
    /// The median of each figure.
    pub median: Sample,
    /// Each round.
    pub rounds: Vec<Sample>,
}

/// A figure of one path over that of another: the median of the rounds' ratios.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ratio {
    /// The load's name.
    pub load: String,
    /// The figure's name.
    pub figure: String,
    /// The path's name.
    pub path: String,
    /// The path it is compared with.
    pub of: String,
    /// The median.
    pub value: f64,
    /// The lowest of the rounds.
    pub lowest: f64,
    /// The highest of the rounds.
    pub highest: f64,
}

/// A path that could not be measured.
#[derive(Debug, Serialize, Deserialize)]
pub struct LeftOut {
    /// The path's name.
    pub path: String,
    /// Why.
    pub reason: String,
}

/// A load that failed.
#[derive(Debug, Serialize, Deserialize)]
pub struct Failure {
    /// The path's name.
    pub path: String,
    /// The load's name.
    pub load: String,
    /// In which round.
    pub when: String,
    /// Why.
    pub reason: String,
}

/// The file of the numbers, beside the page.
const NUMBERS: &str = "benchmarks/results.json";

impl Report {
    /// An empty one.
    pub fn new(plan: &Plan, machine: Machine) -> Self {
        Self {
            machine,
            envoy: plan.envoy.clone(),
            adit: env!("CARGO_PKG_VERSION").to_owned(),
            workers: plan.workers,
            quick: plan.quick,
            rounds: plan.rounds,
            body_mib: plan.scale.bytes >> 20,
            targets: Vec::new(),
            ratios: Vec::new(),
            left_out: Vec::new(),
            failures: Vec::new(),
            series: Vec::new(),
        }
    }

    /// One that was written.
    pub fn read(file: &Path) -> Result<Self> {
        let text = fs::read(file).with_context(|| format!("read {}", file.display()))?;
        let mut report: Self =
            serde_json::from_slice(&text).with_context(|| format!("read {}", file.display()))?;
        report.conclude();
        Ok(report)
    }

    /// Writes the page, its charts and its numbers.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let put = |name: &str, content: &str| {
            let file = dir.join(name);
            if let Some(parent) = file.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::write(&file, content).with_context(|| format!("write {}", file.display()))
        };
        put(NUMBERS, &(serde_json::to_string(self)? + "\n"))?;
        for chart in charts::all(self) {
            put(&format!("benchmarks/{}.svg", chart.name), &chart.svg)?;
        }
        put("benchmarks.md", &markdown::page(self))
    }

    /// Medians, ratios and targets from what was measured.
    pub fn conclude(&mut self) {
        for series in &mut self.series {
            series.median = Sample::median(&series.rounds);
        }
        let mut ratios = Vec::new();
        for series in &self.series {
            for figure in [
                "per_second",
                "p50_ms",
                "p99_ms",
                "mb_per_second",
                "knee_per_second",
            ] {
                for of in ["direct", "socket", "sidecar", "iroh-splice", "socket-iroh"] {
                    ratios.extend(self.ratio_of(&series.load, figure, &series.path, of));
                }
            }
        }
        self.ratios = ratios;
        self.targets = targets::all(self);
    }

    /// The rounds of a load on a path.
    pub fn rounds_of(&self, path: &str, load: &str) -> &[Sample] {
        let mut series = self.series.iter();
        series
            .find(|s| s.path == path && s.load == load)
            .map_or(&[], |s| s.rounds.as_slice())
    }

    /// The medians of a load on a path.
    pub fn median_of(&self, path: &str, load: &str) -> Option<&Sample> {
        let mut series = self.series.iter();
        let found = series.find(|s| s.path == path && s.load == load)?;
        Some(&found.median)
    }

    /// The median over the rounds of what is made of a round of each path.
    pub fn over_rounds<const N: usize>(
        &self,
        load: &str,
        paths: [&str; N],
        make: impl Fn([&Sample; N]) -> Option<f64>,
    ) -> Option<Vec<f64>> {
        let rounds = paths.map(|path| self.rounds_of(path, load));
        let count = rounds.iter().map(|r| r.len()).min()?;
        let values = (0..count).filter_map(|i| make(rounds.map(|r| &r[i])));
        let values: Vec<_> = values.filter(|v| v.is_finite()).collect();
        (!values.is_empty()).then_some(values)
    }

    fn ratio_of(&self, load: &str, figure: &str, path: &str, of: &str) -> Option<Ratio> {
        if path == of {
            return None;
        }
        let values = self.over_rounds(load, [path, of], |[a, b]| {
            Some(a.get(figure)? / b.get(figure)?)
        })?;
        Some(Ratio {
            load: load.to_owned(),
            figure: figure.to_owned(),
            path: path.to_owned(),
            of: of.to_owned(),
            value: median(values.iter().copied())?,
            lowest: values.iter().copied().fold(f64::INFINITY, f64::min),
            highest: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        })
    }

    /// A ratio that was made by [`Report::conclude`].
    pub fn ratio(&self, load: &str, figure: &str, path: &str, of: &str) -> Option<&Ratio> {
        self.ratios
            .iter()
            .find(|r| r.load == load && r.figure == figure && r.path == path && r.of == of)
    }
}

impl Machine {
    /// This one.
    pub fn here() -> Self {
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kib = memory.lines().find_map(|line| {
            let rest = line.strip_prefix("MemTotal:")?;
            rest.split_whitespace().next()?.parse::<u64>().ok()
        });
        Self {
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_gib: kib.unwrap_or_default().div_ceil(1 << 20),
            architecture: std::env::consts::ARCH.to_owned(),
        }
    }
}
