//! The release build of what the images hold.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

/// The built files, without debug information.
pub struct Parts {
    pub adit: PathBuf,
    pub cp: PathBuf,
    pub module: PathBuf,
}

/// Compiles both programs statically and the module as Envoy needs it; leaves
/// their debug information in `place`, by their names and `.debug`.
pub fn compile(source: &Path, target: &Path, place: &Path) -> Result<Parts> {
    let triple = host()?;
    let release = target.join(&triple).join("release");
    eprintln!("images: compiling adit, statically linked (the first time takes minutes) …");
    for (package, bin) in [("adit-cli", "adit"), ("adit-image-cp", "adit-image-cp")] {
        // For the link alone: what is linked is the same for the module.
        let what = ["--package", package, "--bin", bin, "--"];
        let flags = ["-Ctarget-feature=+crt-static"];
        cargo(
            source,
            target,
            &triple,
            "rustc",
            &[&what[..], &flags].concat(),
        )?;
    }
    eprintln!("images: compiling libadit.so …");
    let module = ["--package=adit-filter", "--lib"];
    cargo(source, target, &triple, "build", &module)?;
    Ok(Parts {
        adit: split(&release.join("adit"), place)?,
        cp: split(&release.join("adit-image-cp"), place)?,
        module: split(&release.join("libadit.so"), place)?,
    })
}

/// Takes the line tables out: two thirds of an image would be theirs. Symbols
/// stay, so that a backtrace names functions.
fn split(built: &Path, place: &Path) -> Result<PathBuf> {
    let name = built.file_name().context("a built file's name")?;
    fs::create_dir_all(place).with_context(|| format!("create {}", place.display()))?;
    let stripped = place.join(name);
    let mut debug = stripped.clone().into_os_string();
    debug.push(".debug");
    for (option, to) in [
        ("--only-keep-debug", debug.as_os_str()),
        ("--strip-debug", stripped.as_os_str()),
    ] {
        let status = Command::new("objcopy")
            .arg(option)
            .arg(built)
            .arg(to)
            .status();
        let status = status.context("run objcopy (binutils)")?;
        ensure!(
            status.success(),
            "objcopy {option} {}: {status}",
            built.display()
        );
    }
    Ok(stripped)
}

fn cargo(source: &Path, target: &Path, triple: &str, verb: &str, what: &[&str]) -> Result<()> {
    // Where the build was made is nobody's business, and must not change it.
    let remap = |from: &Path, to: &str| format!("--remap-path-prefix={}={to}", from.display());
    let flags = [
        remap(source, "/adit"),
        remap(&cargo_home()?, "/cargo"),
        // The files beside the images are a third as large.
        "-Clink-arg=-Wl,--compress-debug-sections=zlib".to_owned(),
    ];
    let status = crate::cargo()
        .current_dir(source)
        .args([verb, "--release", "--locked", "--target", triple])
        .args(what)
        .env("CARGO_TARGET_DIR", target)
        // This form takes paths with spaces.
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .env_remove("RUSTFLAGS")
        .status()
        .context("run cargo build")?;
    ensure!(
        status.success(),
        "the build of the images' files failed: {status}"
    );
    Ok(())
}

/// The triple that this compiler builds for.
fn host() -> Result<String> {
    let said = Command::new("rustc")
        .arg("-vV")
        .output()
        .context("run rustc")?;
    let text = String::from_utf8_lossy(&said.stdout);
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned)
        .context("rustc -vV names no host triple")
}

fn cargo_home() -> Result<PathBuf> {
    match env::var_os("CARGO_HOME") {
        Some(home) => Ok(home.into()),
        None => Ok(PathBuf::from(env::var_os("HOME").context("HOME is not set")?).join(".cargo")),
    }
}
