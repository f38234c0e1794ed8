//! What the shipped role is enough for, and what it does not allow.

use adit_tests::{
    kube::{ControlPlane, Objects},
    process::until,
};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::stage::*;

pub async fn a_lease_is_renewed_while_status_writes_are_refused() -> Result<()> {
    let plane = ControlPlane::shared().await?;
    let mut stage = Stage::new("refused").await?;
    let Value::Array(mut rules) = rules()? else {
        bail!("rules are a list");
    };
    rules.retain(|rule| rule["resources"][0] != "connectors/status");
    let kubeconfig = plane
        .user_with("refused-agent-2", "refused", Value::Array(rules))
        .await?;
    stage.agent.set("kubeconfig", json!(kubeconfig));
    stage.make_lease(6).await?;
    stage.agent.start().await?;
    let first = stage.lease("renewal", renewed).await?;
    let time = first["spec"]["renewTime"].clone();
    stage
        .lease("another renewal", |l| {
            renewed(l) && l["spec"]["renewTime"] != time
        })
        .await?;
    let said = until("what is refused", async || {
        let status = stage.agent.status().await.ok()?;
        let error = status["controlPlane"]["lastError"].as_str()?.to_owned();
        error.contains("status").then_some(error)
    });
    let said = said.await?;
    ensure!(
        said.contains("not permitted") && said.contains("refused-agent-2"),
        "{said}"
    );
    let log = stage.agent.process()?.log();
    let times = log.matches("write the Connector's status").count();
    ensure!(times == 1, "said {times} times, not once:\n{log}");
    Ok(())
}

pub async fn the_role_allows_its_own_objects_and_nothing_else() -> Result<()> {
    let stage = Stage::new("rights").await?;
    let path = stage.agent.options["kubeconfig"].clone();
    let own = Objects::open(path.as_str().context("a path")?.as_ref()).await?;
    let mut wrong = Vec::new();
    for (group, resource) in [
        ("networking.datumapis.com", "connectors"),
        ("networking.datumapis.com", "connectors/status"),
        ("networking.datumapis.com", "connectoradvertisements"),
        ("networking.datumapis.com", "connectoradvertisements/status"),
        ("networking.datumapis.com", "connectorclasses"),
        ("networking.datumapis.com", "httpproxies"),
        ("networking.datumapis.com", "httpproxies/status"),
        ("coordination.k8s.io", "leases"),
        ("gateway.envoyproxy.io", "envoypatchpolicies"),
        ("gateway.networking.k8s.io", "httproutes"),
        ("", "secrets"),
        ("", "pods/exec"),
    ] {
        for verb in [
            "get", "list", "watch", "create", "update", "patch", "delete",
        ] {
            for (namespace, name) in [("rights", EDGE), ("rights", "other"), ("default", EDGE)] {
                let right = name == EDGE && namespace == "rights";
                let expected = right
                    && match resource {
                        "connectors" | "connectoradvertisements" => {
                            ["get", "list", "watch", "create", "patch"].contains(&verb)
                        }
                        "connectors/status" => verb == "patch",
                        "httpproxies" => ["create", "patch"].contains(&verb),
                        "leases" => ["get", "patch"].contains(&verb),
                        _ => false,
                    };
                let allowed = own.may(verb, (group, resource), (namespace, name)).await?;
                if allowed != expected {
                    wrong.push(format!(
                        "{verb} {group}/{resource} {namespace}/{name}: {allowed}"
                    ));
                }
            }
        }
    }
    ensure!(wrong.is_empty(), "{wrong:#?}");
    Ok(())
}
