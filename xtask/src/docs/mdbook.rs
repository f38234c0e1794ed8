//! mdBook: found on `PATH` or in the cache, else compiled into the cache by
//! `cargo install`. It is no dependency of ours, so that what everybody compiles
//! stays small.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use crate::places;

/// The version that is taken, whatever `PATH` has.
pub const VERSION: &str = "0.5.4";

/// The mdBook of [`VERSION`], if there is one.
pub fn find() -> Result<Option<PathBuf>> {
    if let Some(found) = places::on_path("mdbook").find(|file| is_ours(file)) {
        return Ok(Some(found));
    }
    let cached = home()?.join("bin/mdbook");
    Ok(cached.is_file().then_some(cached))
}

/// [`find`], or compiles it.
pub fn install() -> Result<PathBuf> {
    if let Some(found) = find()? {
        return Ok(found);
    }
    eprintln!("mdBook {VERSION}: compiling (some minutes, once) …");
    let home = home()?;
    let status = crate::cargo()
        .args(["install", "mdbook", "--locked", "--version", VERSION])
        // Neither its server nor its watcher; the search field is for readers.
        .args(["--no-default-features", "--features", "search"])
        .arg("--root")
        .arg(&home)
        .status()
        .context("run cargo install")?;
    ensure!(
        status.success(),
        "mdBook {VERSION} could not be installed; put one on PATH, or `cargo install mdbook \
         --version {VERSION}` by hand"
    );
    Ok(home.join("bin/mdbook"))
}

/// Makes the HTML of `book` in `to`; true if mdBook has nothing to say against it.
pub fn build(mdbook: &Path, book: &Path, to: &Path) -> Result<bool> {
    let output = Command::new(mdbook)
        .arg("build")
        .arg(book)
        .arg("--dest-dir")
        .arg(to)
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .output()
        .context("run mdbook")?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let complaints: Vec<_> = said
        .lines()
        .filter(|line| line.contains("WARN") || line.contains("ERROR"))
        .collect();
    for line in &complaints {
        println!("mdbook: {line}");
    }
    ensure!(
        output.status.success(),
        "mdbook build: {}\n{said}",
        output.status
    );
    Ok(complaints.is_empty())
}

fn home() -> Result<PathBuf> {
    let base = places::base().map_err(anyhow::Error::msg)?;
    Ok(base.join("mdbook").join(VERSION))
}

fn is_ours(mdbook: &Path) -> bool {
    let said = Command::new(mdbook).arg("--version").output();
    said.is_ok_and(|said| {
        String::from_utf8_lossy(&said.stdout).trim() == format!("mdbook v{VERSION}")
    })
}
