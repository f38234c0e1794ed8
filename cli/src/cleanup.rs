//! `adit cleanup`: removes what `adit reconciler` made, before it is uninstalled.

use std::process::ExitCode;

use adit_reconciler::kubernetes::cleanup;
use clap::Args;

use crate::{options::LogOptions, role::until_signalled};

/// The options of `adit cleanup`.
#[derive(Debug, Args)]
pub(crate) struct CleanupArgs {
    #[command(flatten)]
    options: cleanup::Options,
    #[command(flatten)]
    log: LogOptions,
}

pub(crate) fn main(args: CleanupArgs) -> anyhow::Result<ExitCode> {
    args.log.init()?;
    let cleanup = args.options.resolve()?;
    let verb = if cleanup.dry_run {
        "would remove"
    } else {
        "removed"
    };
    until_signalled(async |shutdown| {
        let removed = cleanup::cleanup(&cleanup, shutdown).await?;
        println!("{verb} {removed}");
        Ok(())
    })
}
