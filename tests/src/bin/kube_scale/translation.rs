//! Envoy Gateway's own time for one translation, with our policies and without.
//!
//! A plain HTTPRoute that is not ours changes again and again; each time Envoy
//! Gateway translates everything. Its own histogram says for how long, by the
//! two steps (internal/message/watchutil.go): `gateway-api` makes the
//! intermediate form, `xds` makes Envoy's resources and applies the patches.
//! For each size the routes alone are measured before **and** after.

use std::{
    collections::BTreeSet,
    fs,
    future::Future,
    time::{Duration, Instant},
};

use adit_reconciler::emit::gateway::Place;
use adit_tests::{
    admin::Admin,
    kube::{Class, Kind, Objects, Stack, by_hand, envoy_gateway::Extensions, objects::is_true},
    process::descendants,
};
use anyhow::{Context, Result, bail, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use kube::api::{DeleteParams, ListParams};
use serde_json::{Value, json};

use crate::{
    options::Options,
    policies::{self, Written},
};

/// Times with our policies over times without them, at most.
const AIM: f64 = 2.0;
/// Translations for each figure.
const CHANGES: u32 = 9;
/// All sizes together.
const BUDGET: Duration = Duration::from_secs(360);
/// The longest for anything by itself.
const PATIENCE: Duration = Duration::from_secs(120);
/// Without a translation for so long, Envoy Gateway is at rest.
const REST: Duration = Duration::from_millis(400);
/// Requests at once while objects are made.
const MAKERS: usize = 32;
/// Envoy Gateway's Prometheus endpoint; fixed.
const METRICS: ([u8; 4], u16) = ([127, 0, 0, 1], 19001);
/// The steps of a translation: `runner` in the metrics.
const STEPS: [&str; 2] = ["gateway-api", "xds"];
/// The label of everything of ours.
const OURS: &str = "app.kubernetes.io/managed-by=adit";
const NAMESPACE: &str = "infra";
const GATEWAY: &str = "edge";

/// In milliseconds; medians, but for the CPU time.
#[derive(Debug, Clone)]
struct Figures {
    steps: [f64; 2],
    both: f64,
    /// Of all of Envoy Gateway's process, for one change, on average: the clock
    /// is too coarse for one. Answering [`METRICS`] is in it.
    cpu: f64,
}

struct Bench<'a> {
    options: &'a Options,
    objects: Objects,
    metrics: Admin,
    pid: u32,
    /// How often the plain route was changed.
    changes: u32,
}

/// Measures each size as far as the time reaches, and prints a table.
pub async fn measure(options: &Options) -> Result<Value> {
    let began = Instant::now();
    // What is there for one size is left for the next.
    let sizes: BTreeSet<usize> = options.policies.iter().map(|&n| n as usize).collect();
    let most = *sizes.last().context("no size")?;
    let stack = Stack::start(Extensions::default()).await?;
    let objects = stack.admin().await?;
    objects.make_namespace(NAMESPACE, &[]).await?;
    stack
        .make_gateway(Class::Envoy140, NAMESPACE, GATEWAY)
        .await?;
    let gateway = Place {
        namespace: NAMESPACE.into(),
        name: GATEWAY.into(),
    };
    let written = policies::written(&gateway, most, stack.plane.dir())?;
    let filter = policies::filter(&gateway);
    let all = descendants(std::process::id());
    let (pid, _) = all
        .into_iter()
        .find(|(_, line)| line.contains("envoy-gateway server "))
        .context("no process of Envoy Gateway")?;
    let mut bench = Bench {
        options,
        objects,
        metrics: Admin::Tcp(METRICS.into()),
        pid,
        changes: 0,
    };
    bench.plain().await?;
    say!(
        options,
        "Envoy Gateway, one translation: medians of {CHANGES}, in ms; CPU: all of its process"
    );
    say!(
        options,
        "for one change, being asked for its metrics included (mean)"
    );
    say!(
        options,
        "policies  with them          gateway-api       xds      both  ratio       CPU  ratio"
    );
    let mut results = Vec::new();
    let mut there = 0;
    for &size in &sizes {
        let new = written.get(there..size).unwrap_or_default();
        let now = written.get(..size).unwrap_or_default();
        let left = BUDGET.saturating_sub(began.elapsed());
        let Some(result) = within(left, bench.size(new, now, &filter)).await? else {
            say!(
                options,
                "{size:>8}  not done within {} s for all sizes",
                BUDGET.as_secs()
            );
            break;
        };
        results.push(result);
        there = size;
    }
    let reached = results.len() == sizes.len();
    let met = reached
        && results
            .iter()
            .all(|r| r["ratio"].as_f64().is_some_and(|r| r <= AIM));
    say!(
        options,
        "at most {AIM} times the routes alone, met: {met} ({:.0} s in all)",
        began.elapsed().as_secs_f64()
    );
    Ok(json!({"aim": AIM, "met": met, "sizes": results}))
}

impl Bench<'_> {
    /// One size: the routes alone, with the policies, with the module's filter
    /// too, and alone again.
    async fn size(&mut self, new: &[Written], now: &[Written], filter: &Value) -> Result<Value> {
        let count = now.len();
        self.apply(new.iter().flat_map(|w| &w.route)).await?;
        self.until_all(Kind::HTTP_ROUTE, "Accepted", count).await?;
        let before = self.figures().await?;

        self.apply(now.iter().map(|w| &w.policy)).await?;
        self.until_all(Kind::ENVOY_PATCH_POLICY, "Programmed", count)
            .await?;
        let patched = self.figures().await?;
        self.apply([filter]).await?;
        self.until_all(Kind::ENVOY_EXTENSION_POLICY, "Accepted", 1)
            .await?;
        let filtered = self.figures().await?;
        self.until_all(Kind::ENVOY_PATCH_POLICY, "Programmed", count)
            .await?;

        for kind in [Kind::ENVOY_EXTENSION_POLICY, Kind::ENVOY_PATCH_POLICY] {
            let api = self.objects.api(kind, NAMESPACE);
            let ours = ListParams::default().labels(OURS);
            api.delete_collection(&DeleteParams::background(), &ours)
                .await?;
            self.until_all(kind, "gone", 0).await?;
        }
        let after = self.figures().await?;

        let alone = Figures {
            steps: [0, 1].map(|i| f64::midpoint(before.steps[i], after.steps[i])),
            both: f64::midpoint(before.both, after.both),
            cpu: f64::midpoint(before.cpu, after.cpu),
        };
        let stages = [
            ("nothing, before", before),
            ("EnvoyPatchPolicies", patched),
            ("and the filter", filtered.clone()),
            ("nothing, after", after),
        ];
        let mut rows = Vec::new();
        for (name, f) in stages {
            let (ratio, cpu_ratio) = (f.both / alone.both, f.cpu / alone.cpu);
            say!(
                self.options,
                "{count:>8}  {name:<18} {:>11.1} {:>9.1} {:>9.1} {ratio:>6.2} {:>9.1} {cpu_ratio:>6.2}",
                f.steps[0],
                f.steps[1],
                f.both,
                f.cpu
            );
            rows.push(json!({
                "with": name, "gateway_api_ms": f.steps[0], "xds_ms": f.steps[1],
                "both_ms": f.both, "cpu_ms": f.cpu, "ratio": ratio, "cpu_ratio": cpu_ratio,
            }));
        }
        Ok(json!({
            "policies": count, "ratio": filtered.both / alone.both,
            "cpu_ratio": filtered.cpu / alone.cpu, "stages": rows,
        }))
    }

    /// The route that changes, and its Backend.
    async fn plain(&mut self) -> Result<()> {
        let backend = by_hand::backend("plain", "192.0.2.1", 80);
        self.objects.apply(NAMESPACE, backend).await?;
        self.change().await
    }

    /// Changes the plain route in a way that reaches Envoy: else Envoy Gateway
    /// finds its intermediate form unchanged, and leaves out the second step.
    async fn change(&mut self) -> Result<()> {
        self.changes += 1;
        let mut route = by_hand::route("plain", "plain.example.com", GATEWAY, "plain");
        route["spec"]["rules"][0]["timeouts"] = json!({"request": format!("{}s", self.changes)});
        self.objects.apply(NAMESPACE, route).await.map(drop)
    }

    /// The medians over some changes.
    async fn figures(&mut self) -> Result<Figures> {
        self.rest(None).await?;
        let mut samples: [Vec<f64>; 3] = Default::default();
        let cpu = cpu(self.pid)?;
        for _ in 0..CHANGES {
            let before = self.steps().await?;
            self.change().await?;
            let after = self.rest(Some(before)).await?;
            let mut both = 0.0;
            for (i, samples) in samples.iter_mut().take(2).enumerate() {
                let times = after[i].0 - before[i].0;
                ensure!(times > 0.0, "no translation by {}", STEPS[i]);
                let one = (after[i].1 - before[i].1) / times * 1000.0;
                samples.push(one);
                both += one;
            }
            samples[2].push(both);
        }
        let cpu = (self::cpu(self.pid)? - cpu) / f64::from(CHANGES) * 1000.0;
        let [first, second, both] = samples.map(median);
        Ok(Figures {
            steps: [first, second],
            both,
            cpu,
        })
    }

    /// Waits until nothing is translated any more, and both steps ran since
    /// `before`; where they are then.
    async fn rest(&self, before: Option<[(f64, f64); 2]>) -> Result<[(f64, f64); 2]> {
        let began = Instant::now();
        let (mut last, mut since) = (self.steps().await?, Instant::now());
        loop {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let now = self.steps().await?;
            if now != last {
                (last, since) = (now, Instant::now());
            }
            let ran = before.is_none_or(|b| (0..2).all(|i| now[i].0 > b[i].0));
            // A long translation is not seen before its end.
            let longest = 2.0 * before.map_or(0.0, |b| b.iter().map(mean).sum::<f64>());
            if ran && since.elapsed() > REST.max(Duration::from_secs_f64(longest)) {
                return Ok(now);
            }
            ensure!(began.elapsed() < PATIENCE, "Envoy Gateway never rests");
        }
    }

    /// How often each step ran, and the seconds it took, since the start.
    async fn steps(&self) -> Result<[(f64, f64); 2]> {
        let text = self.metrics.get("/metrics").await?;
        let sum = |what: &str, runner: &str| -> f64 {
            let name = format!("watchable_subscribe_duration_seconds_{what}{{");
            let runner = format!("runner=\"{runner}\"");
            let lines = text
                .lines()
                .filter(|l| l.starts_with(&name) && l.contains(&runner));
            lines
                .filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok())
                .sum()
        };
        Ok(STEPS.map(|runner| (sum("count", runner), sum("sum", runner))))
    }

    async fn apply<'a>(&self, all: impl IntoIterator<Item = &'a Value>) -> Result<()> {
        stream::iter(all)
            .map(|object| self.objects.apply(NAMESPACE, object.clone()))
            .buffer_unordered(MAKERS)
            .try_for_each(|_| async { Ok(()) })
            .await
    }

    /// Waits until there are so many objects of ours, and all have a condition.
    async fn until_all(&self, kind: Kind, condition: &str, count: usize) -> Result<()> {
        let began = Instant::now();
        loop {
            let all = self.objects.list(kind, NAMESPACE, OURS).await?;
            let good = all.iter().filter(|o| is_true(o, condition)).count();
            if all.len() == count && good == count {
                return Ok(());
            }
            if began.elapsed() > PATIENCE {
                bail!(
                    "{good} of {} of {count} {kind:?} are {condition}",
                    all.len()
                );
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }
}

/// What comes of it, unless it takes longer.
async fn within<T>(limit: Duration, what: impl Future<Output = Result<T>>) -> Result<Option<T>> {
    tokio::time::timeout(limit, what).await.ok().transpose()
}

fn mean((times, seconds): &(f64, f64)) -> f64 {
    if *times > 0.0 { seconds / times } else { 0.0 }
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied().unwrap_or_default()
}

/// CPU seconds of a process, in user and kernel mode.
fn cpu(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // Fields 14 and 15 (proc_pid_stat(5)); the name, in parentheses, is the 2nd.
    let (_, rest) = stat.rsplit_once(')').context("a name in /proc/…/stat")?;
    let fields = rest.split_whitespace().skip(11).take(2);
    let ticks: f64 = fields.filter_map(|f| f.parse::<f64>().ok()).sum();
    Ok(ticks / rustix::param::clock_ticks_per_second() as f64)
}
