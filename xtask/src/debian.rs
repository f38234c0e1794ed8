//! Programs from Debian's packages, unpacked into the cache under the home
//! directory. Nothing is installed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use crate::places;

/// Packages that are unpacked together.
pub struct Packages {
    /// The cache's folder for them.
    pub folder: &'static str,
    /// Their names, with the libraries that a small system lacks.
    pub names: &'static [&'static str],
}

/// Programs that are taken where they are installed, else from packages.
pub struct Programs {
    /// Their file names.
    pub names: &'static [&'static str],
    /// What has them.
    pub packages: Packages,
}

impl Programs {
    /// Those that are neither installed nor in the cache.
    pub fn missing(&self) -> Vec<&'static str> {
        let mut places = vec![PathBuf::from("/usr/sbin")];
        if let Some(root) = self.packages.found() {
            places.extend(["usr/bin", "usr/sbin"].map(|folder| root.join(folder)));
        }
        let is_there = |name: &&str| {
            places::on_path(name).next().is_some()
                || places.iter().any(|dir| dir.join(name).is_file())
        };
        let names = self.names.iter().copied();
        names.filter(|name| !is_there(name)).collect()
    }

    /// Finds all, or unpacks the packages. Nothing is installed.
    pub fn fetch(&self) -> Result<bool> {
        if !self.missing().is_empty() {
            self.packages.fetch()?;
            let left = self.missing();
            ensure!(
                left.is_empty(),
                "Debian's packages have no {}",
                left.join(", ")
            );
        }
        println!("{} are there", self.names.join(" and "));
        Ok(true)
    }
}

impl Packages {
    /// The root of the unpacked files, if they are there.
    pub fn found(&self) -> Option<PathBuf> {
        let root = self.home().ok()?.join("debian");
        root.is_dir().then_some(root)
    }

    /// The root of the unpacked files; fetches them when they are not there.
    pub fn fetch(&self) -> Result<PathBuf> {
        if let Some(root) = self.found() {
            return Ok(root);
        }
        let home = self.home()?;
        eprintln!("{}: unpacking Debian's packages …", self.names.join(", "));
        fs::create_dir_all(&home).with_context(|| format!("create {}", home.display()))?;
        let temp = home.join(format!(".debian-{}", std::process::id()));
        fs::create_dir_all(&temp).with_context(|| format!("create {}", temp.display()))?;
        let ready = home.join("debian");
        let unpacked = self.unpack(&temp).and_then(|root| {
            match fs::rename(&root, &ready) {
                Err(_) if ready.is_dir() => Ok(()), // another process was first
                done => done.with_context(|| format!("move to {}", ready.display())),
            }
        });
        let _ = fs::remove_dir_all(&temp);
        unpacked.map(|()| ready)
    }

    fn unpack(&self, temp: &Path) -> Result<PathBuf> {
        let said = Command::new("apt-get")
            .arg("download")
            .args(self.names)
            .current_dir(temp)
            .stdin(Stdio::null())
            .output()
            .with_context(|| {
                format!(
                    "run apt-get; elsewhere than on Debian, install {} by hand",
                    self.names.join(", ")
                )
            })?;
        ensure!(
            said.status.success(),
            "apt-get download {}: {}; run apt-get update, or install them",
            self.names.join(" "),
            String::from_utf8_lossy(&said.stderr).trim()
        );
        let root = temp.join("root");
        for entry in fs::read_dir(temp)? {
            let package = entry?.path();
            if package.extension().is_some_and(|e| e == "deb") {
                let status = Command::new("dpkg")
                    .arg("-x")
                    .arg(&package)
                    .arg(&root)
                    .status();
                let status = status.context("run dpkg")?;
                ensure!(status.success(), "unpack {}: {status}", package.display());
                let name = package.file_stem().unwrap_or_default().to_string_lossy();
                let versions = root.join("versions");
                fs::create_dir_all(&versions)?;
                // `NAME_VERSION_ARCH`: what a list of parts says of it.
                fs::write(versions.join(name.as_ref()), "")?;
            }
        }
        Ok(root)
    }

    /// The version of one of them, as Debian writes it, once it is unpacked.
    pub fn version(&self, name: &str) -> Option<String> {
        let versions = fs::read_dir(self.found()?.join("versions")).ok()?;
        versions.flatten().find_map(|entry| {
            let file = entry.file_name().into_string().ok()?;
            let mut parts = file.split('_');
            let version = (parts.next() == Some(name)).then(|| parts.next())??;
            // apt writes a colon (of an epoch) like this.
            Some(version.replace("%3a", ":"))
        })
    }

    fn home(&self) -> Result<PathBuf> {
        let base = places::base().map_err(anyhow::Error::msg)?;
        Ok(base.join(self.folder))
    }
}
