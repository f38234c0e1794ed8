//! `cargo xtask helm`: every check of the chart in `helm/adit`. The checks are
//! test targets of the tests crate; this finds or builds what they need, so that
//! none is left out.

use anyhow::{Context, Result, ensure};

use crate::{
    envoy,
    kube::{self, build},
};

/// As text, and on a real API server.
const TARGETS: [&str; 2] = ["helm_chart", "helm_cluster"];

/// What `cargo xtask helm` takes.
#[derive(clap::Args)]
pub struct Options {
    /// Only tests whose name contains this
    filter: Option<String>,
    /// Only the chart as text, without a cluster
    #[arg(long)]
    text: bool,
}

/// Runs the checks; true if the chart is as it should be.
pub fn run(options: &Options) -> Result<bool> {
    let helm = build::tool("helm")?;
    println!("helm {}", helm.display());
    if !options.text {
        build::run()?;
        let missing = kube::cache::missing(&crate::root());
        ensure!(missing.is_empty(), "missing: {}", missing.join(", "));
        for version in envoy::ABI {
            envoy::find(Some(version))?;
        }
    }
    let built = crate::cargo().args(crate::BUILD).status();
    ensure!(
        built.context("run cargo build")?.success(),
        "the build failed"
    );
    let mut test = crate::cargo();
    test.args(["test", "--workspace", "--locked", "--no-fail-fast"]);
    test.env("ADIT_TEST_ALL", "1");
    let targets = if options.text {
        &TARGETS[..1]
    } else {
        &TARGETS
    };
    for target in targets {
        test.args(["--test", target]);
    }
    test.args(["--", "--show-output"]).args(&options.filter);
    Ok(test.status().context("run cargo test")?.success())
}
