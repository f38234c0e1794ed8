//! The DNS servers that signed updates are tested on: Knot and BIND, installed,
//! or unpacked from Debian's packages into the cache under the home directory.

use std::{env, path::PathBuf};

use anyhow::{Result, ensure};

use crate::debian::Packages;

/// The programs.
const PROGRAMS: [&str; 2] = ["knotd", "named"];
/// Their packages, with the libraries that a small system lacks.
const PACKAGES: Packages = Packages {
    folder: "dns",
    names: &[
        "knot",
        "libknot13",
        "libdnssec9",
        "libzscanner4",
        "liburcu8",
        "liblmdb0",
        "libxdp1",
        "libbpf1",
        "bind9",
        "bind9-libs",
        "libjemalloc2",
        "libmaxminddb0",
        "libfstrm0",
        "libprotobuf-c1",
    ],
};

/// The programs that are neither installed nor in the cache.
pub fn missing() -> Vec<&'static str> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = env::split_paths(&path).collect();
    places.push("/usr/sbin".into());
    places.extend(PACKAGES.found().map(|root| root.join("usr/sbin")));
    let is_there = |name: &&str| places.iter().any(|dir| dir.join(name).is_file());
    PROGRAMS.into_iter().filter(|p| !is_there(p)).collect()
}

/// Finds the programs, or unpacks Debian's packages. Nothing is installed.
pub fn fetch() -> Result<bool> {
    if !missing().is_empty() {
        PACKAGES.fetch()?;
        let left = missing();
        ensure!(
            left.is_empty(),
            "Debian's packages have no {}",
            left.join(", ")
        );
    }
    println!("{} are there", PROGRAMS.join(" and "));
    Ok(true)
}
