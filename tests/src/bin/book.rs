//! Makes the book's reference from the code and checks the book's pages; `cargo
//! xtask docs` runs this. What the pages' commands do is for the tests.

use std::process::ExitCode;

use adit_tests::{
    binaries,
    book::{
        self,
        page::{Fate, Page},
        reference,
    },
};
use anyhow::Result;
use clap::Parser;

#[derive(Parser)]
#[command(
    name = "book",
    about = "Makes docs/reference from the code, checks docs/"
)]
struct Cli {
    /// Change nothing: only say where the reference differs
    #[arg(long)]
    check: bool,
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let check = Cli::parse().check;
    let folder = book::folder().join("reference");
    let differences = reference::differences(&folder, !check).await?;
    for difference in &differences {
        println!("docs/reference/{difference}");
    }
    let same = differences.is_empty() || !check;
    if !same {
        println!("docs/reference is not what the code makes: run `cargo xtask docs`");
    }
    let pages = book::pages()?;
    let wrong = book::faults(&pages);
    for fault in &wrong {
        println!("{fault}");
    }
    count(&pages);
    Ok(match same && wrong.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// Says how many blocks of commands are run, and which are not and why.
fn count(pages: &[Page]) {
    let blocks = |cluster: bool| -> usize {
        let pages = pages.iter().filter(|page| page.cluster == cluster);
        pages.map(|page| page.commands().count()).sum()
    };
    println!(
        "{} pages; blocks of commands: {} run on a machine of their own, {} in a cluster",
        pages.len(),
        blocks(false),
        blocks(true)
    );
    let mut shown = 0;
    for Page { path, blocks, .. } in pages {
        let path = path.strip_prefix(binaries::root()).unwrap_or(path);
        for block in blocks {
            if let Fate::NotRun(why) = &block.fate {
                println!("  not run: {}:{}: {why}", path.display(), block.line);
                shown += 1;
            }
        }
    }
    println!("{shown} are shown and not run");
}
