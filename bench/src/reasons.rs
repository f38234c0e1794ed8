//! Why a target is missed, where it is. The reasons were found with `perf` and
//! by taking parts away; the numbers in them are those of the run.

use crate::{
    report::{Report, svg::number},
    stats::Sample,
};

/// What was found, by the target's name.
pub fn of(target: &str, report: &Report) -> Option<String> {
    match target {
        "requests" | "latency" => two_cores(report),
        "envoy-cpu" | "envoy-cpu-iroh" => Some(
            "Found by taking parts away, 24 rounds each, beside the same tunnel behind a plain \
             socket: 1.20 while the dynamic metadata for access logs was written twice, 1.14 \
             since it is written once, and 1.12 would be left without any. Of those the counter \
             and the histogram are 0.03. 1.05 is there even for a route that is not Adit's: the \
             transport socket, the filter's object, its hooks. The rest reads the route's \
             metadata and the request's headers and lets the router try again. A profile (`perf`, \
             stacks by DWARF, 16 connections) of the time before had 2.2 % of Envoy's in the \
             module's own code: most of the cost is in Envoy's callbacks, and at 2,000 requests a second in caches \
             that are cold at each of them."
                .into(),
        ),
        "off" => Some(
            "The dialer answers at once, and the module gives a request no retries for two \
             seconds after an answer \"offline\". The first request after a pause waits for \
             Envoy's pauses between its tries, 0 to 4 and 0 to 9 ms, or for the dialer's next look."
                .into(),
        ),
        "download" | "upload" => bodies(target, report),
        _ => None,
    }
}

/// All processes on a path together, without the load generator.
fn sum(sample: &Sample) -> f64 {
    sample.cpu.values().sum()
}

/// On full cores the rate is one over the CPU time of a request.
fn two_cores(report: &Report) -> Option<String> {
    let load = "keep-alive-16";
    let of = |path| Some(sum(report.median_of(path, load)?));
    let (direct, adit, sidecar) = (of("direct")?, of("adit")?, of("sidecar")?);
    let one = |path| report.median_of(path, "keep-alive-1")?.get("per_second");
    let alone = match (one("adit"), one("sidecar")) {
        (Some(adit), Some(sidecar)) => format!(
            " At one connection, where the cores are not full, Adit serves {} times as many \
             requests as the sidecar.",
            number(adit / sidecar)
        ),
        _ => String::new(),
    };
    let bare = match (
        report.ratio(load, "per_second", "socket-iroh", "sidecar"),
        report.ratio(load, "per_second", "adit", "socket-iroh"),
    ) {
        (Some(bare), Some(adit)) => format!(
            " Envoy before a bare iroh splice, with nothing of Adit's, serves {} times as many \
             requests as the sidecar at 16 connections, and Adit {} times as many as that.",
            number(bare.value),
            number(adit.value)
        ),
        _ => String::new(),
    };
    Some(format!(
        "With 16 connections and everything on {} cores, the cores are full, and both figures \
         follow from the CPU time that a request takes: {} µs over plain TCP (Envoy and the \
         service), {} µs over Adit, {} µs over the sidecar, and the load generator on top of \
         each. Adit adds {} µs where the sidecar adds {} µs; half of the sidecar's whole would \
         leave about nothing for a tunnel.{bare}{alone}",
        report.machine.cores,
        number(direct),
        number(adit),
        number(sidecar),
        number(adit - direct),
        number(sidecar - direct),
    ))
}

/// Envoy is on Adit's path and not on the other one's.
fn bodies(load: &str, report: &Report) -> Option<String> {
    let adit = report.median_of("adit", load)?;
    let bare = report.median_of("iroh-splice", load)?;
    let envoy = adit.cpu.get("envoy")?;
    let tunnel = |sample: &Sample| {
        let ends = sample.cpu.iter();
        let ends = ends.filter(|(role, _)| !["envoy", "service"].contains(&role.as_str()));
        ends.map(|(_, value)| value).sum::<f64>()
    };
    Some(format!(
        "The tunnel itself costs {} CPU s/GB, the bare splice {}: what is missing is Envoy's \
         share of the {} cores, {} CPU s/GB, which the bare splice does not pay.",
        number(tunnel(adit)),
        number(tunnel(bare)),
        report.machine.cores,
        number(*envoy),
    ))
}
