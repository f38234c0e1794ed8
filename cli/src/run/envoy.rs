//! Which Envoy to run.

use std::{
    env,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail};
use tokio::{process::Command, time::timeout};

/// The minor versions that the module is built and tested for.
const SUPPORTED: [&str; 2] = ["1.39", "1.40"];
const ADVICE: &str = "get one with `cargo xtask envoy` or func-e (https://func-e.io), and name it with --envoy or ENVOY_PATH";

/// The Envoy that was named, else the one on PATH.
pub(crate) async fn find(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    let file = match named {
        Some(file) => file.to_owned(),
        None => on_path().with_context(|| format!("no envoy on PATH: {ADVICE}"))?,
    };
    let version = version(&file).await?;
    if !SUPPORTED.iter().any(|s| {
        version
            .strip_prefix(s)
            .is_some_and(|rest| rest.starts_with('.'))
    }) {
        bail!(
            "{} is Envoy {version}; supported are {}: {ADVICE}",
            file.display(),
            SUPPORTED.join(" and ")
        );
    }
    tracing::info!(file = %file.display(), version, "Envoy");
    Ok(file)
}

fn on_path() -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|folder| folder.join("envoy"))
        .find(|file| file.is_file())
}

async fn version(file: &Path) -> anyhow::Result<String> {
    let shown = file.display();
    let output = Command::new(file)
        .arg("--version")
        .kill_on_drop(true)
        .output();
    let output = timeout(Duration::from_secs(20), output)
        .await
        .with_context(|| format!("{shown} --version did not end"))?
        .with_context(|| format!("cannot run {shown}: {ADVICE}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    parse_version(&text)
        .with_context(|| format!("{shown} --version names no version: {:?}", text.trim()))
}

/// `envoy  version: <commit>/1.39.3/Clean/RELEASE/BoringSSL`
fn parse_version(text: &str) -> Option<String> {
    let (_, rest) = text.split_once("version:")?;
    Some(rest.trim().split('/').nth(1)?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_envoys_own_words() {
        let text = "\n/x/envoy  version: 6eb0d2d97489/1.39.3/Clean/RELEASE/BoringSSL\n\n";
        assert_eq!(parse_version(text).as_deref(), Some("1.39.3"));
        assert_eq!(parse_version("something else"), None);
    }

    #[tokio::test]
    async fn an_envoy_that_cannot_run_is_said_with_advice() {
        let error = find(Some(Path::new("/nonexistent/envoy")))
            .await
            .expect_err("refused");
        let text = format!("{error:#}");
        assert!(
            text.contains("func-e") && text.contains("cargo xtask envoy"),
            "{text}"
        );
    }
}
