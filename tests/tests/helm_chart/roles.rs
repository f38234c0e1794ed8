//! The chart's roles are those that are shipped as manifests, which
//! `kube_reconcile`, `kube_dialer` and `kube_agent` run with.

use std::{collections::BTreeSet, fs};

use adit_tests::{
    binaries::root,
    helm::{self, Document, Helm},
};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::run;

#[test]
fn the_reconcilers_role_is_that_of_the_manifests() {
    run(reconciler);
}

#[test]
fn the_roles_in_namespaces_are_together_what_the_role_for_all_of_them_is() {
    run(reconciler_in_namespaces);
}

#[test]
fn the_dialers_and_the_agents_roles_are_those_of_the_manifests() {
    run(dialer_and_agent);
}

/// One thing that a role allows: group, resource, name (empty for all), verb.
type Right = [String; 4];

/// All that rules allow, each by itself.
fn rights(rules: &Value) -> BTreeSet<Right> {
    let list = |rule: &Value, key: &str| -> Vec<String> {
        let all = rule[key].as_array().into_iter().flatten();
        all.map(|v| v.as_str().unwrap_or_default().to_owned())
            .collect()
    };
    let mut rights = BTreeSet::new();
    for rule in rules.as_array().into_iter().flatten() {
        let mut names = list(rule, "resourceNames");
        if names.is_empty() {
            names.push(String::new());
        }
        for group in list(rule, "apiGroups") {
            for resource in list(rule, "resources") {
                for name in &names {
                    for verb in list(rule, "verbs") {
                        let right = [group.clone(), resource.clone(), name.clone(), verb];
                        rights.insert(right);
                    }
                }
            }
        }
    }
    rights
}

/// All that roles of a kind and name allow, in a namespace (empty for all).
fn rights_of<'a>(
    documents: impl IntoIterator<Item = &'a Value>,
    kind: &str,
    name: &str,
    namespace: &str,
) -> BTreeSet<Right> {
    let wanted = |d: &&Value| {
        d["kind"] == kind
            && d["metadata"]["name"] == name
            && (namespace.is_empty() || d["metadata"]["namespace"] == namespace)
    };
    let found = documents.into_iter().filter(wanted);
    found.flat_map(|d| rights(&d["rules"])).collect()
}

fn objects(documents: &[Document]) -> Vec<&Value> {
    documents.iter().map(|d| &d.object).collect()
}

fn manifest(file: &str) -> Result<Vec<Value>> {
    let path = root().join("envoy/kubernetes").join(file);
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    Ok(serde_saphyr::from_multiple(&text)?)
}

fn same(what: &str, chart: &BTreeSet<Right>, manifest: &BTreeSet<Right>) -> Result<()> {
    ensure!(!manifest.is_empty(), "{what}: the manifest has no role");
    let only = |a: &BTreeSet<Right>, b: &BTreeSet<Right>| -> Vec<String> {
        a.difference(b).map(|right| right.join(" ")).collect()
    };
    ensure!(
        chart == manifest,
        "{what}: only in the chart: {:#?}; only in envoy/kubernetes: {:#?}",
        only(chart, manifest),
        only(manifest, chart)
    );
    Ok(())
}

/// A rendering with these values.
fn rendered(helm: &Helm, values: &Value) -> Result<Vec<Document>> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("values.yaml");
    fs::write(&file, values.to_string())?;
    helm.template(&file)
}

/// With every way of publishing that asks for rights of its own.
fn every_way() -> [Value; 2] {
    let server =
        json!({"publish": "rfc2136", "server": "192.0.2.1:53", "tsigKey": {"secretName": "k"}});
    [
        json!({"reconciler": {"dns": {"publish": "endpoint"}}}),
        json!({"reconciler": {"dns": server}}),
    ]
}

fn reconciler(helm: &Helm) -> Result<()> {
    let shipped = manifest("rbac-reconciler.yaml")?;
    let name = "adit-reconciler";
    let mut everywhere = BTreeSet::new();
    let mut own = BTreeSet::new();
    for values in every_way() {
        let documents = rendered(helm, &values)?;
        let objects = objects(&documents);
        everywhere.extend(rights_of(objects.clone(), "ClusterRole", name, ""));
        own.extend(rights_of(objects, "Role", name, helm::NAMESPACE));
    }
    let of = |kind| rights_of(&shipped, kind, name, "");
    same("everywhere", &everywhere, &of("ClusterRole"))?;
    same("in its own namespace", &own, &of("Role"))
}

fn reconciler_in_namespaces(helm: &Helm) -> Result<()> {
    let name = "adit-reconciler";
    for mut values in every_way() {
        let documents = rendered(helm, &values)?;
        let objects_all = objects(&documents);
        let all = rights_of(objects_all, "ClusterRole", name, "");
        values["watchNamespaces"] = json!(["shop", "blog"]);
        let documents = rendered(helm, &values)?;
        let objects = objects(&documents);
        let cluster = rights_of(objects.clone(), "ClusterRole", name, "");
        let shop = rights_of(objects.clone(), "Role", name, "shop");
        let blog = rights_of(objects.clone(), "Role", name, "blog");
        ensure!(shop == blog && shop.is_disjoint(&cluster));
        same("together", &shop.union(&cluster).cloned().collect(), &all)?;
        // Whatever may be written is written in a namespace.
        let reads = |right: &Right| ["get", "list", "watch"].contains(&right[3].as_str());
        ensure!(cluster.iter().all(reads), "{cluster:#?}");
        // Where dialers are, nothing but their Leases is read.
        let dialers = rights_of(objects, "Role", name, "adit-dialers");
        ensure!(
            dialers.iter().all(|r| r[1] == "leases" && reads(r)),
            "{dialers:#?}"
        );
    }
    Ok(())
}

fn dialer_and_agent(helm: &Helm) -> Result<()> {
    let documents = helm.template(&helm::values_of("quick")?)?;
    let chart = objects(&documents);
    let shipped = manifest("rbac-dialer.yaml")?;
    for (kind, name, here, there) in [
        ("ClusterRole", "adit-dialer-connectors", "", ""),
        ("Role", "adit-dialer-own", "adit-dialers", "adit-dialers"),
        (
            "Role",
            "adit-dialer-gateways",
            helm::ENVOY_GATEWAY,
            "gateways",
        ),
    ] {
        let ours = rights_of(chart.clone(), kind, name, here);
        let theirs = rights_of(&shipped, kind, "adit-dialer", there);
        same(name, &ours, &theirs)?;
    }
    // The agent of `helm test` writes no HTTPProxy.
    let mut shipped: Vec<Value> = manifest("rbac-connector.yaml")?;
    for document in &mut shipped {
        if let Some(rules) = document["rules"].as_array_mut() {
            rules.retain(|rule| rule["resources"] != json!(["httpproxies"]));
        }
    }
    let text = serde_json::to_string(&shipped)?.replace("\"edge\"", "\"adit-test\"");
    let shipped: Vec<Value> = serde_json::from_str(&text)?;
    let ours = rights_of(chart, "Role", "adit-test", helm::NAMESPACE);
    let theirs = rights_of(&shipped, "Role", "adit-connector-edge", "");
    same("the agent", &ours, &theirs)
}
