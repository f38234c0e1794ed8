//! `adit dialer` and `adit connector`: the two ends of a tunnel as processes.

use std::{fs, path::PathBuf, process::ExitCode, sync::Arc};

use anyhow::{Context as _, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::config::Arguments;

/// Runs the dialer until SIGTERM or Ctrl-C.
pub fn dialer(arguments: Arguments<adit_dialer::Options>) -> Result<ExitCode> {
    let settings = arguments.merged()?;
    let log = settings.log.init()?;
    let mut config = settings.options.resolve()?;
    config.log = Some(log);
    runtime()?.block_on(async {
        adit_dialer::run(config, until_signal()?).await?;
        Ok(ExitCode::SUCCESS)
    })
}

/// Runs the connector until SIGTERM or Ctrl-C.
pub fn connector(arguments: Arguments<adit_connector::Options>) -> Result<ExitCode> {
    let settings = arguments.merged()?;
    let log = settings.log.init()?;
    let mut config = match settings.options.resolve() {
        // The line of a bad list entry, when it came from the file.
        Err(error) if arguments.file.is_some() => {
            let path = arguments.file.clone().unwrap_or_default();
            let text = fs::read_to_string(&path).unwrap_or_default();
            anyhow::bail!(error.in_file(&path, &text));
        }
        resolved => resolved?,
    };
    config.log = Some(log);
    config.watched = arguments
        .file
        .clone()
        .map(|path: PathBuf| adit_connector::Watched {
            path,
            read: Arc::new(move || {
                let merged = arguments.merged().map_err(|error| format!("{error:#}"))?;
                Ok(merged.options)
            }),
        });
    runtime()?.block_on(async {
        adit_connector::run(config, until_signal()?).await?;
        Ok(ExitCode::SUCCESS)
    })
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the runtime's threads")
}

/// Cancelled by the first SIGTERM or Ctrl-C. A second one ends the process at
/// once: whoever asks twice does not want to wait for tunnels to drain.
pub fn until_signal() -> Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate()).context("handling SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("handling Ctrl-C")?;
    let token = CancellationToken::new();
    let asked = token.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if asked.is_cancelled() {
                tracing::warn!("asked to stop a second time: ending without a drain");
                std::process::exit(130);
            }
            asked.cancel();
        }
    });
    Ok(token)
}
