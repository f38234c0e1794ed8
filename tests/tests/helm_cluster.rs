//! The Helm chart on a real Kubernetes API, with a real Envoy Gateway.
//!
//! | what happens | what must hold |
//! |---|---|
//! | every rendering is applied | the API server takes each object, field by field |
//! | install, `helm test`, upgrade, uninstall | a request comes through a tunnel; nothing is left but CRDs |
//! | the last other version of the chart is upgraded | it goes over without a gap |
//! | the reconciler does all it can | with the rendered rights, and needs each of them |
//! | somebody else writes an EnvoyPatchPolicy | the admission policy refuses it |
//! | the clean-up meets others' objects, or a reconciler that leads | it leaves them alone, and says so |
//!
//! There are no kubelets: the tests start the containers of the rendered pods
//! themselves (`kube::pod`).

#[path = "helm_cluster/admission.rs"]
mod admission;
#[path = "helm_cluster/apply.rs"]
mod apply;
#[path = "helm_cluster/cleanup.rs"]
mod cleanup;
#[path = "helm_cluster/life.rs"]
mod life;
#[path = "helm_cluster/rights.rs"]
mod rights;
#[path = "helm_cluster/upgrade.rs"]
mod upgrade;

use std::path::Path;

use adit_tests::{
    helm::Helm,
    keys::Key,
    kube::{ControlPlane, Kind, Objects},
    on_an_api_server,
    process::Process,
};
use anyhow::{Context, Result};
use serde_json::{Value, json};

use self::{admission::*, apply::*, cleanup::*, life::*, rights::*, upgrade::*};

on_an_api_server!(
    every_rendering_is_taken_by_an_api_server,
    from_nothing_to_a_tunnel_and_back_to_nothing,
    the_last_other_version_is_upgraded,
    the_reconcilers_rights_are_neither_short_nor_wide,
    only_the_reconciler_may_write_patch_policies,
    the_cleanup_leaves_others_objects_alone,
    the_cleanup_waits_for_whoever_leads,
);

/// `helm` on an API server.
struct Cluster {
    helm: Helm,
    kubeconfig: String,
}

impl Cluster {
    /// With an API server of its own; `None` as [`Cluster::new`].
    async fn with_plane() -> Result<Option<(ControlPlane, Self)>> {
        if !is_asked_for() {
            return Ok(None);
        }
        adit_tests::kube::enter()?;
        let plane = ControlPlane::start().await?;
        let cluster = Self::new(&plane)?;
        Ok(cluster.map(|cluster| (plane, cluster)))
    }

    /// `None` after having said that the test is left out.
    fn new(plane: &ControlPlane) -> Result<Option<Self>> {
        if !is_asked_for() {
            return Ok(None);
        }
        let kubeconfig = plane.kubeconfig().display().to_string();
        Ok(Helm::find()?.map(|helm| Self { helm, kubeconfig }))
    }

    /// Runs helm for the release `adit` in `adit-system`.
    fn helm(&self, arguments: &[&str]) -> Result<String> {
        self.helm.run(&self.all(arguments))
    }

    /// The same, where something has to be done meanwhile.
    fn start(&self, dir: &Path, arguments: &[&str]) -> Result<Process> {
        let mut command = self.helm.command(&self.all(arguments));
        Process::start("helm", dir, &mut command)
    }

    fn all<'a>(&'a self, arguments: &[&'a str]) -> Vec<&'a str> {
        let mut all = arguments.to_vec();
        all.extend(["--namespace", adit_tests::helm::NAMESPACE]);
        all.extend(["--kubeconfig", &self.kubeconfig]);
        all
    }
}

/// The `spec` of a Deployment's or Job's pods.
fn pod_of(workload: &Value) -> Result<Value> {
    let spec = workload["spec"]["template"]["spec"].clone();
    spec.is_object().then_some(spec).context("a pod template")
}

/// A connector that has said how it is reached.
async fn connector(objects: &Objects, namespace: &str) -> Result<()> {
    let version = "networking.datumapis.com/v1alpha1";
    let ports = json!([{"name": "a", "port": 80}, {"name": "b", "port": 81}]);
    let services = json!([{"address": "127.0.0.1", "ports": ports}]);
    let all = [
        json!({
            "apiVersion": version, "kind": "Connector", "metadata": {"name": "box"},
            "spec": {"connectorClassName": "datum-connect"},
        }),
        json!({
            "apiVersion": version, "kind": "ConnectorAdvertisement", "metadata": {"name": "box"},
            "spec": {
                "connectorRef": {"name": "box"},
                "layer4": [{"name": "all", "services": services}],
            },
        }),
    ];
    for object in all {
        objects.apply(namespace, object).await?;
    }
    let dir = tempfile::tempdir()?;
    let details = json!({"status": {"connectionDetails": {"type": "PublicKey", "publicKey": {
        "id": Key::new(dir.path(), "box")?.id, "homeRelay": "https://relay.example.com/",
        "discoveryMode": "DNS", "addresses": [{"address": "192.0.2.1", "port": 4242}],
    }}}});
    let kind = Kind::CONNECTOR;
    objects
        .merge(kind, namespace, "box", Some("status"), &details)
        .await
        .map(drop)
}

/// These take a minute: `cargo xtask helm`, `kube e2e` and `test --all` run them.
fn is_asked_for() -> bool {
    let asked = adit_tests::binaries::all();
    if !asked {
        eprintln!("LEFT OUT: cargo xtask helm runs it");
    }
    asked
}
