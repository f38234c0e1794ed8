//! What a large cluster costs: the reconciler with Envoy Gateway stopped
//! ([`reconciler`]), then Envoy Gateway's own translation with our policies
//! beside the same routes without them ([`translation`]).

mod policies;
mod reconciler;
mod translation;

use adit_tests::kube;
use anyhow::Result;
use clap::{Parser, ValueEnum};

/// Measures how the reconciler and Envoy Gateway bear many HTTPProxies.
#[derive(Parser)]
struct Options {
    /// HTTPProxies, for the reconciler
    #[arg(default_value_t = 1000)]
    proxies: usize,
    /// Connectors, for the reconciler
    #[arg(default_value_t = 200)]
    connectors: usize,
    /// Measures only one of both
    #[arg(long)]
    only: Option<Part>,
    /// Policies at once, for Envoy Gateway; smallest first
    #[arg(long, value_delimiter = ',', default_values_t = [10, 100, 1000])]
    policies: Vec<usize>,
    /// Prints Envoy Gateway's figures as one line of JSON, too
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    Reconciler,
    EnvoyGateway,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
    };
    // The second part runs in namespaces of its own, for which this program is
    // started again with the same arguments.
    if !kube::is_inside() && options.only != Some(Part::EnvoyGateway) {
        runtime()?.block_on(reconciler::measure(options.proxies, options.connectors))?;
    }
    if options.only != Some(Part::Reconciler) {
        kube::enter()?;
        runtime()?.block_on(translation::measure(&options.policies, options.json))?;
    }
    Ok(())
}
