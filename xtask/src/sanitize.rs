//! `cargo xtask sanitize`: the module's unsafe part under what sees more than a
//! passing test. The tests of `filter/src/abi/host` call its hooks as Envoy does
//! and worse; here they run
//! * with AddressSanitizer: use after free, reads beyond an end, leaks;
//! * under valgrind: the same without instrumentation, and uninitialised bytes.
//!
//! Then a real Envoy under valgrind, with requests through the module.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{places, root, step};

/// What `cargo xtask sanitize` takes.
#[derive(clap::Args)]
pub struct Options {
    /// Leaves out Envoy under valgrind
    #[arg(long)]
    no_envoy: bool,
}

/// In the name of the tests that leak on purpose.
const LEAKING: &str = "leaks";
/// What valgrind ends with when it found something.
const FOUND: &str = "--error-exitcode=99";

/// Runs what this machine can; true if nothing was found.
pub fn run(options: &Options) -> Result<bool> {
    let mut steps = Vec::new();
    let mut left_out = Vec::new();
    match runtime()? {
        Some(target) => steps.push(step::function("AddressSanitizer", || address(&target))),
        None => left_out.push("AddressSanitizer, because this toolchain has no runtime for it"),
    }
    if places::on_path("valgrind").next().is_some() {
        steps.push(step::function("valgrind", memcheck));
        if !options.no_envoy {
            steps.push(step::function("Envoy under valgrind", envoy));
        }
    } else {
        left_out.push("valgrind, because it is missing (Debian's package valgrind)");
    }
    left_out.push("Miri, because the tests have real sockets, which it does not know");
    let ok = step::summary(&steps);
    for what in left_out {
        println!("left out: {what}");
    }
    Ok(!steps.is_empty() && ok)
}

/// This machine's target, if the toolchain has AddressSanitizer's runtime for it.
fn runtime() -> Result<Option<String>> {
    let said = |arguments: &[&str]| -> Result<String> {
        let output = Command::new("rustc").args(arguments).output();
        Ok(String::from_utf8(output.context("run rustc")?.stdout)?)
    };
    let version = said(&["-vV"])?;
    let target = version.lines().find_map(|line| line.strip_prefix("host: "));
    let target = target.context("rustc -vV names no host")?;
    let libraries = Path::new(said(&["--print", "sysroot"])?.trim())
        .join("lib/rustlib")
        .join(target)
        .join("lib");
    let mut files = fs::read_dir(&libraries)
        .with_context(|| format!("read {}", libraries.display()))?
        .flatten();
    let there = files.any(|file| file.file_name().to_string_lossy().contains("rt.asan"));
    Ok(there.then(|| target.to_owned()))
}

/// The module's tests, compiled with AddressSanitizer in a folder of their own,
/// which goes again: nothing else is compiled like that.
fn address(target: &str) -> Result<bool> {
    let folder = root().join("target/sanitize");
    let status = crate::cargo()
        .args([
            "test",
            "--locked",
            "--package",
            "adit-filter",
            "--lib",
            "--target",
            target,
        ])
        .arg("--target-dir")
        .arg(&folder)
        .args(["--", "--skip", LEAKING])
        // A stable compiler knows the flag, and takes it only so.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTFLAGS", "-Zsanitizer=address")
        .env("ASAN_OPTIONS", "detect_leaks=1:strict_string_checks=1")
        .status()
        .context("run cargo test")?;
    let _ = fs::remove_dir_all(&folder);
    Ok(status.success())
}

/// The module's tests as they are, under valgrind.
fn memcheck() -> Result<bool> {
    let binary = test_binary("adit-filter", "adit")?;
    let status = Command::new("valgrind")
        .args(["--tool=memcheck", "--quiet", FOUND])
        .args([
            "--leak-check=full",
            "--errors-for-leak-kinds=definite,indirect",
        ])
        .args(["--track-origins=yes", "--num-callers=30"])
        .arg(&binary)
        .args(["abi::", "--test-threads=1", "--skip", LEAKING])
        .current_dir(root().join("filter"))
        .stdin(Stdio::null())
        .status()
        .context("run valgrind")?;
    Ok(status.success())
}

/// The binary of a package's unit tests; compiles it as `cargo test` does.
fn test_binary(package: &str, target: &str) -> Result<PathBuf> {
    let output = crate::cargo()
        .args(["test", "--workspace", "--locked", "--lib", "--no-run"])
        .arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit())
        .output()
        .context("run cargo test --no-run")?;
    ensure!(
        output.status.success(),
        "cargo test --no-run: {}",
        output.status
    );
    let mut messages = output.stdout.split(|b| *b == b'\n');
    let found = messages.find_map(|line| {
        let message: Value = serde_json::from_slice(line).ok()?;
        let is_it = message["target"]["name"] == target && message["profile"]["test"] == true;
        let of_package = message["package_id"].as_str()?.contains(package)
            || message["manifest_path"]
                .as_str()?
                .ends_with("/filter/Cargo.toml");
        (is_it && of_package).then(|| message["executable"].as_str().map(PathBuf::from))?
    });
    found.with_context(|| format!("cargo named no test binary of {package}"))
}

/// A real Envoy with one worker under valgrind, and end-to-end tests on it. Envoy
/// has faults of its own in valgrind's eyes; what counts are those with a line of
/// the module in them.
fn envoy() -> Result<bool> {
    let real = crate::envoy::find(Some(ENVOY))?;
    let folder = env::temp_dir().join(format!("adit-sanitize-{}", std::process::id()));
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    let judged = wrap(&real, &folder).and_then(|wrapper| {
        let status = crate::cargo()
            .args([
                "test",
                "--workspace",
                "--locked",
                "--test",
                "bare",
                "--test",
                "filter_stream",
            ])
            .args(["--", ENVOY_TESTS, "--test-threads=1"])
            .env("ENVOY_PATH", wrapper)
            .env("ADIT_TEST_CONCURRENCY", "1")
            .status()
            .context("run cargo test")?;
        Ok(judge(&folder)? && status.success())
    });
    let _ = fs::remove_dir_all(&folder);
    judged
}

/// The Envoy that is started so, and the tests' names on it.
const ENVOY: &str = "1.40.0";
const ENVOY_TESTS: &str = "::envoy_1_40";

/// A program that is Envoy under valgrind.
fn wrap(real: &Path, folder: &Path) -> Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let wrapper = folder.join("envoy");
    let text = format!(
        "#!/bin/sh\n\
         # Envoy's malloc is its own, and the module's with it: valgrind has to be told.\n\
         exec valgrind --tool=memcheck --soname-synonyms=somalloc=NONE -v --error-limit=no \\\n\
         --num-callers=40 --log-file='{}/log.%p' '{}' \"$@\"\n",
        folder.display(),
        real.display()
    );
    fs::write(&wrapper, text).with_context(|| format!("write {}", wrapper.display()))?;
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755))?;
    Ok(wrapper)
}

/// Reads what valgrind has written; true if it watched the module and found
/// nothing in it.
fn judge(folder: &Path) -> Result<bool> {
    let (mut watched, mut found) = (0, 0);
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_none() {
            continue;
        }
        let log = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        watched += usize::from(has_watched(&log));
        for fault in faults(&log) {
            found += 1;
            eprintln!("{fault}\n");
        }
    }
    println!("{watched} Envoys with the module watched, {found} faults with the module in them");
    Ok(watched > 0 && found == 0)
}

/// Whether this Envoy had the module loaded, and valgrind its memory in hand.
fn has_watched(log: &str) -> bool {
    let loaded = log
        .lines()
        .any(|l| l.contains("Reading syms from") && l.contains("libadit.so"));
    let in_hand = log
        .lines()
        .any(|l| l.contains("REDIR") && l.contains(":malloc) redirected"));
    loaded && in_hand
}

/// The faults in a log of valgrind whose calls go through the module.
fn faults(log: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut block = Vec::new();
    for line in log.lines().chain(["====="]) {
        let text = line
            .trim_start_matches('=')
            .trim_start_matches(|c: char| c.is_ascii_digit());
        let text = text.trim_start_matches('=').trim();
        if line.starts_with("==") && !text.is_empty() {
            block.push(text);
        } else {
            let calls = block
                .iter()
                .any(|l| l.starts_with("at 0x") || l.starts_with("by 0x"));
            if calls && block.iter().any(|l| l.contains("libadit.so")) {
                found.push(block.join("\n"));
            }
            block.clear();
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "--7-- Reading syms from /t/libadit.so\n\
        --7-- REDIR: 0x62 (???:malloc) redirected to 0x79 (malloc)\n\
        ==7== Use of uninitialised value of size 8\n\
        ==7==    at 0x1: ??? (in /t/envoy)\n\
        ==7== \n\
        ==7== Invalid read of size 8\n\
        ==7==    at 0x2: read (socket.rs:1)\n\
        ==7==    by 0x3: ??? (in /t/libadit.so)\n\
        ==7== \n";

    #[test]
    fn envoys_own_faults_are_not_the_modules() {
        assert!(has_watched(LOG));
        let found = faults(LOG);
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("Invalid read of size 8"));
        assert!(!has_watched("--7-- Reading syms from /t/libadit.so\n"));
    }
}
