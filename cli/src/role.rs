//! `adit dialer` and `adit connector`: the two roles that run by themselves.

use std::{fs, process::ExitCode, sync::Arc};

use adit_connector::{Connector, Watched};
use anyhow::Context as _;
use clap::Args;
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{
    ConfigFile, notify,
    options::{LogOptions, merge},
};

/// The options of `adit dialer`.
#[derive(Debug, Clone, Default, Args, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct DialerOptions {
    #[command(flatten)]
    #[serde(flatten)]
    pub options: adit_dialer::Options,
    #[command(flatten)]
    #[serde(flatten)]
    pub control: adit_dialer::ControlOptions,
    #[command(flatten)]
    #[serde(flatten)]
    pub log: LogOptions,
}

/// The options of `adit connector`.
#[derive(Debug, Clone, Default, Args, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ConnectorOptions {
    #[command(flatten)]
    #[serde(flatten)]
    pub options: adit_connector::Options,
    #[command(flatten)]
    #[serde(flatten)]
    pub log: LogOptions,
}

pub(crate) fn dialer(args: ConfigFile<DialerOptions>) -> anyhow::Result<ExitCode> {
    let merged = merge(&args.options, args.config.as_deref())?;
    let log = merged.log.init()?;
    let mut config = merged.options.resolve()?;
    config.control = merged.control.resolve()?;
    config.log = Some(log);
    config.on_ready = Some(Arc::new(notify::ready));
    until_signalled(async |shutdown| Ok(adit_dialer::run(config, shutdown).await?))
}

pub(crate) fn connector(args: ConfigFile<ConnectorOptions>) -> anyhow::Result<ExitCode> {
    let merged = merge(&args.options, args.config.as_deref())?;
    let log = merged.log.init()?;
    let mut config = merged.options.resolve().map_err(|error| {
        match (&args.config, error.entry()) {
            // Where the wrong entry stands, if the file has it.
            (Some(path), Some(_)) => {
                let text = fs::read_to_string(path).unwrap_or_default();
                anyhow::anyhow!(error.in_file(path, &text))
            }
            _ => error.into(),
        }
    })?;
    config.log = Some(log);
    if let Some(path) = args.config {
        let (given, file) = (args.options, path.clone());
        let read = move || match merge(&given, Some(&file)) {
            Ok(merged) => Ok(merged.options),
            Err(error) => Err(crate::causes::line(&error)),
        };
        config.watched = Some(Watched {
            path,
            read: Arc::new(read),
        });
    }
    until_signalled(async |shutdown| {
        let grace = config.times.grace;
        let connector = Connector::start(config).await?;
        notify::ready();
        shutdown.cancelled().await;
        connector.drain(grace).await;
        Ok(())
    })
}

/// Runs until SIGTERM or SIGINT, which begins a graceful end; a second one
/// ends at once.
pub(crate) fn until_signalled(
    serve: impl AsyncFnOnce(CancellationToken) -> anyhow::Result<()>,
) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(async {
        let shutdown = CancellationToken::new();
        let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
        let mut serving = std::pin::pin!(serve(shutdown.clone()));
        loop {
            tokio::select! {
                result = &mut serving => return result.map(|()| ExitCode::SUCCESS),
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if shutdown.is_cancelled() {
                tracing::warn!("told to end a second time: ending now");
                return Ok(ExitCode::FAILURE);
            }
            notify::stopping();
            tracing::info!("told to end: open streams may finish within the grace period");
            shutdown.cancel();
        }
    });
    // What still blocks, as a lookup may, is not waited for.
    runtime.shutdown_background();
    result
}
