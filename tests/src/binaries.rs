//! Where the things under test are: `adit`, `libadit.so`, and each Envoy.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use anyhow::{Context, Result, ensure};

use crate::places;

/// The Envoys every end-to-end test runs on.
pub const ENVOYS: [&str; 2] = ["1.39.3", "1.40.0"];

/// The root of the checkout.
pub fn root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.parent().map_or(here.clone(), PathBuf::from)
}

/// The directory of compiled binaries that this very binary came from.
fn target() -> Result<PathBuf> {
    let exe = env::current_exe().context("this program's own path")?;
    let dir = exe.parent().context("a directory")?;
    let dir = match dir.file_name() {
        Some(name) if name == "deps" => dir.parent().unwrap_or(dir),
        _ => dir,
    };
    Ok(dir.to_owned())
}

/// A binary that `cargo build --workspace` makes; those of `ADIT_BIN_DIR` (the
/// images' own, say) are taken instead.
pub fn built(name: &str) -> Result<PathBuf> {
    let elsewhere = env::var_os("ADIT_BIN_DIR").map(|dir| PathBuf::from(dir).join(name));
    if let Some(path) = elsewhere.filter(|path| path.is_file()) {
        return Ok(path);
    }
    let path = target()?.join(name);
    ensure!(
        path.is_file(),
        "{} is missing: run `cargo build --workspace` first, or `cargo xtask test`",
        path.display()
    );
    Ok(path)
}

/// The `adit` binary.
pub fn adit() -> Result<PathBuf> {
    built("adit")
}

/// The module.
pub fn module() -> Result<PathBuf> {
    built("libadit.so")
}

/// An Envoy of exactly this version: `ENVOY_PATH`, one on `PATH`, or the cache
/// that `cargo xtask envoy` fills.
pub fn envoy(version: &str) -> Result<PathBuf> {
    if let Some(path) = elsewhere().iter().find(|(v, _)| v == version) {
        return Ok(path.1.clone());
    }
    let path = root().join("target/envoy").join(version).join("envoy");
    ensure!(
        path.is_file(),
        "Envoy {version} is missing: run `cargo xtask envoy --version {version}`"
    );
    Ok(path)
}

/// The Envoys outside the cache, with their versions; asked once.
fn elsewhere() -> &'static [(String, PathBuf)] {
    static FOUND: OnceLock<Vec<(String, PathBuf)>> = OnceLock::new();
    FOUND.get_or_init(|| {
        let named = env::var_os("ENVOY_PATH").map(PathBuf::from);
        let candidates = named.into_iter().chain(places::on_path("envoy"));
        candidates
            .filter(|path| path.is_file())
            .filter_map(|path| Some((version_of(&path)?, path)))
            .collect()
    })
}

/// What `envoy --version` says, as in `1.40.0`.
pub fn version_of(envoy: &Path) -> Option<String> {
    let output = Command::new(envoy).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (_, rest) = text.split_once("version:")?;
    rest.trim().split('/').nth(1).map(str::to_owned)
}

/// How many workers Envoy gets: two, unless `cargo xtask test --all` says one.
pub fn concurrency() -> u16 {
    let set = env::var("ADIT_TEST_CONCURRENCY").ok();
    set.and_then(|n| n.parse().ok()).unwrap_or(2)
}

/// Whether `cargo xtask test --all` asked for everything.
pub fn all() -> bool {
    env::var_os("ADIT_TEST_ALL").is_some()
}
