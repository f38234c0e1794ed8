//! `adit crds`: the resource types as an API server takes them.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use anyhow::{Context as _, Result};

/// Prints every CustomResourceDefinition, one YAML document each.
pub fn run() -> Result<ExitCode> {
    let mut out = io::stdout().lock();
    for crd in adit_api::crds() {
        let yaml = serde_saphyr::to_string(&crd).context("writing a CustomResourceDefinition")?;
        writeln!(out, "---\n{}", yaml.trim_end())?;
    }
    Ok(ExitCode::SUCCESS)
}
