//! Network, mount and process namespaces of a test binary's own: Envoy Gateway's
//! ports are fixed (18000, 18002, 8081, 19000, 19001), and whatever a test binary
//! started must end with it, however it ends.

use std::{
    env,
    ffi::OsStr,
    io::{self, Write as _},
    path::Path,
    process::{Command, Stdio, exit},
    sync::Mutex,
};

use anyhow::{Context, Result, bail};

use super::programs;

/// Set inside, so that nothing enters twice.
const INSIDE: &str = "ADIT_KUBE_INSIDE";
/// Set to keep the folder with all logs when the tests have ended.
const KEEP: &str = "ADIT_KUBE_KEEP";

/// Whether this process is in namespaces of its own.
pub fn is_inside() -> bool {
    env::var_os(INSIDE).is_some()
}

/// The first call of every test that needs a [`super::Stack`]. Outside, it runs
/// this same binary with the same arguments in new namespaces and **ends this
/// process** with that one's exit code; inside, it does nothing. So the tests of
/// a binary run once, in one namespace, whatever started them.
///
/// Where the control plane's binaries are missing, it says so and ends the
/// process: no test has failed, and no `test result:` line counts one as passed.
pub fn enter() -> Result<()> {
    // Tests run in parallel: the others wait here until the process ends.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock();
    if is_inside() {
        return Ok(());
    }
    if let Err(missing) = programs::ensure_all() {
        say(&format!(
            "\nLEFT OUT: all tests of this binary: {missing:#}"
        ));
        exit(0);
    }
    let dir = tempfile::Builder::new().prefix("adit-kube-").tempdir()?;
    let exe = env::current_exe().context("this program's own path")?;
    let status = wrap(&exe, env::args_os().skip(1))?
        .env("TMPDIR", dir.path())
        .status()
        .context("run unshare")?;
    if env::var_os(KEEP).is_some() {
        say(&format!("kept: {}", dir.keep().display()));
    } else {
        drop(dir);
    }
    exit(status.code().unwrap_or(101))
}

/// On stderr, past the capturing of what a test prints: the process ends here.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// A command that runs a program in new namespaces with loopback up; all that it
/// starts ends with it.
pub fn wrap(
    program: &Path,
    arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
) -> Result<Command> {
    let probe = unshare()
        .args(["sh", "-c", "ip link set lo up"])
        .stdin(Stdio::null())
        .output()
        .context("run setpriv and unshare (util-linux)")?;
    if !probe.status.success() {
        bail!(
            "this needs network, mount and process namespaces of its own, because Envoy Gateway's \
             ports are fixed, and may not make them: {}; run it as root, or where \
             `unshare --map-root-user --net --mount --pid --fork ip link set lo up` works",
            String::from_utf8_lossy(&probe.stderr).trim()
        );
    }
    let mut command = unshare();
    command
        .args(["sh", "-c", "ip link set lo up && exec \"$0\" \"$@\""])
        .arg(program)
        .args(arguments)
        .env(INSIDE, "1");
    Ok(command)
}

/// It is killed when the thread that starts it ends, as it does with its process,
/// and its child with it: whoever kills a test binary leaves nothing behind.
fn unshare() -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "unshare"]);
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    command.args([
        "--net",
        "--mount",
        "--mount-proc",
        "--pid",
        "--fork",
        "--kill-child",
    ]);
    command
}
