//! The DNS servers that signed updates are tested on: Knot and BIND, installed,
//! or unpacked from Debian's packages into the cache under the home directory.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use crate::kube::cache;

/// The programs.
const PROGRAMS: [&str; 2] = ["knotd", "named"];
/// Their Debian packages, with the libraries that a small system lacks.
const PACKAGES: [&str; 14] = [
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
];

/// The programs that are neither installed nor in the cache.
pub fn missing() -> Vec<&'static str> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = env::split_paths(&path).collect();
    places.push("/usr/sbin".into());
    if let Ok(cache) = cache::dns() {
        let unpacked = fs::read_dir(cache).into_iter().flatten().flatten();
        places.extend(unpacked.map(|entry| entry.path().join("usr/sbin")));
    }
    let is_there = |name: &&str| places.iter().any(|dir| dir.join(name).is_file());
    PROGRAMS.into_iter().filter(|p| !is_there(p)).collect()
}

/// Finds the programs, or unpacks Debian's packages. Nothing is installed.
pub fn fetch() -> Result<bool> {
    let wanted = missing();
    if wanted.is_empty() {
        println!("{} are there", PROGRAMS.join(" and "));
        return Ok(true);
    }
    let home = cache::dns().map_err(anyhow::Error::msg)?;
    println!("{}: unpacking Debian's packages …", wanted.join(" and "));
    fs::create_dir_all(&home).with_context(|| format!("create {}", home.display()))?;
    let temp = home.join(format!(".debian-{}", std::process::id()));
    fs::create_dir_all(&temp).with_context(|| format!("create {}", temp.display()))?;
    let unpacked = unpack(&temp).and_then(|root| {
        let ready = home.join("debian");
        let _ = fs::remove_dir_all(&ready);
        fs::rename(&root, &ready).with_context(|| format!("move to {}", ready.display()))
    });
    let _ = fs::remove_dir_all(&temp);
    unpacked?;
    let left = missing();
    ensure!(
        left.is_empty(),
        "Debian's packages have no {}",
        left.join(", ")
    );
    Ok(true)
}

fn unpack(temp: &Path) -> Result<PathBuf> {
    let said = Command::new("apt-get")
        .arg("download")
        .args(PACKAGES)
        .current_dir(temp)
        .stdin(Stdio::null())
        .output()
        .context("run apt-get; elsewhere than on Debian, install Knot DNS and BIND by hand")?;
    ensure!(
        said.status.success(),
        "apt-get download: {}; run apt-get update, or install knot and bind9",
        String::from_utf8_lossy(&said.stderr).trim()
    );
    let root = temp.join("root");
    for entry in fs::read_dir(temp)? {
        let package = entry?.path();
        if package.extension().is_some_and(|e| e == "deb") {
            let status = Command::new("dpkg")
                .arg("-x")
                .arg(&package)
                .arg(&root)
                .status();
            let status = status.context("run dpkg")?;
            ensure!(status.success(), "unpack {}: {status}", package.display());
        }
    }
    Ok(root)
}
