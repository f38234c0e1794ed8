//! A machine for one page: namespaces of its own, so that ports are as the page
//! writes them and all that it starts ends with it, and folders of its own in
//! place of `/etc`, `/run`, `/var` and `/usr/local`, so that a page may install
//! things. In it a fresh checkout, whose `target` is what is built already.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::{binaries, kube};

/// The Envoy that `cargo xtask envoy` would print.
const ENVOY: &str = "1.40.0";

/// Puts the root together and runs the rest there: `$1` the new root, `$2` the
/// folder to start in.
const ROOT: &str = r#"
set -e
root=$1 folder=$2
shift 2
mount -t tmpfs -o mode=755 tmpfs "$root"
for entry in /* /.[!.]*; do
    to=$root$entry
    if [ -L "$entry" ]; then cp -a "$entry" "$to"
    elif [ "$entry" = /etc ]; then cp -a "$entry" "$to" 2>/dev/null || true
    elif [ "$entry" = /run ] || [ "$entry" = /var ]; then mkdir "$to"
    elif [ -d "$entry" ]; then mkdir "$to"; mount --rbind "$entry" "$to"
    fi
done
mkdir "$root/var/lib" "$root/var/log" "$root/var/tmp"
mount -t tmpfs tmpfs "$root/usr/local"
mkdir "$root/usr/local/bin" "$root/usr/local/lib"
exec chroot "$root" sh -c 'cd "$0" && exec "$@"' "$folder" "$@"
"#;

/// In place of cargo: what a page builds is built.
const CARGO: &str = r#"#!/bin/sh
case "$*" in
build|"build --release") ;;
"xtask envoy") echo "@ENVOY@" ;;
*) echo "cargo $*: the tests of the book know no such command" >&2; exit 1 ;;
esac
"#;

/// A machine.
pub struct Machine {
    dir: TempDir,
}

impl Machine {
    /// Makes one, where `adit` is installed or is to be built first.
    pub fn new(installed: bool) -> Result<Self> {
        let machine = Self {
            dir: tempfile::Builder::new().prefix("adit-book-").tempdir()?,
        };
        for folder in ["root", "bin", "home"] {
            fs::create_dir(machine.dir().join(folder))?;
        }
        check_out(&machine.checkout())?;
        let built = binaries::adit()?;
        let built = built.parent().context("a folder of binaries")?;
        fs::create_dir(machine.checkout().join("target"))?;
        for profile in ["debug", "release"] {
            symlink(built, machine.checkout().join("target").join(profile))?;
        }
        if installed {
            symlink(built.join("adit"), machine.dir().join("bin/adit"))?;
        }
        let envoy = binaries::envoy(ENVOY)?;
        machine.program("cargo", &CARGO.replace("@ENVOY@", &envoy.to_string_lossy()))?;
        Ok(machine)
    }

    /// The folder of everything.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A command that runs this script by bash in the checkout.
    pub fn command(&self, script: &Path) -> Result<Command> {
        let mut arguments: Vec<PathBuf> = vec!["-c".into(), ROOT.into(), "sh".into()];
        arguments.extend([self.dir().join("root"), self.checkout()]);
        arguments.extend(["bash".into(), script.to_owned()]);
        let mut command = kube::wrap(Path::new("sh"), arguments)?;
        command
            .env("HOME", self.dir().join("home"))
            .env("TMPDIR", self.dir())
            .env("PATH", self.path())
            .env_remove("ENVOY_PATH");
        Ok(command)
    }

    fn checkout(&self) -> PathBuf {
        self.dir().join("adit")
    }

    /// Ours first, then the system's, where nobody put what a user would lack.
    fn path(&self) -> String {
        let bin = self.dir().join("bin");
        format!(
            "{}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            bin.display()
        )
    }

    fn program(&self, name: &str, text: &str) -> Result<()> {
        let file = self.dir().join("bin").join(name);
        fs::write(&file, text)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
        Ok(())
    }
}

/// The files that a clone would have, as they are now.
fn check_out(to: &Path) -> Result<()> {
    let root = binaries::root();
    let output = Command::new("git")
        .args(["ls-files", "-z"])
        .current_dir(&root)
        .output()
        .context("run git, which knows the files of a checkout")?;
    ensure!(output.status.success(), "git ls-files: {}", output.status);
    for name in String::from_utf8(output.stdout)?.split('\0') {
        let from = root.join(name);
        // One that is deleted and not yet committed so.
        if name.is_empty() || !from.is_file() {
            continue;
        }
        let file = to.join(name);
        fs::create_dir_all(file.parent().context("a folder")?)?;
        fs::copy(&from, &file).with_context(|| from.display().to_string())?;
    }
    Ok(())
}
