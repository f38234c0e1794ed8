//! `cargo xtask images`: the two container images as OCI layouts, without a
//! daemon, and a look into what was made.

mod check;
mod compile;
mod layout;
mod sbom;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::{debian::Packages, places, root};

/// Puts layers together.
const UMOCI: Packages = Packages {
    folder: "umoci",
    names: &["umoci"],
};

/// Certificate authorities, for `https://` services.
const AUTHORITIES: Packages = Packages {
    folder: "ca-certificates",
    names: &["ca-certificates"],
};

/// What `cargo xtask images` takes.
#[derive(Default, clap::Args)]
pub struct Options {
    /// Build a second time, from a copy in another folder, and compare digests
    #[arg(long)]
    twice: bool,
    /// One JSON object per image, on standard output
    #[arg(long)]
    json: bool,
}

/// An image that was built.
struct Image {
    name: &'static str,
    /// The OCI layout.
    layout: PathBuf,
    tag: String,
    /// Of its manifest, as in `sha256:…`.
    digest: String,
    /// Of all blobs, in bytes.
    size: u64,
}

/// Builds, unpacks and tries both images; true if all is well.
pub fn run(options: &Options) -> Result<bool> {
    let source = root();
    let place = source.join("target/images");
    if options.twice {
        committed(&source)?;
    }
    let images = build(&source, &source.join("target"), &place)?;
    for image in &images {
        check::image(image, &place)?;
    }
    check::together(&images, &place)?;
    if options.twice {
        again(&source, &images)?;
    }
    for image in &images {
        if options.json {
            let line = serde_json::json!({
                "name": image.name, "tag": image.tag, "digest": image.digest,
                "bytes": image.size, "layout": image.layout,
            });
            println!("{line}");
        } else {
            println!(
                "{:18} {}  {:>5.1} MB  {}:{}",
                image.name,
                image.digest,
                image.size as f64 / 1e6,
                image.layout.display(),
                image.tag
            );
        }
    }
    Ok(true)
}

/// Compiles `source` below `target`, and lays the images out in `place`.
fn build(source: &Path, target: &Path, place: &Path) -> Result<[Image; 2]> {
    let umoci = find_umoci()?;
    let authorities = AUTHORITIES.fetch()?;
    let epoch = epoch(source)?;
    let parts = compile::compile(source, target, &place.join("built"))?;
    let maker = layout::Maker {
        umoci: &umoci,
        place,
        epoch,
        revision: revision(source),
        version: env!("CARGO_PKG_VERSION"),
    };
    let skeleton = source.join("images/adit");
    let licence = source.join("LICENSE");
    let host = sbom::Host::read(source, &AUTHORITIES)?;
    let list = sbom::of(source, "adit-cli", &host, sbom::Linked::Statically)?;
    let adit = maker.make(&layout::Plan {
        name: "adit",
        title: "Adit: reconciler, dialer and connector",
        entrypoint: &["/adit"],
        files: &[
            (&parts.adit, "adit", 0o755),
            (&licence, "usr/share/adit/LICENSE", 0o644),
            (&skeleton.join("etc/passwd"), "etc/passwd", 0o644),
            (&skeleton.join("etc/group"), "etc/group", 0o644),
            (
                &skeleton.join("etc/nsswitch.conf"),
                "etc/nsswitch.conf",
                0o644,
            ),
        ],
        texts: &[
            ("usr/share/adit/sbom.cdx.json", list),
            (
                "etc/ssl/certs/ca-certificates.crt",
                bundle(&authorities.join("usr/share/ca-certificates/mozilla"))?,
            ),
        ],
    })?;
    let list = sbom::of(source, "adit-filter", &host, sbom::Linked::Dynamically)?;
    let module = maker.make(&layout::Plan {
        name: "adit-envoy-module",
        title: "Adit's module for Envoy 1.39 and 1.40",
        entrypoint: &[],
        files: &[
            (&parts.module, "libadit.so", 0o755),
            (&parts.cp, "bin/cp", 0o755),
            (&licence, "usr/share/adit/LICENSE", 0o644),
            (&skeleton.join("etc/passwd"), "etc/passwd", 0o644),
            (&skeleton.join("etc/group"), "etc/group", 0o644),
        ],
        texts: &[("usr/share/adit/sbom.cdx.json", list)],
    })?;
    Ok([adit, module])
}

/// Refuses a tree that differs from its commit.
fn committed(source: &Path) -> Result<()> {
    let changed = git(source, &["status", "--porcelain"])?;
    ensure!(
        changed.is_empty(),
        "--twice builds what is committed, and these files differ from that:\n{changed}"
    );
    Ok(())
}

/// The same once more, from a clone elsewhere: paths differ, nothing is cached.
fn again(source: &Path, first: &[Image; 2]) -> Result<()> {
    committed(source)?;
    let elsewhere = env::temp_dir().join(format!("adit-images-{}", std::process::id()));
    let result = (|| {
        git(
            source,
            &["clone", "--quiet", ".", &elsewhere.to_string_lossy()],
        )?;
        let second = build(
            &elsewhere,
            &elsewhere.join("target"),
            &elsewhere.join("target/images"),
        )?;
        for (a, b) in first.iter().zip(&second) {
            ensure!(
                a.digest == b.digest,
                "{}: built twice, two digests: {} and {}",
                a.name,
                a.digest,
                b.digest
            );
            eprintln!("{}: built twice, one digest", a.name);
        }
        Ok(())
    })();
    let _ = fs::remove_dir_all(&elsewhere);
    result
}

fn find_umoci() -> Result<PathBuf> {
    match places::on_path("umoci").next() {
        Some(installed) => Ok(installed),
        None => Ok(UMOCI.fetch()?.join("usr/bin/umoci")),
    }
}

/// The time that everything in the images carries, in seconds since 1970:
/// `SOURCE_DATE_EPOCH`, or the commit's.
fn epoch(source: &Path) -> Result<u64> {
    let text = match env::var("SOURCE_DATE_EPOCH") {
        Ok(set) => set,
        Err(_) => git(source, &["log", "-1", "--format=%ct"])?,
    };
    text.trim()
        .parse()
        .with_context(|| format!("{text:?} is no time in seconds since 1970"))
}

/// The commit, and whether the tree differs from it.
fn revision(source: &Path) -> String {
    git(source, &["describe", "--always", "--abbrev=40", "--dirty"])
        .unwrap_or_else(|_| "unknown".to_owned())
}

fn git(source: &Path, args: &[&str]) -> Result<String> {
    said(Command::new("git").arg("-C").arg(source).args(args))
}

/// Runs a program; what it printed, without the last line's end.
fn said(command: &mut Command) -> Result<String> {
    let shown = format!("{command:?}");
    let said = command.output().with_context(|| format!("run {shown}"))?;
    ensure!(
        said.status.success(),
        "{shown}: {}",
        String::from_utf8_lossy(&said.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&said.stdout).trim().to_owned())
}

/// All authorities in one file, in the order of their names.
fn bundle(folder: &Path) -> Result<String> {
    let entries = fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?;
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|e| e == "crt"));
    files.sort();
    ensure!(
        files.len() > 50,
        "{} holds {} certificates, which are not all of them",
        folder.display(),
        files.len()
    );
    let mut bundle = String::new();
    for file in files {
        let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        bundle += text.trim_end();
        bundle.push('\n');
    }
    Ok(bundle)
}
