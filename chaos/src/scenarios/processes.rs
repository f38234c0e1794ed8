//! Each process is killed, or stopped for a while, under load.
//!
//! | process | who starts it again |
//! |---|---|
//! | dialer, Envoy | `adit run` |
//! | `adit run` | this scenario, as systemd does; its children die with it |
//! | connector | this scenario, on the same port |
//! | service | this scenario, on the same port |

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use adit_tests::{
    client::http::get,
    fixture::Fixture,
    gateway::{Gateway, Settings, steady_port},
    process::{signal_pid, until},
    stage::{Plan as StagePlan, Stage},
};
use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::json;

use crate::{
    load::{self, Load},
    scenario::{Context, Scenario},
};

/// This part of the table.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "kill-dialer",
        fault: "SIGKILL of the dialer under 500 requests/s",
        promise: "no request hangs; from 3 s on all are answered again (adit run starts another)",
        quick: true,
        run: |context| Box::pin(killed(context, Who::Dialer)),
    },
    Scenario {
        name: "kill-envoy",
        fault: "SIGKILL of Envoy under 500 requests/s",
        promise: "no request hangs; from 5 s on all are answered again, at the same port (adit run starts another)",
        quick: true,
        run: |context| Box::pin(killed(context, Who::Envoy)),
    },
    Scenario {
        name: "kill-connector",
        fault: "SIGKILL of the connector under 500 requests/s; back after 1 s",
        promise: "no request takes longer than 12 s; from 6 s after its return on all are answered (max-idle-timeout 3 s, the longest rest 1.25 s)",
        quick: true,
        run: |context| Box::pin(killed(context, Who::Connector)),
    },
    Scenario {
        name: "kill-service",
        fault: "SIGKILL of the service under 500 requests/s; back after 1 s",
        promise: "no request hangs, and from 1 s after its return on all are answered",
        quick: true,
        run: |context| Box::pin(killed(context, Who::Service)),
    },
    Scenario {
        name: "kill-run",
        fault: "SIGKILL of adit run under 500 requests/s, started again at once",
        promise: "no request hangs; from 8 s on all are answered again, at the same port",
        quick: false,
        run: |context| Box::pin(killed(context, Who::Run)),
    },
    Scenario {
        name: "pause-connector",
        fault: "SIGSTOP of the connector for 1 s under 500 requests/s",
        promise: "no request fails: it is shorter than max-idle-timeout (3 s)",
        quick: true,
        run: |context| Box::pin(paused(context, Who::Connector)),
    },
    Scenario {
        name: "pause-dialer",
        fault: "SIGSTOP of the dialer for 1 s under 500 requests/s",
        promise: "no request fails",
        quick: false,
        run: |context| Box::pin(paused(context, Who::Dialer)),
    },
    Scenario {
        name: "stop-dialer",
        fault: "SIGSTOP of the dialer for 8 s under 500 requests/s",
        promise: "no request takes longer than 15 s; from 3 s after SIGCONT on all are answered",
        quick: false,
        run: |context| Box::pin(stopped(context, Who::Dialer)),
    },
    Scenario {
        name: "stop-envoy",
        fault: "SIGSTOP of Envoy for 6 s under 500 requests/s",
        promise: "from 1 s after SIGCONT on all are answered",
        quick: false,
        run: |context| Box::pin(stopped(context, Who::Envoy)),
    },
    Scenario {
        name: "stop-connector",
        fault: "SIGSTOP of the connector for 8 s under 500 requests/s",
        promise: "no request takes longer than 12 s; from 3 s after SIGCONT on all are answered",
        quick: false,
        run: |context| Box::pin(stopped(context, Who::Connector)),
    },
    Scenario {
        name: "stop-service",
        fault: "SIGSTOP of the service for 6 s under 500 requests/s",
        promise: "no request fails: each waits for its answer (no route has a time limit)",
        quick: false,
        run: |context| Box::pin(stopped(context, Who::Service)),
    },
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Dialer,
    Envoy,
    Run,
    Connector,
    Service,
}

/// For the service and the connector to be away.
const AWAY: Duration = Duration::from_secs(1);
/// Longer than max-idle-timeout (3 s), a deadline (5 s) and Envoy's
/// connect_timeout (6 s).
const LONG: Duration = Duration::from_secs(8);
/// Longer than a deadline; what waits meanwhile and for as long again is what a
/// load may have under way.
const WAITS: Duration = Duration::from_secs(6);

/// A stage whose service is a process, and whose Envoy keeps its port.
struct Ground {
    stage: Stage,
    service: Fixture,
    listen: SocketAddr,
}

impl Ground {
    async fn start(context: &Context) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("adit-").tempdir()?;
        let service = Fixture::start(dir.path(), "web", None).await?;
        let listen = steady_port()?;
        let mut plan =
            StagePlan::of(&context.version).service("far", format!("http://{}", service.addr));
        plan.settings.listen = listen;
        let mut stage = plan.start().await?;
        let bound = stage.connector.bound().await?;
        // The next start takes the same port: the manifest stays as it is.
        stage.connector.set("bind", json!(bound));
        let addr = stage.addr();
        until("a first answer", async || {
            let answer = get(addr, "far.test", "/echo").await.ok()?;
            (answer.status == 200).then_some(())
        })
        .await?;
        Ok(Self {
            stage,
            service,
            listen,
        })
    }

    fn load(&self) -> Load {
        load::Plan::get(self.listen, "far.test", "/echo").begin()
    }

    fn pid(&self, who: Who) -> Result<u32> {
        match who {
            Who::Dialer => self.stage.gateway.dialer_pid(),
            Who::Envoy => self.stage.gateway.envoy_pid(),
            Who::Run => Ok(self.stage.gateway.process.pid()),
            Who::Connector => Ok(self.stage.connector.process()?.pid()),
            Who::Service => Ok(self.service.process.pid()),
        }
    }

    /// SIGKILL, and what follows that nobody else does.
    async fn kill(&mut self, context: &Context, who: Who) -> Result<()> {
        match who {
            Who::Dialer | Who::Envoy => signal_pid(self.pid(who)?, Signal::KILL)?,
            Who::Run => {
                let (envoy, dialer) = (self.pid(Who::Envoy)?, self.pid(Who::Dialer)?);
                self.stage.gateway.process.kill()?;
                until("end of the children", async || {
                    (is_gone(envoy) && is_gone(dialer)).then_some(())
                })
                .await?;
                let mut settings = Settings::of(&context.version);
                settings.listen = self.listen;
                let dir = self.stage.dir.path();
                self.stage.gateway = Gateway::start(dir, &self.stage.dialer, &settings).await?;
            }
            Who::Connector => {
                self.stage.connector.kill()?;
                tokio::time::sleep(AWAY).await;
                self.stage.connector.start().await?;
            }
            Who::Service => {
                self.service.process.kill()?;
                tokio::time::sleep(AWAY).await;
                let (dir, addr) = (self.stage.dir.path(), self.service.addr);
                self.service = Fixture::start(dir, "web", Some(addr)).await?;
            }
        }
        Ok(())
    }
}

/// A zombie waits for init; it holds nothing.
fn is_gone(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.map_or(true, |s| s.contains(") Z"))
}

async fn killed(context: &Context, who: Who) -> Result<String> {
    // From the kill, or from the return of what this scenario brings back.
    let (again, longest) = match who {
        Who::Dialer => (3.0, 8.0),
        Who::Envoy => (5.0, 8.0),
        Who::Run => (8.0, 12.0),
        Who::Connector => (6.0, 12.0),
        Who::Service => (1.0, 8.0),
    };
    let mut ground = Ground::start(context).await?;
    let load = ground.load();
    tokio::time::sleep(Duration::from_secs(context.scale(1, 5))).await;
    ground.kill(context, who).await?;
    let cured = load.elapsed();
    tokio::time::sleep(Duration::from_secs_f64(again + context.scale(1.0, 5.0))).await;
    look(load, cured, again, longest).await
}

async fn stopped(context: &Context, who: Who) -> Result<String> {
    let (span, again, longest) = match who {
        Who::Dialer => (LONG, 3.0, 15.0),
        Who::Connector => (LONG, 3.0, 12.0),
        Who::Envoy | Who::Service | Who::Run => (WAITS, 1.0, 12.0),
    };
    let ground = Ground::start(context).await?;
    let load = ground.load();
    tokio::time::sleep(Duration::from_secs(1)).await;
    stop(&ground, who, span).await?;
    let cured = load.elapsed();
    tokio::time::sleep(Duration::from_secs_f64(again + context.scale(1.0, 5.0))).await;
    if who == Who::Service {
        let tally = load.end().await?;
        tally.none_lost()?;
        tally.none_failed()?;
        return Ok(format!(
            "{} answered, the slowest after {:.1?}",
            tally.ok, tally.slowest
        ));
    }
    look(load, cured, again, longest).await
}

async fn paused(context: &Context, who: Who) -> Result<String> {
    let ground = Ground::start(context).await?;
    let load = ground.load();
    tokio::time::sleep(Duration::from_secs(1)).await;
    for _ in 0..context.scale(1, 3) {
        stop(&ground, who, AWAY).await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    let tally = load.end().await?;
    tally.none_lost()?;
    tally.none_failed()?;
    Ok(format!(
        "{} answered, the slowest after {:.1?}",
        tally.ok, tally.slowest
    ))
}

/// SIGSTOP, and SIGCONT after a while whatever happens.
async fn stop(ground: &Ground, who: Who, span: Duration) -> Result<()> {
    let pid = ground.pid(who)?;
    signal_pid(pid, Signal::STOP)?;
    let begun = Instant::now();
    tokio::time::sleep(span).await;
    signal_pid(pid, Signal::CONT).with_context(|| format!("{who:?}"))?;
    // On a machine this busy nothing of the sort can be measured.
    ensure!(begun.elapsed() < span * 2, "slept {:?}", begun.elapsed());
    Ok(())
}

/// What became of the load: nothing after `again` seconds since `cured` failed,
/// and nothing took `longest` seconds.
async fn look(load: Load, cured: Duration, again: f64, longest: f64) -> Result<String> {
    let tally = load.end().await?;
    tally.none_lost()?;
    let settled = tally.settled(cured);
    let said = format!(
        "{} of {} answered; the last to fail was sent {settled:.1?} after; the slowest took {:.1?}; {}",
        tally.ok,
        tally.sent(),
        tally.slowest,
        match tally.failures.is_empty() {
            true => "none failed".to_owned(),
            false => tally.failed(),
        }
    );
    ensure!(settled.as_secs_f64() < again, "{said}");
    ensure!(tally.slowest.as_secs_f64() < longest, "{said}");
    ensure!(
        tally.ok > tally.sent() / 4,
        "hardly any was answered: {said}"
    );
    Ok(said)
}
