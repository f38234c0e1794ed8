//! Pages of the book whose commands need a cluster, followed word for word on a
//! real Kubernetes API with Envoy Gateway. Nodes there are none: `Kubelet` starts
//! by hand what the chart's pods would.

use std::{env, fs, os::unix::fs::symlink, process::Command};

use adit_tests::{
    binaries,
    book::{self, kubelet::Kubelet, page::Page, run},
    kube::{Kind, Stack, programs::program},
    on_the_stack,
};
use anyhow::{Context, Result, bail};

on_the_stack!(the_commands_of_every_page_for_a_cluster_work);

async fn the_commands_of_every_page_for_a_cluster_work(stack: &Stack) -> Result<()> {
    // What a page needs beside the control plane; the README tells how to get it.
    let (helm, kubectl) = match (program("helm"), program("kubectl")) {
        (Ok(helm), Ok(kubectl)) => (helm, kubectl),
        (helm, kubectl) => {
            for missing in [helm.err(), kubectl.err()].into_iter().flatten() {
                eprintln!("LEFT OUT: the pages for a cluster: {missing:#}");
            }
            return Ok(());
        }
    };
    let dir = tempfile::Builder::new().prefix("adit-book-").tempdir()?;
    let bin = dir.path().join("bin");
    fs::create_dir(&bin)?;
    for (name, program) in [
        ("helm", helm),
        ("kubectl", kubectl),
        ("adit", binaries::adit()?),
    ] {
        symlink(program, bin.join(name))?;
    }
    remove_crds(stack).await?;
    let path = format!("{}:{}", bin.display(), env::var("PATH")?);
    let mut pages = book::pages()?;
    pages.retain(|page| page.cluster && page.commands().next().is_some());
    let [page] = &pages[..] else {
        // One would find what the other left.
        bail!("{} pages want the cluster for themselves", pages.len());
    };
    let mut kubelet = Kubelet::new(stack, &dir.path().join("pods")).await?;
    let ran = tokio::select! {
        ran = follow(page, stack, dir.path(), &path) => ran,
        broken = kubelet.play() => broken,
    };
    ran.with_context(|| kubelet.last_words())
}

async fn follow(page: &Page, stack: &Stack, dir: &std::path::Path, path: &str) -> Result<()> {
    run::page(page, dir, |script| {
        let mut bash = Command::new("bash");
        bash.arg(script)
            .current_dir(binaries::root())
            .env("PATH", path)
            .env("HOME", dir)
            .env("TMPDIR", dir)
            .env("KUBECONFIG", stack.plane.kubeconfig());
        Ok(bash)
    })
    .await?;
    println!(
        "{} blocks of {}",
        page.commands().count(),
        page.path.display()
    );
    Ok(())
}

/// The stack has Adit's kinds already; the chart brings them.
async fn remove_crds(stack: &Stack) -> Result<()> {
    let objects = stack.admin().await?;
    for crd in adit_api::crds() {
        let name = crd.metadata.name.unwrap_or_default();
        objects.delete(Kind::CRD, "", &name).await?;
        objects.until_gone(Kind::CRD, "", &name).await?;
    }
    Ok(())
}
