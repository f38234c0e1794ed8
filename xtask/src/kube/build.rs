//! `cargo xtask kube build`: compiles what is missing of the control plane, from
//! the Go module proxy, into a cache under the home directory.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, bail, ensure};

use super::cache::{self, PROGRAMS, Program};
use crate::root;

/// Where the CRDs are inside the source of Envoy Gateway: the files that it
/// embeds itself, Gateway API's (experimental channel) among them.
const CRDS: &str = "charts/gateway-helm/charts/crds/crds";

/// Makes every program startable and says where each is; true when they are.
pub fn run() -> Result<bool> {
    complete()?;
    let root = root();
    for program in &PROGRAMS {
        let path = cache::find(&root, program).context("a program is gone again")?;
        println!("{:24} {}", program.name, path.display());
    }
    let crds = cache::crds(&root).context("the CRDs are gone again")?;
    println!("{:24} {}", "CRDs", crds.display());
    Ok(true)
}

/// Compiles what is missing.
pub fn complete() -> Result<()> {
    let root = root();
    let home = cache::home(&root).map_err(anyhow::Error::msg)?;
    for program in &PROGRAMS {
        if cache::find(&root, program).is_none() {
            let started = Instant::now();
            eprintln!(
                "{}: compiling (minutes when Go's own cache is empty) …",
                program.name
            );
            compile(&root, program, &home.join("bin"))?;
            eprintln!(
                "{}: compiled in {:.0} s",
                program.name,
                started.elapsed().as_secs_f64()
            );
        }
    }
    if cache::crds(&root).is_none() {
        copy_crds(&root, &home)?;
    }
    let missing = cache::missing(&root);
    ensure!(missing.is_empty(), "still missing: {}", missing.join(", "));
    Ok(())
}

/// The path of one of [`cache::TOOLS`]; compiles it when it is missing.
pub fn tool(name: &str) -> Result<PathBuf> {
    let root = root();
    let program = cache::TOOLS
        .iter()
        .find(|tool| tool.name == name)
        .with_context(|| format!("{name} is none of the tools"))?;
    if let Some(path) = cache::find(&root, program) {
        return Ok(path);
    }
    eprintln!("{name}: compiling (minutes when Go's own cache is empty) …");
    let home = cache::home_of(&root, program).map_err(anyhow::Error::msg)?;
    compile(&root, program, &home.join("bin"))
}

fn compile(root: &Path, program: &Program, bin: &Path) -> Result<PathBuf> {
    let module = cache::module(root, program);
    check_go(&module)?;
    fs::create_dir_all(bin).with_context(|| format!("create {}", bin.display()))?;
    // Under a name of this process first: a half-written binary is never found.
    let part = bin.join(format!(".{}-{}", program.name, std::process::id()));
    let status = go(&module)
        .arg("build")
        .args(cache::FLAGS)
        .args(["-ldflags", &cache::linker_flags(program)])
        .arg("-o")
        .arg(&part)
        .arg(program.package)
        .status()
        .context("run go build")?;
    if !status.success() {
        let _ = fs::remove_file(&part);
        bail!(
            "{}: `go build {}` in {} failed ({status}); what it needs comes from the Go module \
             proxy (GOPROXY)",
            program.name,
            program.package,
            module.display()
        );
    }
    let path = bin.join(program.name);
    fs::rename(&part, &path).with_context(|| format!("move it to {}", path.display()))?;
    Ok(path)
}

/// Fails with what to do when there is no Go, or one that is too old.
fn check_go(module: &Path) -> Result<()> {
    let output = go(module).args(["env", "GOVERSION"]).output().context(
        "Go is needed to compile this and there is no `go` on PATH: install it \
         (https://go.dev/dl), or put the programs themselves on PATH: etcd, kube-apiserver, \
         kube-controller-manager and envoy-gateway for the control plane",
    )?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!(
            "this Go is too old for {}: {}; install a newer one, or let it fetch one with \
             GOTOOLCHAIN=auto",
            module.join("go.mod").display(),
            said.trim()
        );
    }
    Ok(())
}

/// `go` in a module of ours: two packages at a time, because each compiler
/// process takes up to 2 GB, and no C compiler.
fn go(module: &Path) -> Command {
    let mut go = Command::new("go");
    go.current_dir(module)
        .env("CGO_ENABLED", "0")
        .env("GOFLAGS", "-p=2 -mod=readonly")
        .env("GOWORK", "off")
        .stdin(Stdio::null());
    go
}

fn copy_crds(root: &Path, home: &Path) -> Result<()> {
    let program = PROGRAMS
        .iter()
        .find(|p| p.name == "envoy-gateway")
        .context("envoy-gateway is one of the programs")?;
    let module = cache::module(root, program);
    check_go(&module)?;
    let path = program.package.split("/cmd/").next().unwrap_or_default();
    let fetched = go(&module)
        .args(["mod", "download", path])
        .status()
        .context("run go mod download")?;
    ensure!(fetched.success(), "go mod download {path}: {fetched}");
    let output = go(&module)
        .args(["list", "-m", "-f", "{{.Dir}}", path])
        .output()
        .context("run go list")?;
    let source = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()).join(CRDS);
    let part = home.join(format!(".crds-{}", std::process::id()));
    fs::create_dir_all(&part).with_context(|| format!("create {}", part.display()))?;
    let mut copied = 0;
    for dir in [source.clone(), source.join("generated")] {
        for entry in fs::read_dir(&dir).with_context(|| format!("read {}", dir.display()))? {
            let from = entry?.path();
            if let (Some("yaml"), Some(name)) =
                (from.extension().and_then(|e| e.to_str()), from.file_name())
            {
                // Read and written, not copied: the module cache is read-only.
                fs::write(part.join(name), fs::read(&from)?)?;
                copied += 1;
            }
        }
    }
    ensure!(copied > 1, "{} holds no CRDs", source.display());
    let ready = home.join("crds");
    fs::rename(&part, &ready).with_context(|| format!("move them to {}", ready.display()))
}
