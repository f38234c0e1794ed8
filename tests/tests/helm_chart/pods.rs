//! What is true of every pod that the chart brings, Envoy's included.

use std::process::Command;

use adit_tests::{
    binaries,
    helm::{self, Document, Helm, find},
};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::run;

#[test]
fn every_container_runs_as_one_user_that_may_nothing() {
    run(one_user);
}

#[test]
fn every_command_takes_the_arguments_it_is_given() {
    run(arguments);
}

#[test]
fn the_dialers_socket_is_seen_by_envoy_and_its_key_and_token_are_not() {
    run(volumes);
}

/// A pod of a rendering: who brings it, and its `spec`. Of Envoy's pod, what the
/// chart adds.
fn pods(documents: &[Document]) -> Vec<(String, Value)> {
    let mut pods = Vec::new();
    for document in documents {
        let spec = &document.object["spec"];
        let pod = match document.kind() {
            "Pod" => spec.clone(),
            "Deployment" | "Job" => spec["template"]["spec"].clone(),
            "EnvoyProxy" => {
                let deployment = &spec["provider"]["kubernetes"]["envoyDeployment"];
                let mut pod = deployment["pod"].clone();
                pod["initContainers"] = deployment["initContainers"].clone();
                pod
            }
            _ => continue,
        };
        pods.push((document.kind().to_owned(), pod));
    }
    pods
}

fn containers(pod: &Value) -> Vec<&Value> {
    let lists = ["initContainers", "containers"];
    let all = lists.iter().filter_map(|list| pod[list].as_array());
    all.flatten().collect()
}

fn one_user(helm: &Helm) -> Result<()> {
    let mut kinds = std::collections::BTreeSet::new();
    for (set, values) in helm::values()? {
        for (kind, pod) in pods(&helm.template(&values)?) {
            let whose = format!("{set}: {kind}");
            let security = &pod["securityContext"];
            for (key, wanted) in [
                ("runAsNonRoot", json!(true)),
                ("runAsUser", json!(65532)),
                ("runAsGroup", json!(65532)),
                ("fsGroup", json!(65532)),
                ("seccompProfile", json!({"type": "RuntimeDefault"})),
            ] {
                ensure!(security[key] == wanted, "{whose}: {key}: {security}");
            }
            let containers = containers(&pod);
            ensure!(!containers.is_empty(), "{whose} has no container");
            for container in containers {
                let whose = format!("{whose} {}", container["name"]);
                let security = &container["securityContext"];
                for (key, wanted) in [
                    ("runAsNonRoot", json!(true)),
                    ("runAsUser", json!(65532)),
                    ("runAsGroup", json!(65532)),
                    ("readOnlyRootFilesystem", json!(true)),
                    ("allowPrivilegeEscalation", json!(false)),
                    ("capabilities", json!({"drop": ["ALL"]})),
                    ("seccompProfile", json!({"type": "RuntimeDefault"})),
                ] {
                    ensure!(security[key] == wanted, "{whose}: {key}: {security}");
                }
                let resources = &container["resources"];
                ensure!(
                    resources["requests"]["memory"].is_string()
                        && resources["requests"]["cpu"].is_string()
                        && resources["limits"]["memory"].is_string(),
                    "{whose}: {resources}"
                );
            }
            kinds.insert(kind);
        }
    }
    let all = ["Deployment", "EnvoyProxy", "Job", "Pod"];
    ensure!(kinds.iter().eq(all), "{kinds:?}");
    Ok(())
}

fn arguments(helm: &Helm) -> Result<()> {
    let mut seen = std::collections::BTreeSet::new();
    for (set, values) in helm::values()? {
        for (_, pod) in pods(&helm.template(&values)?) {
            for container in containers(&pod) {
                let words = |key: &str| -> Vec<String> {
                    let all = container[key].as_array().into_iter().flatten();
                    all.filter_map(|w| w.as_str().map(str::to_owned)).collect()
                };
                let command = words("command");
                let ["/adit", role] = command.iter().map(String::as_str).collect::<Vec<_>>()[..]
                else {
                    continue;
                };
                // There is no cluster here; whatever is wrong with an argument
                // is said before that.
                let output = Command::new(binaries::adit()?)
                    .arg(role)
                    .args(words("args").iter().filter(|a| *a != "--in-cluster"))
                    .arg("--kubeconfig=/nowhere")
                    .env_clear()
                    .output()?;
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                // Agent and dialer make their key before.
                let wanted = match role {
                    "dialer" | "connector" => &["/var/lib/adit", "/nowhere"][..],
                    "reconciler" => &["/nowhere", "tsig"],
                    _ => &["/nowhere"],
                };
                ensure!(
                    !said.contains("Usage:") && wanted.iter().any(|w| said.contains(w)),
                    "{set}: adit {role}: {said}"
                );
                seen.insert(role.to_owned());
            }
        }
    }
    let all = ["cleanup", "connector", "dialer", "reconciler"];
    ensure!(seen.iter().eq(all), "{seen:?}");
    Ok(())
}

fn volumes(helm: &Helm) -> Result<()> {
    let documents = helm.template(&helm::values_of("quick")?)?;
    let proxy = find(&documents, "EnvoyProxy", "adit")?;
    let deployment = &proxy["spec"]["provider"]["kubernetes"]["envoyDeployment"];
    let mounts = |container: &Value| -> Vec<(String, String, bool)> {
        let all = container["volumeMounts"].as_array().into_iter().flatten();
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        all.map(|m| {
            (
                text(&m["name"]),
                text(&m["mountPath"]),
                m["readOnly"] == true,
            )
        })
        .collect()
    };
    let mount = |name: &str, path: &str, read_only| (name.to_owned(), path.to_owned(), read_only);
    let envoy = mounts(&deployment["container"]);
    ensure!(
        envoy
            == [
                mount("adit-module", "/usr/lib/adit", true),
                mount("adit-run", "/run/adit", true),
            ],
        "{envoy:?}"
    );
    let module = &proxy["spec"]["dynamicModules"][0]["source"]["local"]["path"];
    ensure!(module == "/usr/lib/adit/libadit.so", "{module}");
    let init = deployment["initContainers"]
        .as_array()
        .context("initContainers")?;
    let dialer = init
        .iter()
        .find(|c| c["name"] == "adit-dialer")
        .context("the dialer")?;
    ensure!(dialer["restartPolicy"] == "Always", "a sidecar");
    let seen = mounts(dialer);
    let token = "/var/run/secrets/kubernetes.io/serviceaccount";
    ensure!(
        seen == [
            mount("adit-run", "/run/adit", false),
            mount("adit-key", "/var/lib/adit", false),
            mount("adit-token", token, true),
        ],
        "{seen:?}"
    );
    let args = dialer["args"].to_string();
    let reconciler = find(&documents, "Deployment", "adit-reconciler")?;
    let told = reconciler["spec"]["template"]["spec"]["containers"][0]["args"].to_string();
    ensure!(
        args.contains("\"--socket=/run/adit/dialer.sock\""),
        "{args}"
    );
    ensure!(
        told.contains("\"--dialer-socket=/run/adit/dialer.sock\""),
        "{told}"
    );
    ensure!(
        args.contains("\"--namespace=adit-dialers\"")
            && told.contains("\"--dialer-namespace=adit-dialers\""),
        "{args} {told}"
    );
    for name in ["adit-run", "adit-key"] {
        let volumes = deployment["pod"]["volumes"].as_array().context("volumes")?;
        let volume = volumes.iter().find(|v| v["name"] == name);
        let medium = volume.map(|v| &v["emptyDir"]["medium"]);
        ensure!(medium.is_some_and(|m| m == "Memory"), "{name}: {volume:?}");
    }
    Ok(())
}
