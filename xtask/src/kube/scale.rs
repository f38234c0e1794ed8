//! `cargo xtask kube scale`: starts `kube_scale` of the tests crate, which
//! measures.

mod options;

use std::process::Command;

use anyhow::{Context, Result};
use clap::ValueEnum as _;

pub use self::options::Options;
use crate::root;

/// Measures; true if it could.
pub fn run(options: &Options) -> Result<bool> {
    let mut scale = Command::new(root().join("target/debug/kube_scale"));
    scale.args(arguments(options));
    Ok(scale.status().context("run kube_scale")?.success())
}

/// The arguments that say the same.
fn arguments(options: &Options) -> Vec<String> {
    let policies: Vec<_> = options.policies.iter().map(u32::to_string).collect();
    let mut arguments = vec![
        options.proxies.to_string(),
        options.connectors.to_string(),
        format!("--policies={}", policies.join(",")),
    ];
    if let Some(part) = options.only.and_then(|part| part.to_possible_value()) {
        arguments.push(format!("--only={}", part.get_name()));
    }
    if options.json {
        arguments.push("--json".into());
    }
    arguments
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::{options::Part, *};

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        options: Options,
    }

    fn parse(arguments: &[String]) -> Result<Options, clap::Error> {
        let program = std::iter::once("scale".to_owned());
        Cli::try_parse_from(program.chain(arguments.iter().cloned())).map(|cli| cli.options)
    }

    #[test]
    fn what_was_asked_for_is_passed_on_whole() {
        let asked = Options {
            proxies: 40,
            connectors: 20,
            only: Some(Part::EnvoyGateway),
            policies: vec![1, 7],
            json: true,
        };
        assert_eq!(parse(&arguments(&asked)).unwrap(), asked);
        let default = parse(&[]).unwrap();
        assert_eq!(parse(&arguments(&default)).unwrap(), default);
    }

    #[test]
    fn what_cannot_be_measured_is_refused_by_name() {
        for (arguments, named) in [
            (vec!["0"], "0"),
            (vec!["1000", "19"], "19"),
            (vec!["--policies", "10,0"], "0"),
            (vec!["--policies", "many"], "many"),
            (vec!["--only", "envoy"], "envoy"),
            (vec!["--fast"], "--fast"),
        ] {
            let arguments: Vec<_> = arguments.into_iter().map(str::to_owned).collect();
            let error = parse(&arguments).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(named), "{error}");
        }
    }
}
