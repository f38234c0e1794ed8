//! From the chart as it was committed before to the one in this checkout.

use std::{path::Path, process::Command};

use adit_tests::{
    binaries::root,
    helm::{NAMESPACE, text_of, values_of},
    kube::Kind,
};
use anyhow::{Context, Result, ensure};

use super::Cluster;

/// The last commit whose chart is another one than this checkout's.
fn last_other() -> Result<Option<String>> {
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        git.current_dir(root()).args(arguments).output()
    };
    let Ok(log) = git(&["log", "--format=%H", "-20", "--", "helm/adit"]) else {
        return Ok(None);
    };
    for commit in String::from_utf8_lossy(&log.stdout).lines() {
        let same = git(&["diff", "--quiet", commit, "--", "helm/adit"])?;
        let there = git(&["cat-file", "-e", &format!("{commit}:helm/adit/Chart.yaml")])?;
        if !same.status.success() && there.status.success() {
            return Ok(Some(commit.to_owned()));
        }
    }
    Ok(None)
}

/// The chart of a commit, in a folder.
fn chart_of(commit: &str, dir: &Path) -> Result<String> {
    let file = dir.join("chart.tar");
    let archived = Command::new("git")
        .current_dir(root())
        .args(["archive", "--output"])
        .arg(&file)
        .args([commit, "helm/adit"])
        .status()?;
    ensure!(archived.success(), "git archive {commit}");
    let unpacked = Command::new("tar")
        .arg("-xf")
        .arg(&file)
        .arg("-C")
        .arg(dir)
        .status()?;
    ensure!(unpacked.success(), "tar");
    Ok(text_of(&dir.join("helm/adit")))
}

pub async fn the_last_other_version_is_upgraded() -> Result<()> {
    adit_tests::kube::enter()?;
    let Some(commit) = last_other()? else {
        eprintln!("LEFT OUT: no commit has another chart than this one");
        return Ok(());
    };
    let Some((plane, cluster)) = Cluster::with_plane().await? else {
        return Ok(());
    };
    let objects = plane.admin().await?;
    super::life::without_our_crds(&objects).await?;
    let dir = tempfile::tempdir()?;
    let old = chart_of(&commit, dir.path())?;
    for namespace in [adit_tests::helm::ENVOY_GATEWAY, "shop"] {
        objects.make_namespace(namespace, &[]).await?;
    }
    // What is common to all versions, so that the older one takes it.
    let values = text_of(&values_of("quick")?);
    let install = ["install", "adit", &old, "--create-namespace", "-f", &values];
    cluster.helm(&install)?;
    let get = async |kind, namespace: &str, name: &str| {
        let found = objects.get(kind, namespace, name).await?;
        found.with_context(|| format!("{name} is gone"))
    };
    let before = get(Kind::DEPLOYMENT, NAMESPACE, "adit-reconciler").await?;
    let class = get(Kind::CONNECTOR_CLASS, "", "datum-connect").await?;
    // A user's object, which must outlive whatever becomes of the CRDs.
    let proxy = serde_json::json!({
        "apiVersion": "networking.datumapis.com/v1alpha", "kind": "HTTPProxy",
        "metadata": {"name": "web"},
        "spec": {"hostnames": ["web.example.com"], "rules": [{"backends": [{
            "endpoint": "http://127.0.0.1:80", "connector": {"name": "box"},
        }]}]},
    });
    let proxy = objects.apply("shop", proxy).await?;

    let new = text_of(&adit_tests::helm::chart());
    cluster.helm(&["upgrade", "adit", &new, "-f", &values])?;
    let uid = |object: &serde_json::Value| object["metadata"]["uid"].clone();
    let after = get(Kind::DEPLOYMENT, NAMESPACE, "adit-reconciler").await?;
    ensure!(uid(&before) == uid(&after), "the Deployment was replaced");
    let same = get(Kind::CONNECTOR_CLASS, "", "datum-connect").await?;
    ensure!(uid(&class) == uid(&same), "the class was replaced");
    let kept = get(Kind::HTTP_PROXY, "shop", "web").await?;
    ensure!(uid(&proxy) == uid(&kept), "the HTTPProxy was replaced");
    // And back.
    cluster.helm(&["rollback", "adit", "1"])?;
    let kept = get(Kind::HTTP_PROXY, "shop", "web").await?;
    ensure!(uid(&proxy) == uid(&kept), "the HTTPProxy was replaced");
    Ok(())
}
