//! A run: everything is started, then the loads go over the paths, round by
//! round, load by load, each time in another order of the paths.

use std::time::{Duration, Instant};

use adit_tests::process::Process;
use anyhow::{Context as _, Result, ensure};
use tokio::time::{sleep, timeout};

use crate::{
    gateway::{Gateway, Host},
    loads::{Load, Often, Scale, Stage},
    paths::{ALL, Ground, Path, tcp_port},
    report::{Failure, LeftOut, Machine, Report, Series},
    roles,
};

/// How long a path may take until it carries its first request.
const PATIENCE: Duration = Duration::from_secs(20);
/// The warm-up is this much shorter than a round.
const WARM_UP: u32 = 4;

/// What is to be measured.
pub struct Plan {
    /// A look, not numbers to publish.
    pub quick: bool,
    /// Rounds.
    pub rounds: u32,
    /// Envoy's version.
    pub envoy: String,
    /// Envoy's worker threads.
    pub workers: u16,
    /// How much of each load.
    pub scale: Scale,
    /// What `--only` says; empty for all.
    pub only: Vec<String>,
}

impl Plan {
    /// Whether a load is to go over a path.
    fn wants(&self, path: &str, load: Load) -> bool {
        let name = load.name();
        let matches = |wanted: &String| wanted.split('/').all(|part| part == path || part == name);
        self.only.is_empty() || self.only.iter().any(matches)
    }
}

/// Measures.
pub async fn run(plan: &Plan) -> Result<Report> {
    let dir = tempfile::Builder::new().prefix("adit-bench-").tempdir()?;
    let ground = Ground {
        dir: dir.path().to_owned(),
        service: tcp_port()?,
        envoy: plan.envoy.clone(),
    };
    let mut command = roles::command("service")?;
    command.args(["--listen", &ground.service.to_string()]);
    let service = Process::start("service", dir.path(), &mut command)?;

    let mut report = Report::new(plan, Machine::here());
    let mut paths = Vec::new();
    for kind in &ALL {
        if !Load::ALL.iter().any(|load| plan.wants(kind.name, *load)) {
            continue;
        }
        match kind.start(&ground) {
            Ok(path) => paths.push(path),
            Err(error) => report.leave_out(kind.name, format!("{error:#}")),
        }
    }
    let gateway = Gateway::start(&ground, plan.workers, &paths).await?;
    let mut stage = Stage {
        gateway,
        service,
        port: ground.service.port(),
        scale: plan.scale,
    };
    let mut up = Vec::new();
    for path in paths {
        match first_answer(&stage, &path).await {
            Ok(()) => up.push(path),
            Err(error) => {
                let reason = format!("{error:#}: {}", path.last_words());
                report.leave_out(path.name, reason);
            }
        }
    }
    ensure!(!up.is_empty(), "no path answers: {:?}", report.left_out);

    one_pass(&stage, plan, &mut up, &mut report, Often::First, "first").await;
    eprintln!("warm-up");
    stage.scale.span = plan.scale.span / WARM_UP;
    stage.scale.bytes = plan.scale.bytes / u64::from(WARM_UP);
    stage.scale.bulk_limit = plan.scale.bulk_limit / WARM_UP;
    for load in [Load::KeepAlive(16), Load::Download, Load::Upload] {
        for path in up.iter_mut().filter(|path| load.suits(path)) {
            if plan.wants(path.name, load) {
                load.run(&stage, path).await.ok();
            }
        }
    }
    stage.scale = plan.scale;
    for round in 1..=plan.rounds {
        let title = format!("round {round} of {}", plan.rounds);
        one_pass(&stage, plan, &mut up, &mut report, Often::EachRound, &title).await;
        // Another order, so that nobody always comes after the same one.
        up.rotate_left(1);
    }
    one_pass(&stage, plan, &mut up, &mut report, Often::Last, "last").await;
    report.conclude();
    Ok(report)
}

async fn one_pass(
    stage: &Stage,
    plan: &Plan,
    paths: &mut [Path],
    report: &mut Report,
    often: Often,
    title: &str,
) {
    let start = Instant::now();
    for load in Load::ALL.into_iter().filter(|load| load.often() == often) {
        for path in paths.iter_mut() {
            if !load.suits(path) || !plan.wants(path.name, load) {
                continue;
            }
            let at = start.elapsed().as_secs();
            eprintln!("{title}, {at} s: {} over {}", load.name(), path.name);
            match load.run(stage, path).await {
                Ok(sample) => report.add(path.name, load, sample),
                Err(error) => {
                    eprintln!("  failed: {error:#}");
                    report.failures.push(Failure {
                        path: path.name.to_owned(),
                        load: load.name(),
                        when: title.to_owned(),
                        reason: format!("{error:#}"),
                    });
                }
            }
        }
    }
}

/// Waits until a path carries a request.
async fn first_answer(stage: &Stage, path: &Path) -> Result<()> {
    let door = stage.door(path, Host::Http1);
    let start = Instant::now();
    loop {
        let one = async { door.connect().await?.get_ok("/kib").await };
        let error = match timeout(Duration::from_secs(2), one).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error,
            Err(late) => late.into(),
        };
        if start.elapsed() > PATIENCE {
            return Err(error).with_context(|| format!("no answer within {PATIENCE:?}"));
        }
        sleep(Duration::from_millis(50)).await;
    }
}

impl Report {
    fn leave_out(&mut self, path: &str, reason: String) {
        eprintln!("{path} is left out: {reason}");
        self.left_out.push(LeftOut {
            path: path.to_owned(),
            reason,
        });
    }

    fn add(&mut self, path: &str, load: Load, sample: crate::stats::Sample) {
        let name = load.name();
        let found = self
            .series
            .iter_mut()
            .find(|s| s.path == path && s.load == name);
        match found {
            Some(series) => series.rounds.push(sample),
            None => self.series.push(Series {
                path: path.to_owned(),
                load: name,
                median: crate::stats::Sample::default(),
                rounds: vec![sample],
            }),
        }
    }
}
