//! The Helm chart and `helm` itself, as `cargo xtask helm` builds it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::{binaries::root, kube::programs};

/// The release in every rendering.
pub const RELEASE: &str = "adit";
/// Its namespace.
pub const NAMESPACE: &str = "adit-system";
/// Where Envoy Gateway is.
pub const ENVOY_GATEWAY: &str = "envoy-gateway-system";
/// The Kubernetes that is rendered for: what the tests' API server is.
const KUBERNETES: &str = "1.36.3";

/// `helm`, with a home of its own.
pub struct Helm {
    program: PathBuf,
    home: tempfile::TempDir,
}

/// One document of a rendering, with the text it was written as.
#[derive(Debug, Clone)]
pub struct Document {
    /// As the template wrote it.
    pub text: String,
    /// Parsed.
    pub object: Value,
}

impl Helm {
    /// `helm`, or `None` after having said that the test is left out.
    pub fn find() -> Result<Option<Self>> {
        match programs::program("helm") {
            Ok(program) => Ok(Some(Self {
                program,
                home: tempfile::tempdir()?,
            })),
            Err(_) => {
                eprintln!("LEFT OUT: helm is missing: run `cargo xtask helm` (needs Go)");
                Ok(None)
            }
        }
    }

    /// A command, for one that goes on for a while.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let home = |folder: &str| self.home.path().join(folder);
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .env_clear()
            .env("HOME", self.home.path())
            .env("HELM_CACHE_HOME", home("cache"))
            .env("HELM_CONFIG_HOME", home("config"))
            .env("HELM_DATA_HOME", home("data"))
            .stdin(Stdio::null());
        command
    }

    /// Runs it; whatever it answers.
    pub fn try_run(&self, arguments: &[&str]) -> Result<Output> {
        self.command(arguments).output().context("run helm")
    }

    /// Runs it; what it printed.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        let output = self.try_run(arguments)?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            bail!(
                "helm {}: {}\n{said}{}",
                arguments.join(" "),
                output.status,
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(said)
    }

    /// The documents of the chart with these values, hooks included.
    pub fn template(&self, values: &Path) -> Result<Vec<Document>> {
        let text = self.run(&[
            "template",
            RELEASE,
            &text_of(&chart()),
            "--namespace",
            NAMESPACE,
            "--kube-version",
            KUBERNETES,
            "--values",
            &text_of(values),
        ])?;
        documents(&text)
    }
}

/// The chart's folder.
pub fn chart() -> PathBuf {
    root().join("helm/adit")
}

/// The files in a folder of the checkout, sorted.
pub fn files(folder: &str) -> Result<Vec<PathBuf>> {
    let dir = root().join(folder);
    let entries = fs::read_dir(&dir).with_context(|| format!("read {}", dir.display()))?;
    let mut files = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    files.sort();
    ensure!(!files.is_empty(), "{} is empty", dir.display());
    Ok(files)
}

/// Every set of values that the tests render, by its name.
pub fn values() -> Result<Vec<(String, PathBuf)>> {
    let named = |path: PathBuf| {
        let name = path.file_stem().map(|stem| stem.to_string_lossy().into());
        Ok((name.context("a name")?, path))
    };
    files("helm/values")?.into_iter().map(named).collect()
}

/// The values of one set.
pub fn values_of(name: &str) -> Result<PathBuf> {
    let all = values()?;
    let found = all.into_iter().find(|(other, _)| other == name);
    Ok(found.with_context(|| format!("helm/values/{name}.yaml"))?.1)
}

/// A path as an argument.
pub fn text_of(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// The documents of a stream of YAML that helm wrote.
pub fn documents(text: &str) -> Result<Vec<Document>> {
    let mut documents = Vec::new();
    let parts = text.strip_prefix("---\n").unwrap_or(text).split("\n---\n");
    for part in parts {
        let object: Value =
            serde_saphyr::from_str(part).with_context(|| format!("read the YAML:\n{part}"))?;
        if !object.is_null() {
            let text = format!("{}\n", part.trim_end());
            documents.push(Document { text, object });
        }
    }
    Ok(documents)
}

impl Document {
    /// As in `Deployment`.
    pub fn kind(&self) -> &str {
        self.object["kind"].as_str().unwrap_or_default()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.object["metadata"]["name"].as_str().unwrap_or_default()
    }

    /// Its namespace; empty without.
    pub fn namespace(&self) -> &str {
        let namespace = self.object["metadata"]["namespace"].as_str();
        namespace.unwrap_or_default()
    }

    /// When it is a hook, of what; empty for a part of the release.
    pub fn hook(&self) -> &str {
        let hook = self.object["metadata"]["annotations"]["helm.sh/hook"].as_str();
        hook.unwrap_or_default()
    }
}

/// The one document of this kind and name.
pub fn find<'a>(documents: &'a [Document], kind: &str, name: &str) -> Result<&'a Value> {
    let found = documents
        .iter()
        .find(|d| d.kind() == kind && d.name() == name);
    Ok(&found
        .with_context(|| format!("no {kind} {name} is rendered"))?
        .object)
}
