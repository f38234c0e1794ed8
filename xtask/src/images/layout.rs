//! One OCI layout: a folder of files, one layer of them by GNU tar, and umoci's
//! configuration around it. Nothing in it depends on when or where it is made.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::{Image, said};

/// The user of both images: nobody's, and the one that Envoy's own images use.
const USER: &str = "65532:65532";

/// What all images of one build have in common.
pub struct Maker<'a> {
    pub umoci: &'a Path,
    /// Where the layouts go.
    pub place: &'a Path,
    /// The time that everything carries, in seconds since 1970.
    pub epoch: u64,
    /// The commit.
    pub revision: String,
    /// The tag.
    pub version: &'a str,
}

/// One image.
pub struct Plan<'a> {
    pub name: &'static str,
    pub title: &'a str,
    pub entrypoint: &'a [&'a str],
    /// From, to, mode.
    pub files: &'a [(&'a Path, &'a str, u32)],
    /// To, content.
    pub texts: &'a [(&'a str, String)],
}

impl Maker<'_> {
    /// Makes the layout, in place of one that was there.
    pub fn make(&self, plan: &Plan<'_>) -> Result<Image> {
        let layout = self.place.join(plan.name);
        let tree = self.place.join(format!("{}.tree", plan.name));
        let layer = self.place.join(format!("{}.tar", plan.name));
        for old in [&layout, &tree] {
            if old.exists() {
                fs::remove_dir_all(old).with_context(|| format!("remove {}", old.display()))?;
            }
        }
        self.fill(plan, &tree)?;
        said(
            Command::new("tar")
                .args(["--create", "--sort=name", "--format=gnu", "--numeric-owner"])
                .args(["--owner=0", "--group=0"])
                .arg(format!("--mtime=@{}", self.epoch))
                .arg("--directory")
                .arg(&tree)
                .arg("--file")
                .arg(&layer)
                .arg("."),
        )?;
        let image = format!("{}:{}", layout.display(), self.version);
        self.umoci(&["init", "--layout", &layout.to_string_lossy()])?;
        self.umoci(&["new", "--image", &image])?;
        let created = self.created()?;
        let history = [
            format!("--history.created={created}"),
            "--history.created_by=cargo xtask images".to_owned(),
            "--history.author=".to_owned(),
        ];
        let mut add = vec!["raw", "add-layer", "--image", &image];
        add.extend(history.iter().map(String::as_str));
        let layer_path = layer.to_string_lossy();
        add.push(&layer_path);
        self.umoci(&add)?;
        self.configure(plan, &image, &created)?;
        self.umoci(&["gc", "--layout", &layout.to_string_lossy()])?;
        fs::remove_file(&layer)?;
        let list = plan
            .texts
            .iter()
            .find(|(to, _)| to.ends_with("sbom.cdx.json"));
        if let Some((_, list)) = list {
            fs::write(self.place.join(format!("{}.cdx.json", plan.name)), list)?;
        }
        fs::remove_dir_all(&tree)?;
        Ok(Image {
            name: plan.name,
            tag: self.version.to_owned(),
            digest: digest(&layout)?,
            size: size(&layout.join("blobs/sha256"))?,
            layout,
        })
    }

    fn fill(&self, plan: &Plan<'_>, tree: &Path) -> Result<()> {
        let place = |to: &str| -> Result<PathBuf> {
            let path = tree.join(to);
            let parent = path.parent().context("a file's folder")?;
            fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
            Ok(path)
        };
        let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
        for (from, to, mode) in plan.files {
            let path = place(to)?;
            fs::copy(from, &path).with_context(|| format!("copy {}", from.display()))?;
            set(&path, *mode)?;
        }
        for (to, content) in plan.texts {
            let path = place(to)?;
            fs::write(&path, content).with_context(|| format!("write {}", path.display()))?;
            set(&path, 0o644)?;
        }
        // Whatever the umask of who builds.
        for folder in folders(tree)? {
            set(&folder, 0o755)?;
        }
        Ok(())
    }

    fn configure(&self, plan: &Plan<'_>, image: &str, created: &str) -> Result<()> {
        let label = |name: &str, value: &str| {
            format!("--config.label=org.opencontainers.image.{name}={value}")
        };
        let mut args = vec![
            "config".to_owned(),
            format!("--image={image}"),
            "--no-history".to_owned(),
            format!("--created={created}"),
            "--os=linux".to_owned(),
            format!("--architecture={}", architecture()?),
            format!("--config.user={USER}"),
            "--config.workingdir=/".to_owned(),
            "--config.env=PATH=/:/bin".to_owned(),
            label("title", plan.title),
            label("version", self.version),
            label("revision", &self.revision),
            label("created", created),
            label("licenses", "Apache-2.0"),
        ];
        args.extend(
            plan.entrypoint
                .iter()
                .map(|word| format!("--config.entrypoint={word}")),
        );
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        self.umoci(&args)
    }

    /// The time as RFC 3339 writes it.
    fn created(&self) -> Result<String> {
        let seconds = format!("@{}", self.epoch);
        let format = "+%Y-%m-%dT%H:%M:%SZ";
        said(Command::new("date").args(["--utc", "--date", &seconds, format]))
    }

    fn umoci(&self, args: &[&str]) -> Result<()> {
        said(Command::new(self.umoci).arg("--log=error").args(args)).map(drop)
    }
}

/// A folder and all below it.
fn folders(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = vec![root.to_owned()];
    let mut next = 0;
    while let Some(folder) = found.get(next).cloned() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                found.push(entry.path());
            }
        }
        next += 1;
    }
    Ok(found)
}

/// Go's name for this machine's kind, which OCI uses.
fn architecture() -> Result<&'static str> {
    match std::env::consts::ARCH {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        other => anyhow::bail!("images are built on x86_64 and aarch64, not on {other}"),
    }
}

/// The manifest's digest, from the layout's index.
fn digest(layout: &Path) -> Result<String> {
    let path = layout.join("index.json");
    let index = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
    let index: serde_json::Value = serde_json::from_slice(&index)?;
    let digest = index["manifests"][0]["digest"].as_str();
    digest
        .map(str::to_owned)
        .with_context(|| format!("{} names no manifest", path.display()))
}

fn size(blobs: &Path) -> Result<u64> {
    let mut sum = 0;
    for blob in fs::read_dir(blobs)? {
        sum += blob?.metadata()?.len();
    }
    Ok(sum)
}
