//! What a large cluster costs: the reconciler with Envoy Gateway stopped
//! ([`reconciler`]), then Envoy Gateway's own translation with our policies
//! beside the same routes without them ([`translation`]).

/// A line for people: on stderr when stdout is for programs.
macro_rules! say {
    ($options:expr, $($line:tt)*) => {
        match $options.json {
            true => eprintln!($($line)*),
            false => println!($($line)*),
        }
    };
}

#[path = "../../../../xtask/src/kube/scale/options.rs"]
mod options;
mod policies;
mod reconciler;
mod translation;

use adit_tests::kube;
use anyhow::Result;
use clap::Parser;
use serde_json::json;

use self::options::{Options, Part};

/// Measures how the reconciler and Envoy Gateway bear many HTTPProxies.
#[derive(Parser)]
#[command(name = "kube_scale")]
struct Cli {
    #[command(flatten)]
    options: Options,
}

fn main() -> Result<()> {
    let options = Cli::parse().options;
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
    };
    // The second part runs in namespaces of its own, for which this program is
    // started again with the same arguments.
    if !kube::is_inside() && options.only != Some(Part::EnvoyGateway) {
        let figures = runtime()?.block_on(reconciler::measure(&options))?;
        if options.json {
            println!("{}", json!({"reconciler": figures}));
        }
    }
    if options.only != Some(Part::Reconciler) {
        kube::enter()?;
        let figures = runtime()?.block_on(translation::measure(&options))?;
        if options.json {
            println!("{}", json!({"envoy_gateway": figures}));
        }
    }
    Ok(())
}
