//! What `cargo xtask kube scale` takes. It and the program that measures
//! (`kube_scale` of the tests crate) compile this same file, so that bad input
//! is named before anything is built.

use clap::{ValueEnum, builder::RangedU64ValueParser};

/// Namespaces that the HTTPProxies and Connectors are spread over.
pub const NAMESPACES: u32 = 20;

/// What to measure, and how it is printed.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct Options {
    /// HTTPProxies, for the reconciler
    #[arg(default_value_t = 1000, value_parser = within(1))]
    pub proxies: u32,
    /// Connectors, for the reconciler; at least one in each of its 20 namespaces
    #[arg(default_value_t = 200, value_parser = within(NAMESPACES))]
    pub connectors: u32,
    /// Measures only one of both
    #[arg(long, value_name = "PART")]
    pub only: Option<Part>,
    /// Policies at once, for Envoy Gateway
    #[arg(
        long,
        value_name = "COUNT,…",
        value_delimiter = ',',
        default_values_t = [10, 100, 1000],
        value_parser = within(1),
    )]
    pub policies: Vec<u32>,
    /// Prints one line of JSON for each part; the tables go to stderr
    #[arg(long)]
    pub json: bool,
}

/// Whose time is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// The reconciler's, with Envoy Gateway stopped
    Reconciler,
    /// Envoy Gateway's translation, with our policies and without
    EnvoyGateway,
}

/// More than that does not fit on one machine.
fn within(least: u32) -> RangedU64ValueParser<u32> {
    RangedU64ValueParser::new().range(u64::from(least)..=20_000)
}
