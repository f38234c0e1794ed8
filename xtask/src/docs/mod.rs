//! `cargo xtask docs`: the book. The tests' program `book` makes its reference from
//! the code and checks its pages, mdBook makes HTML of them, and with `--check`
//! every command in them is run.

mod html;
pub mod mdbook;

use std::{path::Path, process::Command};

use anyhow::{Context, Result, ensure};

use crate::root;

/// The test targets that follow the pages' commands.
const TESTS: [&str; 2] = ["book", "kube_book"];

/// What `cargo xtask docs` takes.
#[derive(clap::Args)]
pub struct Options {
    /// Change nothing, compare: the reference with the code, every link, and what
    /// every command prints
    #[arg(long)]
    check: bool,
}

/// Makes or checks the book; true if all is well.
pub fn run(options: &Options) -> Result<bool> {
    let mut build = crate::cargo();
    let built = build
        .args(crate::BUILD)
        .status()
        .context("run cargo build")?;
    ensure!(built.success(), "the build failed");
    let mut book = Command::new(root().join("target/debug/book"));
    if options.check {
        book.arg("--check");
    }
    let sound = book.status().context("run target/debug/book")?.success();
    let whole = html(&mdbook::install()?)?;
    let mut ok = sound && whole;
    if options.check {
        ok &= follow()?;
    }
    Ok(ok)
}

/// Makes HTML of the book, if there is an mdBook or it is to be installed.
pub fn make(install: bool) -> Result<bool> {
    let found = match install {
        true => Some(mdbook::install()?),
        false => mdbook::find()?,
    };
    match found {
        Some(mdbook) => html(&mdbook),
        None => {
            println!("left out: there is no mdBook; `cargo xtask docs` compiles it");
            Ok(true)
        }
    }
}

fn html(mdbook: &Path) -> Result<bool> {
    let to = root().join("target/book");
    let clean = mdbook::build(mdbook, &root().join("docs"), &to)?;
    let broken = html::broken_links(&to)?;
    for link in &broken {
        println!("{link}");
    }
    println!("the book is {}", to.join("index.html").display());
    Ok(clean && broken.is_empty())
}

/// Follows every page word for word.
fn follow() -> Result<bool> {
    let mut test = crate::cargo();
    test.args(["test", "--workspace", "--locked", "--no-fail-fast"]);
    for target in TESTS {
        test.args(["--test", target]);
    }
    test.args(["--", "--show-output"]);
    Ok(test.status().context("run cargo test")?.success())
}
