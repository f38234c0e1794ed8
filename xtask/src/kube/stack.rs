//! The stack that `cargo xtask kube up` leaves running: its files are all in
//! `target/kube`, and its processes are all in namespaces of its own, so that
//! ending the first of them ends all.

use std::{
    ffi::OsString,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::root;

/// A busy machine with two cores needs 20 s.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often it is looked at again.
const LOOK: Duration = Duration::from_millis(100);

/// Starts it and waits until it is ready.
pub fn up() -> Result<bool> {
    if running()?.is_some() {
        println!("it runs already");
        return status();
    }
    let dir = dir();
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    let log = File::create(dir.join("kube.log"))?;
    // A session of its own: Ctrl-C in this terminal does not reach it.
    let mut child = Command::new("setsid")
        .arg(root().join("target/debug/kube"))
        .arg(dir.join("ready"))
        .env("TMPDIR", &dir)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("start target/debug/kube")?;
    fs::write(dir.join("pid"), child.id().to_string())?;
    wait(&dir, &mut child)?;
    status()
}

fn wait(dir: &Path, child: &mut Child) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !dir.join("ready").is_file() {
        let ended = child.try_wait()?;
        if ended.is_some() || Instant::now() > deadline {
            let said = fs::read_to_string(dir.join("kube.log")).unwrap_or_default();
            let _ = down();
            bail!("it does not start within {} s:\n{said}", PATIENCE.as_secs());
        }
        sleep(LOOK);
    }
    Ok(())
}

/// Ends it and removes its files.
pub fn down() -> Result<bool> {
    match running()? {
        None => println!("nothing runs"),
        Some(pid) => {
            let killed = Command::new("kill").arg(pid.to_string()).status();
            killed.context("run kill")?;
            let deadline = Instant::now() + PATIENCE;
            while running()?.is_some() {
                if Instant::now() > deadline {
                    bail!(
                        "process {pid} does not end; its log is in {}",
                        dir().display()
                    );
                }
                sleep(LOOK);
            }
            println!("stopped");
        }
    }
    let _ = fs::remove_dir_all(dir());
    Ok(true)
}

/// Says what runs and how to reach it.
pub fn status() -> Result<bool> {
    let Some(pid) = running()? else {
        println!("nothing runs; start it with `cargo xtask kube up`");
        return Ok(false);
    };
    let kubeconfig = kubeconfig()?;
    println!("running, process {pid}, in a network namespace of its own");
    println!("  KUBECONFIG   {}", kubeconfig.display());
    println!("  logs         {}", dir().display());
    println!("  classes      envoy-1-39 envoy-1-40 no-module merged");
    println!("  inside       cargo xtask kube exec -- CMD   (kubectl, curl, target/debug/adit)");
    println!("  stop         cargo xtask kube down");
    Ok(true)
}

/// Runs a command inside.
pub fn exec(command: &[OsString]) -> Result<bool> {
    let pid = running()?.context("nothing runs: start it with `cargo xtask kube up`")?;
    let inside = inside(pid).context("its processes are gone: `cargo xtask kube down`")?;
    let status = Command::new("nsenter")
        .args(["--target", &inside.to_string()])
        .args(["--net", "--mount", "--pid", "--wd=."])
        .args(command)
        .env("KUBECONFIG", kubeconfig()?)
        .status()
        .context("run nsenter (util-linux)")?;
    Ok(status.success())
}

fn dir() -> PathBuf {
    root().join("target/kube")
}

/// The first process, which is outside of the namespaces, if it runs: one of
/// that id that is ours.
fn running() -> Result<Option<u32>> {
    let Ok(pid) = fs::read_to_string(dir().join("pid")) else {
        return Ok(None);
    };
    let pid: u32 = pid.trim().parse().context("target/kube/pid")?;
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let line = String::from_utf8_lossy(&line).into_owned();
    let ours = line.contains(&*dir().to_string_lossy());
    Ok(ours.then_some(pid))
}

/// The last of the chain of first children: kube → unshare → kube inside.
fn inside(pid: u32) -> Option<u32> {
    let mine = fs::read_link(format!("/proc/{pid}/ns/net")).ok()?;
    let mut at = pid;
    loop {
        // A child may have been started by any thread.
        let tasks = fs::read_dir(format!("/proc/{at}/task")).ok()?;
        let children: String = tasks
            .filter_map(|task| fs::read_to_string(task.ok()?.path().join("children")).ok())
            .collect();
        at = children.split_whitespace().next()?.parse().ok()?;
        // `unshare --fork` has left the network namespace already; its child has
        // left the process namespace too.
        let parent = fs::read_link(format!("/proc/{at}/ns/pid")).ok()?;
        let outer = fs::read_link(format!("/proc/{pid}/ns/pid")).ok()?;
        let net = fs::read_link(format!("/proc/{at}/ns/net")).ok()?;
        if net != mine && parent != outer {
            return Some(at);
        }
    }
}

/// The file that `kube` writes when it is ready is `{"kubeconfig": "…", …}`.
fn kubeconfig() -> Result<PathBuf> {
    let ready = fs::read_to_string(dir().join("ready")).context("it is not ready yet")?;
    let (_, rest) = ready
        .split_once("\"kubeconfig\":\"")
        .context("target/kube/ready")?;
    let path = rest.split('"').next().unwrap_or_default();
    Ok(PathBuf::from(path))
}
