//! `cargo xtask fuzz`: the fuzz targets, guided by coverage, each for a while.
//! Without a guide they run in every `cargo xtask test`.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{audit, root};

/// What `cargo xtask fuzz` takes.
#[derive(clap::Args)]
pub struct Options {
    /// Which targets; all when none is named
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
    /// Seconds for each
    #[arg(long, default_value_t = 60, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Keeps what was found in the corpus of the repository, as few files as
    /// cover the same
    #[arg(long)]
    keep: bool,
    /// Compiles cargo-fuzz into the cache when it is missing (minutes)
    #[arg(long)]
    build: bool,
}

/// The cargo-fuzz that this is written for.
const CARGO_FUZZ: &str = "0.13.2";
/// Longer than every limit on the wire, short enough for many inputs a second.
const LONGEST: usize = 12 * 1024;

/// Runs the targets one after another; true if none found a fault.
pub fn run(options: &Options) -> Result<bool> {
    let root = root();
    let home = root.join("fuzz");
    let all = targets(&home)?;
    for name in &options.targets {
        ensure!(
            all.contains(name),
            "there is no target {name}; there are {}",
            all.join(", ")
        );
    }
    let targets = if options.targets.is_empty() {
        &all
    } else {
        &options.targets
    };
    let tool = audit::tool("cargo-fuzz", CARGO_FUZZ, options.build)?;
    let Some(tool) = tool else {
        bail!("cargo-fuzz is missing: cargo xtask fuzz --build compiles it (minutes)");
    };
    let cargo_fuzz = |target: &str| fuzz_command(&root, &tool, target);
    let mut ok = true;
    for target in targets {
        println!("=== {target}");
        let corpus = home.join("corpus").join(target);
        // What is found goes into a folder of its own: the repository's corpus
        // changes only when that is asked for.
        let work = root.join("target/fuzz/corpus").join(target);
        fs::create_dir_all(&work).with_context(|| format!("create {}", work.display()))?;
        let mut command = cargo_fuzz(target);
        command.args([&work, &corpus]).args([
            "--".to_owned(),
            format!("-max_total_time={}", options.seconds),
            format!("-max_len={LONGEST}"),
            "-timeout=20".into(),
            "-rss_limit_mb=2048".into(),
            "-print_final_stats=1".into(),
        ]);
        let words = home.join(format!("dictionaries/{target}.dict"));
        if words.is_file() {
            command.arg(format!("-dict={}", words.display()));
        }
        let passed = command.status().context("run cargo-fuzz")?.success();
        ok &= passed;
        if options.keep && passed {
            keep(&mut cargo_fuzz(target), target, &work, &corpus)?;
        }
    }
    Ok(ok)
}

/// The targets that the package has.
fn targets(home: &Path) -> Result<Vec<String>> {
    let folder = home.join("fuzz_targets");
    let entries = fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let path = entry?.path();
        names.extend(
            path.file_stem()
                .map(|name| name.to_string_lossy().into_owned()),
        );
    }
    names.sort();
    Ok(names)
}

/// The targets that need more than the wire: each has a feature of its name.
const FEATURES: [&str; 2] = ["txt", "manifests"];

/// cargo-fuzz on a target, with a nightly compiler, or with a stable one that
/// takes the same flags: coverage and sanitizers are in both.
fn fuzz_command(root: &Path, tool: &Path, target: &str) -> Command {
    let nightly = Command::new("rustc")
        .args(["+nightly", "--version"])
        .stderr(Stdio::null())
        .output()
        .is_ok_and(|said| said.status.success());
    let mut cargo = Command::new(tool);
    // As cargo starts it.
    cargo.args(["fuzz", "run", "--fuzz-dir"]);
    cargo.arg(root.join("fuzz")).current_dir(root);
    cargo.arg("--target-dir").arg(root.join("target/fuzz"));
    if FEATURES.contains(&target) {
        cargo.args(["--features", target]);
    }
    cargo.arg(target);
    if nightly {
        cargo.env("RUSTUP_TOOLCHAIN", "nightly");
        cargo.env_remove("CARGO").env_remove("RUSTC");
    } else {
        cargo.env("RUSTC_BOOTSTRAP", "1");
    }
    cargo
}

/// Replaces the repository's corpus by as few files as cover what it and `work`
/// cover. Inputs that once were a fault keep their place.
fn keep(command: &mut Command, target: &str, work: &Path, corpus: &Path) -> Result<()> {
    let new = corpus.with_extension("new");
    let _ = fs::remove_dir_all(&new);
    fs::create_dir_all(&new)?;
    let status = command
        .args([&new, corpus, work])
        .args(["--", "-set_cover_merge=1", &format!("-max_len={LONGEST}")])
        .status()
        .context("run cargo-fuzz")?;
    ensure!(
        status.success(),
        "{target}: the corpus could not be made smaller: {status}"
    );
    for entry in fs::read_dir(corpus)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_owned();
        if name.as_encoded_bytes().starts_with(b"regression-") {
            fs::copy(&path, new.join(name))?;
        }
    }
    fs::remove_dir_all(corpus)?;
    fs::rename(&new, corpus).context("put the corpus in its place")
}
