//! What the shipped roles allow, and what they do not.

use adit_tests::kube::Objects;
use anyhow::{Result, ensure};

use super::stage::*;

pub async fn the_roles_allow_what_is_needed_and_nothing_else() -> Result<()> {
    let stage = Stage::new("rights").await?;
    let own = Objects::open(&stage.kubeconfig).await?;
    let mut wrong = Vec::new();
    for (group, resource) in [
        ("networking.datumapis.com", "connectors"),
        ("networking.datumapis.com", "connectors/status"),
        ("networking.datumapis.com", "httpproxies"),
        ("networking.datumapis.com", "connectoradvertisements"),
        ("coordination.k8s.io", "leases"),
        ("gateway.envoyproxy.io", "envoypatchpolicies"),
        ("gateway.envoyproxy.io", "envoyproxies"),
        ("gateway.networking.k8s.io", "httproutes"),
        ("", "secrets"),
    ] {
        for verb in [
            "get", "list", "watch", "create", "update", "patch", "delete",
        ] {
            for namespace in [&stage.connectors, &stage.dialers, &stage.gateways] {
                let expected = match resource {
                    "connectors" => ["list", "watch"].contains(&verb),
                    "leases" => {
                        *namespace == stage.dialers && ["create", "patch", "delete"].contains(&verb)
                    }
                    "envoypatchpolicies" => {
                        *namespace == stage.gateways && ["list", "watch"].contains(&verb)
                    }
                    _ => false,
                };
                let allowed = own.may(verb, (group, resource), (namespace, "x")).await?;
                if allowed != expected {
                    wrong.push(format!("{verb} {group}/{resource} {namespace}: {allowed}"));
                }
            }
        }
    }
    ensure!(wrong.is_empty(), "{wrong:#?}");
    Ok(())
}
