//! The book as the tests see it: [`page`] takes a page apart, [`run`] does what
//! its commands say on a [`machine`] of its own, [`mod@reference`] writes the pages
//! that are made from the code.

pub mod kubelet;
pub mod machine;
pub mod page;
pub mod reference;
pub mod run;

use std::path::PathBuf;

use anyhow::{Context, Result};

use self::page::Page;
use crate::binaries;

/// The folder of the book.
pub fn folder() -> PathBuf {
    binaries::root().join("docs")
}

/// Every page of the book, and the README above it.
pub fn pages() -> Result<Vec<Page>> {
    let mut files = page::files(&folder()).context("read docs/")?;
    files.push(binaries::root().join("README.md"));
    let read = |file: &PathBuf| Page::read(file).with_context(|| file.display().to_string());
    files.iter().map(read).collect()
}

/// What is wrong with these pages, as far as can be seen without running anything:
/// blocks that say nothing about what becomes of them, links that lead nowhere.
pub fn faults(pages: &[Page]) -> Vec<String> {
    let faults = pages.iter().flat_map(|page| page.faults.clone());
    let (book, above): (Vec<_>, Vec<_>) = pages
        .iter()
        .cloned()
        .partition(|page| page.path.starts_with(folder()));
    let mut all: Vec<_> = faults.collect();
    all.extend(page::broken_links(&book, &book, &folder()));
    // Nobody reads the README in the book, so its links may lead anywhere.
    all.extend(page::broken_links(&above, pages, &binaries::root()));
    all
}
