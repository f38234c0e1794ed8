//! Which charts there are.

use super::{
    Report,
    svg::{Bars, Lines},
};
use crate::{loads::Load, paths::ALL};

/// A chart that has something to show.
pub struct Chart {
    /// Its file's name, without the ending.
    pub name: &'static str,
    /// What it shows, for those who do not see it.
    pub title: String,
    /// The image.
    pub svg: String,
}

/// Every chart that this run has numbers for.
pub fn all(report: &Report) -> Vec<Chart> {
    let keep = ["keep-alive-1", "keep-alive-16", "keep-alive-64"];
    let charts = [
        bars(
            report,
            "requests",
            "1 KiB GETs a second (more is better)",
            &keep.map(|load| (load, "per_second", load)),
        ),
        bars(
            report,
            "latency",
            "1 KiB GET: median time in ms (less is better)",
            &keep[..2]
                .iter()
                .map(|load| (*load, "p50_ms", *load))
                .collect::<Vec<_>>(),
        ),
        bars(
            report,
            "bulk",
            "One large body: MB/s (more is better)",
            &[
                ("download", "mb_per_second", "download"),
                ("upload", "mb_per_second", "upload"),
            ],
        ),
        cpu(
            report,
            "cpu-request",
            "steady",
            "CPU time of a 1 KiB GET in µs, 2,000 a second (less is better)",
        ),
        cpu(
            report,
            "cpu-download",
            "download",
            "CPU seconds for 1 GB down (less is better)",
        ),
        cpu(
            report,
            "cpu-upload",
            "upload",
            "CPU seconds for 1 GB up (less is better)",
        ),
        steps(report),
    ];
    charts.into_iter().flatten().collect()
}

fn bars(
    report: &Report,
    name: &'static str,
    title: &str,
    series: &[(&str, &str, &str)],
) -> Option<Chart> {
    let rows = ALL.iter().filter_map(|kind| {
        let values: Vec<_> = series
            .iter()
            .map(|(load, figure, _)| report.median_of(kind.name, load)?.get(figure))
            .collect();
        values
            .iter()
            .any(Option::is_some)
            .then(|| (kind.name.to_owned(), values))
    });
    let bars = Bars {
        title: title.to_owned(),
        series: series
            .iter()
            .map(|(_, _, label)| (*label).to_owned())
            .collect(),
        rows: rows.collect(),
        stacked: false,
    };
    Some(Chart {
        name,
        title: title.to_owned(),
        svg: bars.svg()?,
    })
}

/// Envoy, what stands beside it, what stands beside the service, the service.
fn cpu(report: &Report, name: &'static str, load: &str, title: &str) -> Option<Chart> {
    let rows = ALL.iter().filter_map(|kind| {
        let cpu = &report.median_of(kind.name, load)?.cpu;
        let part = |side: &str| {
            let of_side = cpu.iter().filter(|(role, _)| side_of(role) == side);
            let sum: f64 = of_side.map(|(_, value)| value).sum();
            (sum > 0.0).then_some(sum)
        };
        Some((kind.name.to_owned(), SIDES.map(part).to_vec()))
    });
    let bars = Bars {
        title: title.to_owned(),
        series: SIDES.map(str::to_owned).to_vec(),
        rows: rows.collect(),
        stacked: true,
    };
    Some(Chart {
        name,
        title: title.to_owned(),
        svg: bars.svg()?,
    })
}

const SIDES: [&str; 4] = ["envoy", "beside Envoy", "beside the service", "service"];

fn side_of(role: &str) -> &'static str {
    match role {
        "envoy" => SIDES[0],
        "service" => SIDES[3],
        "dialer" | "downstream" | "splice" | "dial" | "server" | "frps" => SIDES[1],
        _ => SIDES[2],
    }
}

fn steps(report: &Report) -> Option<Chart> {
    let title = "1 KiB GET at a constant rate: p99 (less is better)".to_owned();
    let load = Load::Steps.name();
    let lines = ALL.iter().filter_map(|kind| {
        let figures = &report.median_of(kind.name, &load)?.figures;
        let mut points: Vec<_> = figures
            .iter()
            .filter_map(|(name, p99)| {
                let rate = name.strip_prefix("p99_ms_at_")?.parse::<f64>().ok()?;
                Some((rate, *p99))
            })
            .collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        Some((kind.name.to_owned(), points))
    });
    let lines = Lines {
        title: title.clone(),
        x: "requests a second".into(),
        lines: lines.collect(),
    };
    Some(Chart {
        name: "steps",
        title,
        svg: lines.svg()?,
    })
}
