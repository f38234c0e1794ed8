//! A real Prometheus, and doors through which it reaches admin sockets.
//!
//! It is used when it is on PATH, or unpacked in `~/.cache/adit/prometheus/debian`
//! as `cargo xtask prometheus` leaves it. A test without it says so plainly; with
//! `ADIT_REQUIRE_PROMETHEUS=1` it fails.

use std::{
    env, fs,
    net::{Ipv4Addr, SocketAddr, TcpListener as StdListener},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream, UnixStream},
    task::JoinSet,
};
use tokio_util::task::AbortOnDropHandle;
use url::form_urlencoded;

use crate::{
    admin::Admin,
    debian,
    process::{Process, until},
};

/// A port may be taken between our choosing and Prometheus' listening.
const ATTEMPTS: usize = 3;

/// A running Prometheus.
pub struct Prometheus {
    process: Process,
    admin: Admin,
    jobs: Vec<&'static str>,
    _doors: Vec<Door>,
}

/// What is scraped: a job of one process.
#[derive(Debug, Clone)]
pub struct Job {
    /// The job's name.
    pub name: &'static str,
    /// Its admin server.
    pub admin: Admin,
    /// As in `/metrics`.
    pub path: &'static str,
}

/// A TCP port of loopback that leads to an admin server on a Unix socket:
/// Prometheus knows none.
struct Door {
    addr: SocketAddr,
    _task: Option<AbortOnDropHandle<()>>,
}

/// Whether Prometheus is there. When it is not, the test is left out, and says
/// so.
pub fn is_there() -> bool {
    if program("prometheus").is_some() && program("promtool").is_some() {
        return true;
    }
    let what = "prometheus and promtool are neither on PATH nor unpacked (cargo xtask prometheus)";
    assert!(
        env::var("ADIT_REQUIRE_PROMETHEUS").as_deref() != Ok("1"),
        "{what}"
    );
    eprintln!("LEFT OUT: {what}");
    false
}

/// Runs promtool.
pub fn promtool(arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(program("promtool").context("promtool")?);
    command
        .args(arguments)
        .output()
        .with_context(|| format!("promtool {arguments:?}"))
}

fn program(name: &str) -> Option<PathBuf> {
    debian::find(name, "prometheus")
}

impl Job {
    /// A process of Adit.
    pub fn of(name: &'static str, admin: &Admin) -> Self {
        let admin = admin.clone();
        Self {
            name,
            admin,
            path: "/metrics",
        }
    }

    /// An Envoy.
    pub fn envoy(admin: &Admin) -> Self {
        Self {
            path: "/stats/prometheus",
            ..Self::of("adit-envoy", admin)
        }
    }
}

impl Prometheus {
    /// Starts one that scrapes these every second and knows these rules. Its
    /// files go to `dir`.
    pub async fn start(dir: &Path, jobs: &[Job], rules: &Path) -> Result<Self> {
        let mut doors = Vec::new();
        for job in jobs {
            doors.push(Door::open(&job.admin).await?);
        }
        let targets = jobs.iter().zip(&doors).map(|(job, door)| {
            json!({
                "job_name": job.name,
                "metrics_path": job.path,
                "static_configs": [{"targets": [door.addr.to_string()]}],
            })
        });
        let config = json!({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [rules],
            "scrape_configs": targets.collect::<Vec<_>>(),
        });
        // JSON is YAML.
        let file = dir.join("prometheus.yml");
        fs::write(&file, serde_json::to_vec_pretty(&config)?)?;
        let mut attempt = 1;
        let (process, admin) = loop {
            match Self::try_start(dir, &file).await {
                Err(_) if attempt < ATTEMPTS => attempt += 1,
                started => break started?,
            }
        };
        Ok(Self {
            process,
            admin,
            jobs: jobs.iter().map(|job| job.name).collect(),
            _doors: doors,
        })
    }

    async fn try_start(dir: &Path, config: &Path) -> Result<(Process, Admin)> {
        let addr = StdListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let mut command = Command::new(program("prometheus").context("prometheus")?);
        let flag = |name: &str, value: &Path| format!("--{name}={}", value.display());
        command
            .arg(flag("config.file", config))
            .arg(flag("storage.tsdb.path", &dir.join("tsdb")))
            .arg(format!("--web.listen-address={addr}"))
            .env_clear();
        let mut process = Process::start("prometheus", dir, &mut command)?;
        let admin = Admin::Tcp(addr);
        process
            .until("ready Prometheus", async || {
                admin.get("/-/ready").await.ok()
            })
            .await?;
        Ok((process, admin))
    }

    /// Waits until every job was scraped `times` times, and all rules were
    /// looked at after that.
    pub async fn has_scraped(&mut self, times: usize) -> Result<()> {
        for job in self.jobs.clone() {
            let query = format!("sum_over_time(up{{job={job:?}}}[10m]) >= {times}");
            self.until(&query).await?;
        }
        let before = self.evaluated().await?;
        until("another look at the rules", async || {
            let now = self.evaluated().await.ok()?;
            let all = before.iter().zip(&now).all(|(before, now)| before < now);
            (all && !now.is_empty()).then_some(())
        })
        .await
    }

    /// When each group of rules was looked at last.
    async fn evaluated(&self) -> Result<Vec<String>> {
        let answer = self.get("rules", &[]).await?;
        let groups = answer["groups"].as_array().context("groups")?;
        let times = groups.iter().filter_map(|g| g["lastEvaluation"].as_str());
        Ok(times.map(str::to_owned).collect())
    }

    /// The series that an instant query gives now.
    pub async fn query(&self, expression: &str) -> Result<Vec<Value>> {
        let answer = self.get("query", &[("query", expression)]).await?;
        ensure!(
            answer["resultType"] == "vector",
            "{expression}: no vector: {answer}"
        );
        Ok(answer["result"].as_array().context("a result")?.clone())
    }

    /// Waits until a query gives something.
    pub async fn until(&mut self, expression: &str) -> Result<Vec<Value>> {
        until(expression, async || {
            let found = self.query(expression).await.ok()?;
            (!found.is_empty()).then_some(found)
        })
        .await
        .with_context(|| self.process.last_words())
    }

    /// The label sets of all series that a selector finds.
    pub async fn series(&self, selector: &str) -> Result<Vec<Value>> {
        let answer = self.get("series", &[("match[]", selector)]).await?;
        Ok(answer.as_array().context("series")?.clone())
    }

    /// The names of all metrics.
    pub async fn names(&self) -> Result<Vec<String>> {
        let answer = self.get("label/__name__/values", &[]).await?;
        let names = answer.as_array().context("names")?.iter();
        Ok(names
            .filter_map(|n| n.as_str().map(str::to_owned))
            .collect())
    }

    /// The alerts that fire.
    pub async fn firing(&self) -> Result<Vec<String>> {
        let answer = self.get("alerts", &[]).await?;
        let alerts = answer["alerts"].as_array().context("alerts")?.iter();
        let firing = alerts.filter(|a| a["state"] == "firing");
        let mut names: Vec<String> = firing
            .filter_map(|a| a["labels"]["alertname"].as_str().map(str::to_owned))
            .collect();
        names.sort();
        names.dedup();
        Ok(names)
    }

    /// Waits until this alert fires; what it says.
    pub async fn until_firing(&self, name: &str) -> Result<Value> {
        until(&format!("firing {name}"), async || {
            let answer = self.get("alerts", &[]).await.ok()?;
            let alerts = answer["alerts"].as_array()?;
            let is_it = |a: &&Value| a["labels"]["alertname"] == name && a["state"] == "firing";
            Some(alerts.iter().find(is_it)?["annotations"].clone())
        })
        .await
    }

    async fn get(&self, what: &str, parameters: &[(&str, &str)]) -> Result<Value> {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(parameters);
        let path = format!("/api/v1/{what}?{}", query.finish());
        let mut answer = self.admin.json(&path).await?;
        Ok(answer["data"].take())
    }
}

impl Door {
    async fn open(admin: &Admin) -> Result<Self> {
        let path = match admin {
            Admin::Tcp(addr) => {
                return Ok(Self {
                    addr: *addr,
                    _task: None,
                });
            }
            Admin::Unix(path) => path.clone(),
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let addr = listener.local_addr()?;
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                while connections.try_join_next().is_some() {}
                connections.spawn(through(tcp, path.clone()));
            }
        });
        Ok(Self {
            addr,
            _task: Some(AbortOnDropHandle::new(task)),
        })
    }
}

async fn through(mut tcp: TcpStream, path: PathBuf) {
    if let Ok(mut unix) = UnixStream::connect(path).await {
        let _ = copy_bidirectional(&mut tcp, &mut unix).await;
    }
}
