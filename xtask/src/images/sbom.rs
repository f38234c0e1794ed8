//! The list of an image's parts, in CycloneDX 1.5's JSON form
//! (<https://cyclonedx.org/docs/1.5/json/>): what cargo says of the crates that
//! are linked, and what comes from the machine that builds.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::said;
use crate::debian::Packages;

/// Whether the C library is in the binary.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Linked {
    Statically,
    Dynamically,
}

/// What is not from crates.
pub struct Host {
    rust: String,
    glibc: String,
    authorities: String,
    /// `name version` -> SHA-256, from `Cargo.lock`.
    checksums: BTreeMap<(String, String), String>,
}

impl Host {
    pub fn read(source: &Path, authorities: &Packages) -> Result<Self> {
        let lock = fs::read_to_string(source.join("Cargo.lock")).context("read Cargo.lock")?;
        Ok(Self {
            rust: said(Command::new("rustc").arg("--version"))?
                .split_whitespace()
                .nth(1)
                .context("rustc --version names no version")?
                .to_owned(),
            glibc: said(Command::new("getconf").arg("GNU_LIBC_VERSION"))?
                .trim_start_matches("glibc ")
                .to_owned(),
            authorities: authorities
                .version("ca-certificates")
                .unwrap_or_else(|| "unknown".to_owned()),
            checksums: checksums(&lock),
        })
    }
}

/// The list for what `package` becomes.
pub fn of(source: &Path, package: &str, host: &Host, linked: Linked) -> Result<String> {
    let tree = said(crate::cargo().current_dir(source).args([
        "tree",
        "--locked",
        "--package",
        package,
        "--edges=normal",
        "--prefix=none",
        "--no-dedupe",
        "--format={p}|{l}",
    ]))?;
    let mut components: BTreeMap<(String, String), Value> = BTreeMap::new();
    let mut root = None;
    for line in tree.lines() {
        let Some((package, licence)) = line.split_once('|') else {
            continue;
        };
        let mut words = package.split_whitespace();
        let (Some(name), Some(version)) = (words.next(), words.next()) else {
            continue;
        };
        let version = version.trim_start_matches('v');
        root.get_or_insert_with(|| (name.to_owned(), version.to_owned()));
        let key = (name.to_owned(), version.to_owned());
        let mut component = json!({
            "type": "library", "name": name, "version": version,
            "licenses": [{"expression": licence.replace('/', " OR ")}],
        });
        if let Some(hash) = host.checksums.get(&key) {
            component["purl"] = json!(format!("pkg:cargo/{name}@{version}"));
            component["hashes"] = json!([{"alg": "SHA-256", "content": hash}]);
        }
        components.insert(key, component);
    }
    let (name, version) = root.with_context(|| format!("cargo tree says nothing of {package}"))?;
    components.remove(&(name.clone(), version.clone()));
    let mut components: Vec<Value> = components.into_values().collect();
    components.push(json!({
        "type": "library", "name": "rust-std", "version": host.rust,
        "licenses": [{"expression": "MIT OR Apache-2.0"}],
    }));
    if linked == Linked::Statically {
        components.push(json!({
            "type": "library", "name": "glibc", "version": host.glibc,
            "licenses": [{"expression": "LGPL-2.1-or-later"}],
        }));
        components.push(json!({
            "type": "data", "name": "ca-certificates", "version": host.authorities,
            "licenses": [{"expression": "MPL-2.0"}],
        }));
    }
    let list = json!({
        "bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
        "metadata": {"component": {
            "type": "application", "name": name, "version": version,
            "licenses": [{"expression": "Apache-2.0"}],
        }},
        "components": components,
    });
    Ok(format!("{list:#}\n"))
}

/// The checksums that `Cargo.lock` pins.
fn checksums(lock: &str) -> BTreeMap<(String, String), String> {
    let packages = lock.split("[[package]]").skip(1);
    packages
        .filter_map(|package| {
            let field = |name: &str| {
                let start = format!("{name} = \"");
                let line = package.lines().find_map(|l| l.strip_prefix(&start))?;
                Some(line.trim_end_matches('"').to_owned())
            };
            Some(((field("name")?, field("version")?), field("checksum")?))
        })
        .collect()
}
