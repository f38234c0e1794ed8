//! What was promised, on two cores with everything on one machine. Each is
//! computed from the rounds of one run; a target whose paths were not measured
//! has no figure, and is neither met nor missed.

use serde::{Deserialize, Serialize};

use crate::{report::Report, stats::median};

/// A promise and what was found.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// Its name.
    pub name: String,
    /// What it says.
    pub says: String,
    /// What was measured.
    pub figure: Option<f64>,
    /// What it is held against.
    pub bound: f64,
    /// Whether the figure has to reach the bound, or not to exceed it.
    pub at_least: bool,
    /// Whether it is met; none if it was not measured.
    pub met: Option<bool>,
}

/// All of them.
pub fn all(report: &Report) -> Vec<Target> {
    let ratio = |load, figure, path, of| Some(report.ratio(load, figure, path, of)?.value);
    let added = |load| {
        let paths = ["adit", "sidecar", "direct"];
        let ratios = report.over_rounds(load, paths, |[adit, sidecar, direct]| {
            let direct = direct.get("p50_ms")?;
            Some((adit.get("p50_ms")? - direct) / (sidecar.get("p50_ms")? - direct))
        });
        ratios.and_then(median)
    };
    // At one rate: a busier Envoy pays less for each request, so that of two
    // equal paths the slower one would seem to cost more.
    let envoy = |other| {
        let ratios = report.over_rounds("steady", ["adit", other], |[adit, other]| {
            Some(adit.cpu.get("envoy")? / other.cpu.get("envoy")?)
        });
        ratios.and_then(median)
    };
    let figure = |load, name| report.median_of("adit", load)?.get(name);
    vec![
        at_least(
            "requests",
            "requests/s at 16 connections: at least 2.0x the header sidecar's",
            ratio("keep-alive-16", "per_second", "adit", "sidecar"),
            2.0,
        ),
        at_most(
            "latency",
            "p50 added over plain TCP at 16 connections: at most 0.5x of what the header sidecar adds",
            added("keep-alive-16"),
            0.5,
        ),
        at_most(
            "latency-1",
            "the same at one connection, where no request waits for another",
            added("keep-alive-1"),
            0.5,
        ),
        at_least(
            "download",
            "download: at least 0.85x of a bare iroh splice without Envoy",
            ratio("download", "mb_per_second", "adit", "iroh-splice"),
            0.85,
        ),
        at_least(
            "upload",
            "upload: at least 0.85x of a bare iroh splice without Envoy",
            ratio("upload", "mb_per_second", "adit", "iroh-splice"),
            0.85,
        ),
        at_most(
            "envoy-cpu",
            "Envoy's CPU time for each keep-alive request, 2,000 a second: at most 1.05x of that with a plain Unix socket",
            envoy("socket"),
            1.05,
        ),
        at_most(
            "envoy-cpu-iroh",
            "the same, where there is a bare iroh tunnel behind the plain Unix socket too",
            envoy("socket-iroh"),
            1.05,
        ),
        at_most(
            "off",
            "503 for a device known to be off, retries on: p99 of at most 2 ms",
            figure("off", "p99_ms"),
            2.0,
        ),
        at_most(
            "idle-memory",
            "memory of an idle tunnel in dialer and connector together: at most 32 kB",
            figure("idle", "kb_per_tunnel"),
            32.0,
        ),
    ]
}

fn at_least(name: &str, says: &str, figure: Option<f64>, bound: f64) -> Target {
    Target {
        name: name.to_owned(),
        says: says.to_owned(),
        figure,
        bound,
        at_least: true,
        met: figure.map(|f| f >= bound),
    }
}

fn at_most(name: &str, says: &str, figure: Option<f64>, bound: f64) -> Target {
    Target {
        at_least: false,
        met: figure.map(|f| f <= bound),
        ..at_least(name, says, figure, bound)
    }
}
