//! Prometheus and promtool, on which dashboard and alerts are tested: installed,
//! or unpacked from Debian's package into the cache under the home directory.

use std::env;

use anyhow::{Result, ensure};

use crate::debian::Packages;

/// The programs.
const PROGRAMS: [&str; 2] = ["prometheus", "promtool"];
/// Their package. What else it depends on is for its web pages.
const PACKAGES: Packages = Packages {
    folder: "prometheus",
    names: &["prometheus"],
};

/// The programs that are neither installed nor in the cache.
pub fn missing() -> Vec<&'static str> {
    let path = env::var_os("PATH").unwrap_or_default();
    let unpacked = PACKAGES.found().map(|root| root.join("usr/bin"));
    let places: Vec<_> = env::split_paths(&path).chain(unpacked).collect();
    let is_there = |name: &&str| places.iter().any(|dir| dir.join(name).is_file());
    PROGRAMS.into_iter().filter(|p| !is_there(p)).collect()
}

/// Finds the programs, or unpacks Debian's package. Nothing is installed.
pub fn fetch() -> Result<bool> {
    if !missing().is_empty() {
        PACKAGES.fetch()?;
        let left = missing();
        ensure!(
            left.is_empty(),
            "Debian's package has no {}",
            left.join(", ")
        );
    }
    println!("{} are there", PROGRAMS.join(" and "));
    Ok(true)
}
