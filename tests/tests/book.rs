//! The book: every link leads somewhere, every page is in the table of contents,
//! every command does what the page says. Pages whose commands need a cluster are
//! followed in `kube_book.rs`; the pages made from the code are compared in
//! `book_reference.rs`.

use std::{collections::BTreeSet, path::Path};

use adit_tests::book::{self, machine::Machine, page, run};
use anyhow::{Context, Result};

#[test]
fn every_link_leads_somewhere_and_every_block_of_commands_is_run_or_says_why_not() {
    let faults = book::faults(&book::pages().unwrap());
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn every_page_is_in_the_table_of_contents() {
    let folder = book::folder();
    let pages = book::pages().unwrap();
    let contents = folder.join("SUMMARY.md");
    let summary = pages.iter().find(|page| page.path == contents).unwrap();
    let listed: BTreeSet<_> = summary
        .links
        .iter()
        .map(|link| folder.join(&link.to))
        .collect();
    let written: BTreeSet<_> = pages
        .iter()
        .map(|page| page.path.clone())
        .filter(|path| path.starts_with(&folder) && *path != contents)
        .collect();
    assert_eq!(listed, written);
}

#[tokio::test]
async fn the_commands_of_every_page_for_one_machine_work() {
    let mut failed = Vec::new();
    let mut ran = 0;
    for page in book::pages().unwrap() {
        let name = page.path.file_name().unwrap_or_default().to_owned();
        let blocks = page.commands().count();
        if page.cluster || blocks == 0 {
            continue;
        }
        let outcome = follow(&page).await;
        println!("{blocks:3} blocks of {}", Path::new(&name).display());
        ran += 1;
        failed.extend(outcome.err().map(|error| format!("{error:#}")));
    }
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
    assert!(ran > 0, "no page has commands");
}

async fn follow(page: &page::Page) -> Result<()> {
    // A page that does not say where it comes from takes it for installed.
    let installed = !page.commands().any(|block| block.text.contains("target/"));
    let machine = Machine::new(installed).context("make a machine")?;
    run::page(page, machine.dir(), |script| machine.command(script)).await
}
