//! Two agents that want one Connector.

use std::path::PathBuf;

use adit_tests::process::until;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::stage::*;

pub async fn of_two_agents_with_one_key_the_later_one_writes() -> Result<()> {
    let mut stage = Stage::new("twins").await?;
    stage.agent.start().await?;
    stage.connector("connection details", has_details).await?;
    stage.make_lease(6).await?;
    let first = stage.lease("renewal", renewed).await?;
    let kubeconfig = stage.agent.options["kubeconfig"].clone();
    let path = PathBuf::from(kubeconfig.as_str().context("a path")?);
    let mut twin = agent(&stage.dir, "twin", &path, "twins", &stage.echo)?;
    twin.set("key-file", json!(stage.agent.key.file));
    twin.start().await?;
    let port = twin.bound().await?[0].port();
    let moved =
        |c: &Value| c["status"]["connectionDetails"]["publicKey"]["addresses"][0]["port"] == port;
    stage.connector("the twin's address", moved).await?;
    let holder = first["spec"]["holderIdentity"].clone();
    stage
        .lease("another holder", |l| {
            renewed(l) && l["spec"]["holderIdentity"] != holder
        })
        .await?;
    // Both say so, and the Connector too; and nobody takes it back.
    let notice = until("the first one's notice", async || {
        let status = stage.agent.status().await.ok()?;
        Some(status["controlPlane"]["notice"].as_str()?.to_owned())
    });
    ensure!(notice.await?.contains("twin-device"));
    let conflict = |c: &Value| {
        let conditions = c["status"]["conditions"].as_array();
        conditions.is_some_and(|all| {
            all.iter()
                .any(|c| c["type"] == "AgentConflict" && c["status"] == "True")
        }) && moved(c)
    };
    stage.connector("the conflict", conflict).await?;
    // Killed, the twin's Lease runs out and the first one is there again.
    twin.kill()?;
    let own = stage.agent.bound().await?[0].port();
    let back = |c: &Value| {
        let conditions = c["status"]["conditions"].as_array();
        let conflict =
            conditions.is_some_and(|all| all.iter().any(|c| c["type"] == "AgentConflict"));
        c["status"]["connectionDetails"]["publicKey"]["addresses"][0]["port"] == own && !conflict
    };
    stage.connector("the first one's address", back).await?;
    Ok(())
}

pub async fn a_name_stays_with_the_device_that_holds_it() -> Result<()> {
    let mut stage = Stage::new("names").await?;
    stage.agent.start().await?;
    stage.connector("connection details", has_details).await?;
    stage.make_lease(6).await?;
    stage.lease("renewal", renewed).await?;
    let kubeconfig = stage.agent.options["kubeconfig"].clone();
    let path = PathBuf::from(kubeconfig.as_str().context("a path")?);
    let mut other = agent(&stage.dir, "other", &path, "names", &stage.echo)?;
    other.start().await?;
    let notice = until("the notice", async || {
        let status = other.status().await.ok()?;
        Some(status["controlPlane"]["notice"].as_str()?.to_owned())
    });
    let notice = notice.await?;
    ensure!(
        notice.contains("agent-device") && notice.contains("--name"),
        "{notice}"
    );
    let same = |c: &Value| {
        c["status"]["connectionDetails"]["publicKey"]["id"] == stage.agent.key.id.as_str()
            && c["status"]["device"]["name"] == "agent-device"
    };
    let seen = stage.connector("the first device", |_| true).await?;
    ensure!(same(&seen), "{}", seen["status"]);
    // It ends: the name is free at once.
    let mut process = stage.agent.process.take().context("a process")?;
    process.terminate().await?;
    let id = other.key.id.clone();
    let taken = |c: &Value| c["status"]["connectionDetails"]["publicKey"]["id"] == id.as_str();
    stage.connector("the other device", taken).await?;
    Ok(())
}
