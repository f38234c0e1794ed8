//! What was built is unpacked by umoci and run as a pod would run it: as its
//! user, with nothing but the image's own files.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use object::Object as _;

use super::{Image, find_umoci, said};
use crate::{envoy, root};

const USER: &str = "--userspec=65532:65532";
/// What every container runtime puts into `/dev` (OCI runtime specification,
/// "Default Devices"), as far as anything here opens it, with the minor numbers.
const DEVICES: [(&str, &str); 3] = [("null", "3"), ("random", "8"), ("urandom", "9")];

/// One image by itself.
pub fn image(image: &Image, place: &Path) -> Result<()> {
    let files = unpack(image, place)?;
    match image.name {
        "adit" => adit(&files),
        _ => module(&files),
    }
    .with_context(|| format!("the image {}", image.name))
}

/// Both images' files in the demo: real Envoy, dialer, connector, traffic.
pub fn together(images: &[Image; 2], place: &Path) -> Result<()> {
    let bin = place.join("unpacked/bin");
    let _ = fs::remove_dir_all(&bin);
    fs::create_dir_all(&bin)?;
    for image in images {
        let files = rootfs(image, place);
        let name = match image.name {
            "adit" => "adit",
            _ => "libadit.so",
        };
        fs::copy(files.join(name), bin.join(name)).with_context(|| format!("copy {name}"))?;
    }
    let status = crate::cargo().args(crate::BUILD).status();
    ensure!(
        status.context("run cargo build")?.success(),
        "the demo's build failed"
    );
    let log = place.join("demo.log");
    let out = fs::File::create(&log)?;
    eprintln!("images: the demo with the images' files …");
    let status = Command::new(root().join("target/debug/demo"))
        .env("ADIT_BIN_DIR", &bin)
        .env("ENVOY_PATH", envoy::find(None)?)
        .stdout(out.try_clone()?)
        .stderr(out)
        .status()
        .context("run the demo")?;
    ensure!(
        status.success(),
        "the demo fails with the images' files: see {}",
        log.display()
    );
    Ok(())
}

fn adit(files: &Path) -> Result<()> {
    let dynamic = needed(&files.join("adit"))?;
    ensure!(dynamic.is_empty(), "/adit needs {}", dynamic.join(", "));
    let version = inside(files, &["/adit", "--version"])?;
    ensure!(
        version.trim() == concat!("adit ", env!("CARGO_PKG_VERSION")),
        "adit --version says {version:?}"
    );
    // A folder that a pod mounts; all else belongs to root and is not writable.
    let state = files.join("var/lib/adit");
    fs::create_dir_all(&state)?;
    std::os::unix::fs::chown(&state, Some(65532), Some(65532)).context("needs root")?;
    inside(files, &["/adit", "key", "generate", "/var/lib/adit/key"])?;
    let crds = inside(files, &["/adit", "crds"])?;
    ensure!(
        crds.contains("kind: CustomResourceDefinition"),
        "adit crds says {crds:?}"
    );
    if inside(files, &["/adit", "key", "generate", "/key"]).is_ok() {
        bail!("the user of the image can write to its root");
    }
    Ok(())
}

fn module(files: &Path) -> Result<()> {
    let volume = files.join("module");
    fs::create_dir_all(&volume)?;
    std::os::unix::fs::chown(&volume, Some(65532), Some(65532)).context("needs root")?;
    inside(files, &["/bin/cp", "/libadit.so", "/module/libadit.so"])?;
    ensure!(
        fs::read(files.join("libadit.so"))? == fs::read(volume.join("libadit.so"))?,
        "/bin/cp made another file of libadit.so"
    );
    let glibc = newest_glibc(&files.join("libadit.so"))?;
    eprintln!("images: libadit.so needs glibc {glibc} or newer beside Envoy");
    Ok(())
}

/// Runs a program with the image's files as its root, as the image's user.
fn inside(files: &Path, words: &[&str]) -> Result<String> {
    said(
        Command::new("chroot")
            .args([USER, "--groups="])
            .arg(files)
            .args(words)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
    )
    .context("chroot needs root")
}

fn unpack(image: &Image, place: &Path) -> Result<PathBuf> {
    let bundle = place.join("unpacked").join(image.name);
    let _ = fs::remove_dir_all(&bundle);
    fs::create_dir_all(place.join("unpacked"))?;
    said(
        Command::new(find_umoci()?)
            .args(["--log=error", "unpack", "--image"])
            .arg(format!("{}:{}", image.layout.display(), image.tag))
            .arg(&bundle),
    )?;
    let files = rootfs(image, place);
    devices(&files)?;
    Ok(files)
}

fn devices(files: &Path) -> Result<()> {
    let folder = files.join("dev");
    fs::create_dir_all(&folder)?;
    for (name, minor) in DEVICES {
        let status = Command::new("mknod")
            .arg("--mode=666")
            .arg(folder.join(name))
            .args(["c", "1", minor])
            .status();
        let status = status.context("run mknod")?;
        ensure!(status.success(), "mknod /dev/{name}: {status} (needs root)");
    }
    Ok(())
}

fn rootfs(image: &Image, place: &Path) -> PathBuf {
    place.join("unpacked").join(image.name).join("rootfs")
}

/// The shared libraries that a program asks for: none, if it is static.
fn needed(program: &Path) -> Result<Vec<String>> {
    let bytes = fs::read(program).with_context(|| format!("read {}", program.display()))?;
    let file = object::File::parse(&*bytes)?;
    let imports = file.imports()?;
    let names = imports.iter().map(|i| String::from_utf8_lossy(i.library()));
    let mut names: Vec<String> = names.map(std::borrow::Cow::into_owned).collect();
    names.sort();
    names.dedup();
    Ok(names)
}

/// The newest `GLIBC_…` version that a library's imports name.
fn newest_glibc(library: &Path) -> Result<String> {
    let bytes = fs::read(library).with_context(|| format!("read {}", library.display()))?;
    // Versions are strings of the dynamic string table; no other use of the prefix there.
    let mut versions: Vec<(u32, u32)> = Vec::new();
    let prefix = b"GLIBC_";
    for start in 0..bytes.len().saturating_sub(prefix.len()) {
        if !bytes[start..].starts_with(prefix) {
            continue;
        }
        let rest = &bytes[start + prefix.len()..];
        let end = rest.iter().position(|b| *b == 0).unwrap_or(0).min(12);
        let text = String::from_utf8_lossy(&rest[..end]).into_owned();
        let mut numbers = text.split('.').map(str::parse::<u32>);
        if let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) {
            versions.push((major, minor));
        }
    }
    let newest = versions.into_iter().max();
    let (major, minor) = newest.context("the library names no version of glibc")?;
    Ok(format!("{major}.{minor}"))
}
