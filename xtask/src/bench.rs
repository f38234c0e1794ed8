//! `cargo xtask bench`: builds everything in release mode, finds or builds the
//! programs that Adit is measured beside, and hands over to `adit-bench`.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use crate::{envoy, places, root};

/// What `cargo xtask bench` takes.
#[derive(clap::Args)]
pub struct Options {
    /// Shorter loads and fewer rounds
    #[arg(long)]
    quick: bool,
    /// One JSON object on stdout instead of tables
    #[arg(long)]
    json: bool,
    /// Rounds; medians are shown
    #[arg(long, value_name = "N")]
    rounds: Option<u32>,
    /// Only this path or load, or this load on this path, as in
    /// adit/keep-alive-16; the page of the book is then left as it is
    #[arg(long, value_name = "PATH/LOAD")]
    only: Vec<String>,
    /// The Envoy to use, as in 1.40.0
    #[arg(long, value_name = "V")]
    envoy_version: Option<String>,
    /// Shows the paths and loads, and ends
    #[arg(long)]
    list: bool,
    /// Measures nothing: writes the page anew from the last run's numbers
    #[arg(long, conflicts_with_all = ["quick", "rounds", "only", "list"])]
    again: bool,
    /// Runs the criterion benches of the parts instead
    #[arg(long)]
    criterion: bool,
    /// With --criterion: compares with the numbers of this name
    #[arg(long, value_name = "NAME", requires = "criterion")]
    baseline: Option<String>,
    /// With --criterion: keeps the numbers under this name
    #[arg(
        long,
        value_name = "NAME",
        requires = "criterion",
        conflicts_with = "baseline"
    )]
    save_baseline: Option<String>,
}

/// Programs of others that `cargo install` makes: name, package, version, and
/// whether its lock file still compiles.
const CRATES: [(&str, &str, &str, &[&str]); 2] = [
    ("bore", "bore-cli", "0.6.0", &["--locked"]),
    // Its lock file is of 2023 and no longer compiles; TLS and Noise are not
    // used here.
    (
        "rathole",
        "rathole",
        "0.5.0",
        &["--no-default-features", "--features", "server,client"],
    ),
];

/// Programs that Go makes, pinned in `xtask/go/tunnels/go.mod`.
const GO: [(&str, &str); 3] = [
    ("chisel", "github.com/jpillora/chisel"),
    ("frps", "github.com/fatedier/frp/cmd/frps"),
    ("frpc", "github.com/fatedier/frp/cmd/frpc"),
];

/// Builds and measures; true if it could measure.
pub fn run(options: &Options) -> Result<bool> {
    if options.criterion {
        return criterion(options);
    }
    let envoy = envoy::find(options.envoy_version.as_deref())?;
    build()?;
    let mut bench = Command::new(root().join("target/release/adit-bench"));
    bench.env("ENVOY_PATH", envoy);
    bench.env("ADIT_BENCH_BIN", env::join_paths(folders()?)?);
    let flags = [
        ("--quick", options.quick),
        ("--json", options.json),
        ("--list", options.list),
    ];
    bench.args(flags.iter().filter(|(_, on)| *on).map(|(flag, _)| flag));
    if let Some(rounds) = options.rounds {
        bench.args(["--rounds", &rounds.to_string()]);
    }
    if let Some(version) = &options.envoy_version {
        bench.args(["--envoy-version", version]);
    }
    for only in &options.only {
        bench.args(["--only", only]);
    }
    let docs = root().join("docs");
    if options.again {
        bench
            .arg("--from")
            .arg(docs.join("benchmarks/results.json"));
    }
    if options.only.is_empty() && !options.list {
        bench.arg("--write").arg(docs);
    }
    Ok(bench.status().context("run adit-bench")?.success())
}

fn criterion(options: &Options) -> Result<bool> {
    let mut cargo = crate::cargo();
    cargo.args([
        "bench",
        "--locked",
        "--package",
        "adit-bench",
        "--benches",
        "--",
    ]);
    if let Some(name) = &options.baseline {
        cargo.args(["--baseline", name]);
    }
    if let Some(name) = &options.save_baseline {
        cargo.args(["--save-baseline", name]);
    }
    Ok(cargo.status().context("run cargo bench")?.success())
}

fn build() -> Result<()> {
    eprintln!("Building in release mode (the first time takes many minutes) …");
    let packages = ["adit-cli", "adit-filter", "adit-bench"];
    let mut product = crate::cargo();
    product.args(["build", "--release", "--locked", "--bins", "--lib"]);
    for package in packages {
        product.args(["--package", package]);
    }
    let status = product.status().context("run cargo build")?;
    ensure!(status.success(), "the build failed");
    let mut sidecar = crate::cargo();
    sidecar.args(["build", "--release", "--locked"]);
    sidecar
        .arg("--manifest-path")
        .arg(root().join("bench/sidecar/Cargo.toml"));
    sidecar.arg("--target-dir").arg(sidecar_target());
    let status = sidecar.status().context("run cargo build")?;
    ensure!(status.success(), "the sidecar's build failed");
    Ok(())
}

/// Of its own: its dependencies have other features than the product's.
fn sidecar_target() -> PathBuf {
    root().join("target/bench-sidecar")
}

/// Where the other programs are. What cannot be had is missing there, and
/// `adit-bench` says that its path was left out.
fn folders() -> Result<Vec<PathBuf>> {
    let base = places::base().map_err(anyhow::Error::msg)?.join("bench");
    let mut folders = vec![sidecar_target().join("release")];
    for (name, package, version, flags) in CRATES {
        let home = base.join(format!("{name}-{version}"));
        let found = found_or(&home.join("bin").join(name), || {
            let mut cargo = crate::cargo();
            cargo
                .args(["install", package, "--version", version])
                .args(flags);
            cargo.arg("--root").arg(&home);
            cargo
        });
        match found {
            Ok(()) => folders.push(home.join("bin")),
            Err(error) => eprintln!("{name}: {error:#}"),
        }
    }
    let pins = root().join("xtask/go/tunnels");
    let home = base.join(format!("go-{:016x}", pinned(&pins)?));
    fs::create_dir_all(&home).with_context(|| format!("create {}", home.display()))?;
    for (name, package) in GO {
        let found = found_or(&home.join(name), || {
            let mut go = Command::new("go");
            go.current_dir(&pins)
                .env("CGO_ENABLED", "0")
                .env("GOFLAGS", "-p=2 -mod=readonly")
                .env("GOWORK", "off")
                .args(["build", "-trimpath", "-ldflags", "-s -w", "-o"])
                .arg(home.join(name))
                .arg(package);
            go
        });
        if let Err(error) = found {
            eprintln!("{name}: {error:#}");
        }
    }
    folders.push(home);
    Ok(folders)
}

/// Runs what makes a program, unless it is there.
fn found_or(program: &Path, make: impl FnOnce() -> Command) -> Result<()> {
    if program.is_file() {
        return Ok(());
    }
    eprintln!("{}: compiling (some minutes, once) …", program.display());
    let mut command = make();
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("run {:?}", command.get_program()))?;
    ensure!(status.success(), "{command:?} failed: {status}");
    Ok(())
}

/// Another pin is another folder.
fn pinned(module: &Path) -> Result<u64> {
    let sums = fs::read(module.join("go.sum"))
        .with_context(|| format!("read {}", module.join("go.sum").display()))?;
    // FNV-1a: names a folder, guards nothing.
    Ok(sums.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    }))
}
