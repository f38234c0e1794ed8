//! The book against the code: an option or a metric that is renamed here must
//! be renamed there.

use std::{collections::BTreeSet, fs, path::Path};

use clap::{Args as _, Command};

use crate::support::*;

fn page(name: &str) -> String {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    fs::read_to_string(docs.join(name)).unwrap()
}

#[test]
fn every_option_stands_in_the_book() {
    let text = page("reference/adit-connector.md");
    let command = adit_connector::Options::augment_args(Command::new("options"));
    for option in command.get_arguments() {
        let long = option.get_long().unwrap();
        assert!(text.contains(&format!("--{long}")), "{long}");
        let variable = format!("ADIT_{}", long.to_ascii_uppercase().replace('-', "_"));
        assert_eq!(option.get_env(), Some(variable.as_ref()), "{long}");
    }
}

#[tokio::test]
async fn the_books_metrics_are_the_connectors() {
    let rig = rig_with(
        &["127.0.0.1:1"],
        |options| options.endpoint.relay = vec!["http://127.0.0.1:1".into()],
        |_| {},
    )
    .await;
    let text = rig.connector.metrics();
    let real: BTreeSet<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# HELP ")?.split(' ').next())
        .collect();
    let text = page("observe.md");
    let written: BTreeSet<_> = text
        .split('`')
        .filter(|word| word.starts_with("adit_connector_"))
        .map(|word| word.trim_end_matches("_total"))
        .collect();
    assert_eq!(written, real);
}
