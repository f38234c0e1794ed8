//! `adit cleanup` by itself, without Envoy Gateway: whose objects it removes, and
//! when it refuses to.

use std::{path::Path, process::Command};

use adit_tests::{
    binaries,
    kube::{ControlPlane, Kind, Objects, by_hand, reconciler},
};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

/// As `adit reconciler` writes.
const RECONCILER: &str = "adit-reconciler";

/// Exit code zero or not, and what it said.
fn cleanup(kubeconfig: &Path, more: &[&str]) -> Result<(bool, String)> {
    let output = Command::new(binaries::adit()?)
        .args(["cleanup", "--namespace", "adit-system", "--kubeconfig"])
        .arg(kubeconfig)
        .args(more)
        .env_clear()
        .output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = text(&output.stdout) + &text(&output.stderr);
    Ok((output.status.success(), said))
}

/// An EnvoyPatchPolicy of ours, or one that only looks like it.
async fn policy(objects: &Objects, namespace: &str, name: &str, manager: &str) -> Result<()> {
    let mut policy = by_hand::patch(name, "gw", "cluster", "/a.sock".as_ref());
    policy["metadata"]["labels"] = json!({"app.kubernetes.io/managed-by": "adit"});
    let applied = objects.apply_as(manager, namespace, policy).await;
    applied.map(drop)
}

async fn names(objects: &Objects, kind: Kind) -> Result<Vec<String>> {
    let all = objects.list(kind, "", "").await?;
    let name = |o: &Value| {
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        format!(
            "{}/{}",
            text(&o["metadata"]["namespace"]),
            text(&o["metadata"]["name"])
        )
    };
    let mut names: Vec<_> = all.iter().map(name).collect();
    names.sort();
    Ok(names)
}

pub async fn the_cleanup_leaves_others_objects_alone() -> Result<()> {
    adit_tests::kube::enter()?;
    let plane = ControlPlane::start().await?;
    let objects = plane.admin().await?;
    for namespace in ["adit-system", "shop", "blog"] {
        objects.make_namespace(namespace, &[]).await?;
        policy(&objects, namespace, "ours", RECONCILER).await?;
        policy(&objects, namespace, "somebodys", "kubectl").await?;
    }
    let dialers = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": "adit-dialer-1", "labels": {
            "app.kubernetes.io/managed-by": "adit", "networking.datumapis.com/dialer": "true",
        }},
    });
    objects.apply_as(RECONCILER, "shop", dialers).await?;
    for (name, label) in [("ours", "adit"), ("somebodys", "hand")] {
        let class = json!({
            "apiVersion": "networking.datumapis.com/v1alpha1", "kind": "ConnectorClass",
            "metadata": {"name": name, "labels": {"app.kubernetes.io/managed-by": label}},
            "spec": {},
        });
        objects.apply("", class).await?;
    }
    let kind = Kind::ENVOY_PATCH_POLICY;
    let all = names(&objects, kind).await?;
    let kubeconfig = plane.kubeconfig();

    let mark = plane.mark();
    let (ok, said) = cleanup(&kubeconfig, &["--dry-run"])?;
    ensure!(
        ok && said.contains("would remove 3 EnvoyPatchPolicy"),
        "{said}"
    );
    ensure!(
        said.contains("blog/ours") && !said.contains("somebodys"),
        "{said}"
    );
    ensure!(plane.writes_since(mark)?.is_empty(), "a dry run wrote");
    ensure!(names(&objects, kind).await? == all);

    let (ok, said) = cleanup(
        &kubeconfig,
        &[
            "--watch-namespace",
            "shop",
            "--connector-class",
            "somebodys",
        ],
    )?;
    ensure!(ok && said.contains("removed 1 EnvoyPatchPolicy"), "{said}");
    let left: Vec<_> = all.iter().filter(|n| *n != "shop/ours").cloned().collect();
    ensure!(names(&objects, kind).await? == left);

    let (ok, said) = cleanup(&kubeconfig, &["--connector-class", "ours"])?;
    let wanted = "removed 1 ConnectorClass, 2 EnvoyPatchPolicy";
    ensure!(ok && said.contains(wanted), "{said}");
    let left = ["adit-system/somebodys", "blog/somebodys", "shop/somebodys"];
    ensure!(names(&objects, kind).await? == left);
    ensure!(names(&objects, Kind::CONNECTOR_CLASS).await? == ["/somebodys"]);
    let leases = names(&objects, Kind::LEASE).await?;
    ensure!(
        leases.contains(&"shop/adit-dialer-1".into()),
        "a dialer's: {leases:?}"
    );
    ensure!(
        !leases.contains(&"adit-system/adit-reconciler".into()),
        "the election's: {leases:?}"
    );

    // Again, there is nothing to do.
    let (ok, said) = cleanup(&kubeconfig, &[])?;
    ensure!(ok && said.contains("removed nothing"), "{said}");
    // Something that does not go is said.
    policy(&objects, "shop", "stuck", RECONCILER).await?;
    let held = json!({"metadata": {"finalizers": ["example.com/held"]}});
    objects.merge(kind, "shop", "stuck", None, &held).await?;
    let (ok, said) = cleanup(&kubeconfig, &["--timeout", "1s"])?;
    ensure!(
        !ok && said.contains("the first is shop/stuck; does a finalizer hold it?"),
        "{said}"
    );
    Ok(())
}

pub async fn the_cleanup_waits_for_whoever_leads() -> Result<()> {
    adit_tests::kube::enter()?;
    let plane = ControlPlane::start().await?;
    let objects = plane.admin().await?;
    let (system, kubeconfig) = ("adit-system", plane.kubeconfig());
    objects.make_namespace(system, &[]).await?;
    let dir = tempfile::tempdir()?;
    let (mut leader, _admin) = reconciler::start(dir.path(), &kubeconfig, system, &[]).await?;
    // Made by nobody that the reconciler would look after.
    policy(&objects, system, "ours", RECONCILER).await?;
    let (ok, said) = cleanup(&kubeconfig, &["--timeout", "2s"])?;
    ensure!(
        !ok && said.contains("is still held after 2 s: stop the reconciler first"),
        "{said}"
    );
    let kind = Kind::ENVOY_PATCH_POLICY;
    ensure!(names(&objects, kind).await? == ["adit-system/ours"]);
    // It ends while the clean-up waits.
    let waiting = tokio::task::spawn_blocking(move || cleanup(&kubeconfig, &[]));
    let status = leader.terminate().await?;
    ensure!(status.success(), "{}", leader.last_words());
    let (ok, said) = waiting.await.context("the clean-up")??;
    ensure!(ok && said.contains("removed 1 EnvoyPatchPolicy"), "{said}");
    Ok(())
}
