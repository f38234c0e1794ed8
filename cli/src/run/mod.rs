//! `adit run`: a directory of manifests becomes a running Envoy and dialer.
//!
//! ```text
//! manifests ─► model ─► STATE/{cds,rds,lds,dialer}.json
//!                            │            │
//!              leash ─► Envoy         dialer ◄─ leash      (die with us)
//! ```

mod child;
mod envoy;
mod options;
mod state;

use std::{collections::BTreeSet, process::ExitCode, time::Duration};

use adit_reconciler::{
    Diagnostic,
    compile::{self, Classes, Options as CompileOptions},
    emit::{EmitError, Files, Resources, Setting},
    follow::{Applied, Follower, Look},
    source::{Directory, Watch},
};
use anyhow::{Context as _, bail};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{notify, options::merge};
use child::{Fault, Spec};
use state::State;

pub(crate) use child::{LEASH, leash};
pub(crate) use envoy::find as find_envoy;
pub(crate) use options::{DEFAULT_DEADLINE, RunArgs, default_authorities};

/// For Envoy and dialer to be ready; a cold disk may be slow.
const START: Duration = Duration::from_secs(60);
/// A cluster stays this long after its last route, for requests that chose it
/// just before and still wait or retry.
const LINGER: Duration = Duration::from_secs(2);

pub(crate) fn main(args: RunArgs) -> anyhow::Result<ExitCode> {
    let options = merge(&args.options, args.options_file.as_deref())?;
    options.log.init()?;
    // Children die when the *thread* that started them does, so everything is
    // done on this one.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(run(args.config, options));
    runtime.shutdown_background();
    result
}

async fn run(
    manifests: std::path::PathBuf,
    options: options::RunOptions,
) -> anyhow::Result<ExitCode> {
    if !manifests.is_dir() {
        bail!("{} is no directory of manifests", manifests.display());
    }
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let envoy = envoy::find(options.envoy.as_deref()).await?;
    let module = options.module()?;
    let state = State::open(&options)?;
    let compile = CompileOptions {
        listen: options.listen(),
        deadline: options.deadline.unwrap_or(DEFAULT_DEADLINE).0,
        output: compile::Output::Files {
            ca_file: options.authorities()?,
        },
        classes: Classes::IfAny,
    };
    let setting = Setting {
        module,
        dialer_socket: state.dialer_socket.clone(),
        routes_file: state.files.routes(),
        html_page: options.html_page()?,
        access_log: options.access_log()?,
    };
    let mut gateway = Gateway::new(Follower::new(Directory::new(&manifests), compile, setting));
    let (mut watch, unwatched) = Watch::new(&manifests);
    if let Some(error) = unwatched {
        tracing::warn!("{error}");
    }
    let first = gateway.look();
    let mut files = Files::start(state.files.clone(), first.resources.clone())?;
    gateway.follower.accept(first);

    let stop = CancellationToken::new();
    let (faults, mut faulty) = mpsc::channel(16);
    let dialer = Spec::dialer(&options, &state)?;
    let grace = dialer.grace;
    let envoy = Spec::envoy(&envoy, &options, &state, files.refusal(), grace);
    let children = [
        tokio::spawn(child::supervise(dialer, stop.clone(), faults.clone())),
        tokio::spawn(child::supervise(envoy, stop.clone(), faults)),
    ];
    let listening = tokio::select! {
        ready = timeout(START, child::ready(files.admin(), &state)) => ready.ok(),
        reason = child::refused(files.refusal()) => {
            stop.cancel();
            end(children).await;
            bail!("Envoy refused its first configuration: {reason}");
        }
        fault = first_fault(&mut faulty) => {
            stop.cancel();
            end(children).await;
            bail!("{fault}; its log above says why");
        }
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
    };
    let Some(address) = listening else {
        stop.cancel();
        end(children).await;
        bail!(
            "Envoy and dialer were not ready in time (at most {} s)",
            START.as_secs()
        );
    };
    if address != gateway.follower.options.listen {
        gateway.follower.options.listen = address;
        files.pin(&gateway.look().resources)?;
    }
    println!("listening on http://{address}");
    tracing::info!(%address, "ready");
    notify::ready();

    loop {
        let prune = async {
            match files.prune_at() {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = watch.changed() => gateway.follow(&mut files).await,
            () = prune => {
                if let Err(error) = files.prune().await {
                    tracing::error!("{error}");
                }
            }
            Some(fault) = faulty.recv() => tracing::error!("{fault}"),
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    notify::stopping();
    tracing::info!(
        "told to end: open requests may finish within {} s",
        grace.as_secs()
    );
    tokio::select! {
        () = drain(&files, grace) => {}
        _ = terminate.recv() => tracing::warn!("told to end a second time: ending now"),
        _ = interrupt.recv() => tracing::warn!("told to end a second time: ending now"),
    }
    stop.cancel();
    end(children).await;
    Ok(ExitCode::SUCCESS)
}

/// Follows the manifests and says so.
struct Gateway {
    follower: Follower,
    /// Diagnostics that were logged already.
    said: BTreeSet<String>,
    /// What Envoy refused whole: not tried again until it changes.
    refused: Option<Resources>,
}

impl Gateway {
    fn new(follower: Follower) -> Self {
        Self {
            follower,
            said: BTreeSet::new(),
            refused: None,
        }
    }

    /// Looks at the manifests; what is wrong is logged once.
    fn look(&mut self) -> Look {
        let look = self.follower.look();
        let mut said = BTreeSet::new();
        for diagnostic in &look.diagnostics {
            let text = diagnostic.to_string();
            if !self.said.contains(&text) {
                report(diagnostic);
            }
            said.insert(text);
        }
        if !self.said.is_empty() && said.is_empty() {
            tracing::info!("all manifests are good again");
        }
        self.said = said;
        look
    }

    async fn follow(&mut self, files: &mut Files) {
        let look = self.look();
        if self.refused.as_ref() == Some(&look.resources) {
            return;
        }
        let resources = look.resources.clone();
        let started = Instant::now();
        let applied = self.follower.apply(look, files).await;
        let ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.refused = None;
        match applied {
            Ok(Applied::Nothing) => {}
            Ok(Applied::Whole) => tracing::info!(ms, "the manifests' changes are in effect"),
            Ok(Applied::Without(count)) => {
                tracing::warn!(
                    ms,
                    count,
                    "the manifests' changes are in effect but for what Envoy refused"
                );
                self.look();
            }
            Err(error) => {
                tracing::error!("{error}");
                // Refused once is refused again; the rest may mend by itself.
                if matches!(error, EmitError::Refused { .. }) {
                    self.refused = Some(resources);
                }
            }
        }
    }
}

fn report(diagnostic: &Diagnostic) {
    match diagnostic.is_error() {
        true => tracing::error!("{diagnostic}"),
        false => tracing::warn!("{diagnostic}"),
    }
}

/// The first fault that will not mend itself.
async fn first_fault(faults: &mut mpsc::Receiver<Fault>) -> Fault {
    loop {
        match faults.recv().await {
            Some(fault) if fault.times >= child::HOPELESS => return fault,
            Some(fault) => tracing::warn!("{fault}"),
            None => std::future::pending().await,
        }
    }
}

/// Lets Envoy finish what it has: no new connections, `connection: close` and
/// GOAWAY on the others.
async fn drain(files: &Files, grace: Duration) {
    let admin = files.admin();
    let drained = async {
        admin.post("/drain_listeners?graceful&skip_exit").await?;
        let mut idle = 0;
        // A worker counts a request off just before what it wrote last is counted
        // as waiting, so one look may fall between the two.
        while idle < 2 {
            sleep(Duration::from_millis(50)).await;
            let stats = admin.stats("http.adit.downstream_").await?;
            idle = if is_idle(&stats) { idle + 1 } else { 0 };
        }
        Ok::<_, adit_reconciler::emit::AdminError>(())
    };
    match timeout(grace, drained).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!("{error}"),
        Err(_) => tracing::warn!(
            "requests that did not finish within {} s are cut",
            grace.as_secs()
        ),
    }
}

/// Whether Envoy has no request, and nothing that a slow client has not taken yet:
/// Envoy calls a request done when its answer's end is in a buffer of Envoy's.
fn is_idle(stats: &[(String, String)]) -> bool {
    ["rq_active", "cx_tx_bytes_buffered"].iter().all(|what| {
        let mut values = stats.iter().filter(|(name, _)| name.ends_with(what));
        values.all(|(_, value)| value == "0")
    })
}

async fn end(children: [tokio::task::JoinHandle<()>; 2]) {
    for child in children {
        let _ = child.await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envoy_with_unsent_bytes_is_not_idle() {
        let idle = |active: &str, unsent: &str| {
            let stat = |name: &str, value: &str| {
                (format!("http.adit.downstream_{name}"), value.to_owned())
            };
            is_idle(&[
                stat("cx_active", "3"),
                stat("rq_active", active),
                stat("cx_tx_bytes_buffered", unsent),
                stat("rq_total", "7"),
            ])
        };
        assert!(idle("0", "0"));
        assert!(!idle("1", "0"));
        assert!(!idle("0", "1053301"));
    }
}
