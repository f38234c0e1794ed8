//! A run as tables, and as the page of the book.

use std::fmt::Write as _;

use super::{Report, Series, charts, svg::number};
use crate::{loads::Load, reasons};

/// The page.
pub fn page(report: &Report) -> String {
    let mut out = String::new();
    out += "# Benchmarks\n\n";
    out += "<!-- Written by `cargo xtask bench`: do not edit it by hand. -->\n\n";
    out += "Adit beside other ways from Envoy to a service that nobody can connect to. All are up \
            at once behind one Envoy, everything on one machine over loopback, and the loads go \
            over them in turn, round by round. What is shown are medians of the rounds. Read the \
            ratios and the CPU times: absolute times are this machine's.\n\n";
    out += &machine(report);
    out += "\n`cargo xtask bench` measures anew and writes this page; `--quick` is a look in some \
            minutes, `--only adit/keep-alive-16` one load on one path, `--list` shows all.\n\n";
    out += "## What was promised\n\n";
    out += &targets(report);
    out += &missed(report);
    out += "## The ways\n\n| name | way |\n|---|---|\n";
    for kind in &crate::paths::ALL {
        let _ = writeln!(out, "| `{}` | {} |", kind.name, kind.title);
    }
    out += "\n`⇒` is the tunnel. adit, sidecar, iroh-splice and socket-iroh are encrypted QUIC, \
            chisel is SSH, frp is TLS; rathole, bore and reverse are plain TCP here. None of these \
            but Adit and the sidecar finds its way without a port that is open to the world.\n\n";
    out += &left_out(report);
    out += "## Pictures\n\n";
    for chart in charts::all(report) {
        let _ = writeln!(out, "![{}](benchmarks/{}.svg)\n", chart.title, chart.name);
    }
    out +=
        "## Tables\n\nCPU times are of all threads of a process, without the load generator.\n\n";
    out += &tables_of_loads(report);
    out
}

/// For a terminal.
pub fn tables(report: &Report) -> String {
    let mut out = machine(report);
    out += "\n";
    out += &tables_of_loads(report);
    out += &left_out(report);
    out += &targets(report);
    out += &missed(report);
    out
}

fn machine(report: &Report) -> String {
    let m = &report.machine;
    let look = if report.quick {
        " This is a quick look: short loads."
    } else {
        ""
    };
    let spread = spread(report).map_or(String::new(), |(low, high)| {
        format!(
            " The A/A control, plain TCP once more, was between {low:.2} and {high:.2} times \
             plain TCP in a single round of the GETs and bodies: differences within that are none."
        )
    });
    format!(
        "{} cores ({}), {} GiB; Envoy {} with {} worker{}; Adit {}; {} rounds; bodies of {} MiB.{look}{spread}\n",
        m.cores,
        m.architecture,
        m.memory_gib,
        report.envoy,
        report.workers,
        if report.workers == 1 { "" } else { "s" },
        report.adit,
        report.rounds,
        report.body_mib,
    )
}

/// The lowest and highest that equal things differed by in one round.
fn spread(report: &Report) -> Option<(f64, f64)> {
    let aa = report.ratios.iter().filter(|r| {
        let rate = ["per_second", "mb_per_second"].contains(&r.figure.as_str());
        let load = r.load.starts_with("keep-alive") || r.load.ends_with("load");
        rate && load && r.path == "control" && r.of == "direct"
    });
    aa.map(|r| (r.lowest, r.highest))
        .reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
}

fn targets(report: &Report) -> String {
    let mut out = String::from("| promise | bound | measured | met |\n|---|---:|---:|---|\n");
    for target in &report.targets {
        let sign = if target.at_least { "≥" } else { "≤" };
        let figure = target.figure.map_or("not measured".into(), number);
        let met = match target.met {
            Some(true) => "yes",
            Some(false) => "**no**",
            None => "-",
        };
        let bound = number(target.bound);
        let _ = writeln!(
            out,
            "| {} | {sign} {bound} | {figure} | {met} |",
            target.says
        );
    }
    out + "\n"
}

/// Each missed target with its reason; those that share one, in a row, once.
fn missed(report: &Report) -> String {
    let missed = report.targets.iter().filter(|t| t.met == Some(false));
    let mut reasons: Vec<(String, String)> = Vec::new();
    for target in missed {
        let reason = reasons::of(&target.name, report);
        let reason = reason.unwrap_or("No reason has been found yet.".into());
        let says = format!("**{}**", target.says);
        match reasons.last_mut() {
            Some((all, same)) if *same == reason => *all += &format!("; {says}"),
            _ => reasons.push((says, reason)),
        }
    }
    reasons
        .iter()
        .map(|(says, reason)| format!("{says}: missed. {reason}\n\n"))
        .collect()
}

fn left_out(report: &Report) -> String {
    let mut out = String::new();
    for path in &report.left_out {
        let reason = path.reason.replace('\n', " ");
        let _ = writeln!(out, "`{}` was left out: {reason}\n", path.path);
    }
    for failure in &report.failures {
        let (load, path) = (&failure.load, &failure.path);
        let reason = failure.reason.replace('\n', " ");
        let _ = writeln!(
            out,
            "`{load}` over `{path}` failed ({}): {reason}\n",
            failure.when
        );
    }
    out
}

fn tables_of_loads(report: &Report) -> String {
    let mut out = String::new();
    for load in Load::ALL {
        let name = load.name();
        let series: Vec<_> = crate::paths::ALL
            .iter()
            .filter_map(|kind| {
                report
                    .series
                    .iter()
                    .find(|s| s.path == kind.name && s.load == name)
            })
            .collect();
        if series.is_empty() {
            continue;
        }
        let _ = writeln!(out, "### {name}: {}\n", load.title());
        out += &match load {
            Load::Recover => recover(&series),
            _ => table(report, load, &series),
        };
        out.push('\n');
    }
    out
}

fn table(report: &Report, load: Load, series: &[&Series]) -> String {
    let columns: &[(&str, &str)] = match load {
        Load::Download | Load::Upload => &[("mb_per_second", "MB/s")],
        Load::Steps => &[
            ("knee_per_second", "requests/s at the knee"),
            ("p50_ms_at_1000", "p50 ms at 1,000/s"),
            ("p99_ms_at_1000", "p99 ms at 1,000/s"),
            ("p99_ms_at_4000", "p99 ms at 4,000/s"),
        ],
        Load::Idle => &[
            ("kb_per_tunnel", "kB a tunnel"),
            ("envoy_kb_per_tunnel", "kB in Envoy"),
            ("tunnels", "tunnels"),
        ],
        Load::Off => &[
            ("status", "status"),
            ("first_ms", "first ms"),
            ("p50_ms", "p50 ms"),
            ("p99_ms", "p99 ms"),
            ("max_ms", "worst ms"),
            ("count", "requests"),
        ],
        _ => &[
            ("per_second", "per s"),
            ("p50_ms", "p50 ms"),
            ("p99_ms", "p99 ms"),
        ],
    };
    let leads = columns[0].0;
    let ratio = report
        .ratios
        .iter()
        .any(|r| r.load == load.name() && r.figure == leads);
    let cpu = series.iter().any(|s| !s.median.cpu.is_empty());
    let mut head = vec!["path".to_owned()];
    head.extend(columns.iter().map(|(_, title)| (*title).to_owned()));
    if ratio {
        head.push("of direct".into());
    }
    if cpu {
        head.push(format!("CPU {}", load.cpu_of()));
        head.push("of which".into());
    }
    let mut out = row(&head);
    out += &row(&vec!["---".to_owned(); head.len()]);
    for s in series {
        let mut cells = vec![format!("`{}`", s.path)];
        for (figure, _) in columns {
            cells.push(s.median.get(figure).map_or("-".into(), |v| match *figure {
                "status" | "count" | "tunnels" => format!("{v:.0}"),
                _ => number(v),
            }));
        }
        if ratio {
            let of = report.ratio(&load.name(), leads, &s.path, "direct");
            cells.push(of.map_or("-".into(), |r| format!("{:.2}", r.value)));
        }
        if cpu {
            cells.push(number(s.median.cpu_on_the_way()));
            let roles = s
                .median
                .cpu
                .iter()
                .map(|(role, v)| format!("{role} {}", number(*v)));
            cells.push(roles.collect::<Vec<_>>().join(", "));
        }
        out += &row(&cells);
    }
    if cpu {
        out += "\nThe sum is without the service.\n";
    }
    out
}

fn recover(series: &[&Series]) -> String {
    let mut out = String::from(
        "| path | killed | ms to the next 200 | tries that failed |\n|---|---|---:|---:|\n",
    );
    for s in series {
        for (name, ms) in &s.median.figures {
            let Some(role) = name.strip_suffix("_ms") else {
                continue;
            };
            let failed = s.median.get(&format!("{role}_failed")).unwrap_or_default();
            let (path, ms) = (&s.path, number(*ms));
            let _ = writeln!(out, "| `{path}` | {role} | {ms} | {failed:.0} |");
        }
    }
    out
}

fn row(cells: &[String]) -> String {
    format!("| {} |\n", cells.join(" | "))
}
