//! `adit reconciler`: resources of a Kubernetes API become routes in Envoy Gateway.

use std::process::ExitCode;

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::{
    ConfigFile,
    options::{LogOptions, merge},
    role::until_signalled,
};

/// The options of `adit reconciler`.
#[derive(Debug, Clone, Default, Args, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ReconcilerOptions {
    #[command(flatten)]
    #[serde(flatten)]
    pub options: adit_reconciler::kubernetes::options::Options,
    #[command(flatten)]
    #[serde(flatten)]
    pub log: LogOptions,
}

pub(crate) fn main(args: ConfigFile<ReconcilerOptions>) -> anyhow::Result<ExitCode> {
    let merged = merge(&args.options, args.config.as_deref())?;
    let log = merged.log.init()?;
    let mut config = merged.options.resolve()?;
    config.log = Some(log);
    until_signalled(async |shutdown| Ok(adit_reconciler::kubernetes::run(config, shutdown).await?))
}
