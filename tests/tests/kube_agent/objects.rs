//! What an agent makes and keeps as it should be.

use std::{fs, time::Instant};

use adit_tests::{
    kube::{ControlPlane, Kind},
    process::until,
    relay::Relay,
};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::stage::*;

pub async fn an_agent_creates_its_objects_and_then_writes_nothing_but_its_lease() -> Result<()> {
    let mut stage = Stage::new("create").await?;
    stage.agent.start().await?;
    let connector = stage.connector("connection details", has_details).await?;
    let bound = stage.agent.bound().await?;
    let details = &connector["status"]["connectionDetails"]["publicKey"];
    ensure!(details["id"] == stage.agent.key.id.as_str(), "{details}");
    ensure!(
        details["addresses"] == json!([{"address": "127.0.0.1", "port": bound[0].port()}]),
        "{details} {bound:?}"
    );
    ensure!(connector["spec"]["connectorClassName"] == "datum-connect");
    ensure!(connector["metadata"]["labels"]["site"] == "a");
    ensure!(
        connector["status"]["device"]["name"] == "agent-device"
            && connector["status"]["device"]["os"].is_string(),
        "{}",
        connector["status"]
    );
    let capability = &connector["status"]["capabilities"][0];
    ensure!(
        capability["type"] == "ConnectTCP" && capability["conditions"][0]["status"] == "True",
        "{capability}"
    );
    let advertised = |ad: &Value| ad["spec"]["layer4"][0]["services"][1]["address"] == "127.0.0.1";
    stage
        .objects
        .until(
            Kind::CONNECTOR_ADVERTISEMENT,
            "create",
            EDGE,
            "targets",
            advertised,
        )
        .await?;

    // The Lease is made after the Connector, as in life: it is found at once.
    stage.make_lease(6).await?;
    stage.lease("renewal", renewed).await?;
    let plane = ControlPlane::shared().await?;
    let mark = plane.mark();
    let before = stage.connector("the Connector", has_details).await?;
    let renewals = || -> Result<Vec<_>> {
        let writes = plane.writes_since(mark)?;
        let own = writes.into_iter().filter(|w| w.user == "create-agent");
        Ok(own.collect())
    };
    until("three more renewals", async || {
        (renewals().ok()?.len() >= 3).then_some(())
    })
    .await?;
    for write in renewals()? {
        ensure!(write.resource == "leases" && write.code == 200, "{write:?}");
    }
    let after = stage.connector("the Connector", has_details).await?;
    ensure!(before["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"]);

    let status = stage.agent.status().await?;
    let control = &status["controlPlane"];
    ensure!(control["connected"] == true, "{control}");
    ensure!(control["object"] == "create/edge", "{control}");
    ensure!(control["leaseRenewedSeconds"].is_u64(), "{control}");
    ensure!(control["lastError"].is_null(), "{control}");
    let metrics = stage.agent.admin.get("/metrics").await?;
    ensure!(
        metrics.contains("adit_connector_control_plane_connected 1"),
        "{metrics}"
    );

    // Its end is seen at once, by whoever looks at holder or time.
    let mut process = stage.agent.process.take().context("a process")?;
    process.terminate().await?;
    stage
        .lease("release", |lease| {
            lease["spec"]["renewTime"].is_null()
                && lease["spec"]["holderIdentity"]
                    .as_str()
                    .is_none_or(str::is_empty)
        })
        .await?;
    stage.connector("what stays", has_details).await?;
    Ok(())
}

pub async fn an_agent_that_starts_again_elsewhere_changes_what_differs() -> Result<()> {
    let mut stage = Stage::new("restart").await?;
    stage.agent.start().await?;
    let first = stage.connector("connection details", has_details).await?;
    stage.make_lease(30).await?;
    stage.lease("renewal", renewed).await?;
    // Killed, as when a device loses power: the Lease stays fresh.
    stage.agent.kill()?;
    stage
        .agent
        .set("label", json!(["line=7"]))
        .set("device-os", json!("Other OS"));
    stage.agent.start().await?;
    let port = stage.agent.bound().await?[0].port();
    let moved = |c: &Value| {
        c["status"]["connectionDetails"]["publicKey"]["addresses"][0]["port"] == port
            && c["status"]["device"]["os"] == "Other OS"
            && c["metadata"]["labels"]["line"] == "7"
    };
    let second = stage.connector("the new address", moved).await?;
    ensure!(first["metadata"]["uid"] == second["metadata"]["uid"]);
    ensure!(
        second["metadata"]["labels"]["site"].is_null(),
        "a label that is no longer wanted goes: {}",
        second["metadata"]["labels"]
    );

    // Targets follow the file without a restart.
    stage.agent.set("targets", json!(["db.internal:5432"]));
    stage.agent.reconfigure()?;
    let follows = |ad: &Value| {
        ad["spec"]["layer4"]
            == json!([{"name": "targets-1", "services": [{"address": "db.internal", "ports": [
                {"name": "tcp-5432", "port": 5432, "protocol": "TCP"}]}]}])
    };
    stage
        .objects
        .until(
            Kind::CONNECTOR_ADVERTISEMENT,
            "restart",
            EDGE,
            "the new target",
            follows,
        )
        .await?;
    Ok(())
}

pub async fn objects_that_are_deleted_or_edited_are_made_as_they_were() -> Result<()> {
    let mut stage = Stage::new("repair").await?;
    stage.agent.start().await?;
    let first = stage.connector("connection details", has_details).await?;
    let uid = first["metadata"]["uid"].clone();
    stage
        .objects
        .delete(Kind::CONNECTOR, "repair", EDGE)
        .await?;
    let again = |c: &Value| has_details(c) && c["metadata"]["uid"] != uid;
    stage.connector("a new Connector", again).await?;
    stage
        .objects
        .delete(Kind::CONNECTOR_ADVERTISEMENT, "repair", EDGE)
        .await?;
    let advertised = |ad: &Value| ad["spec"]["layer4"][0]["services"].is_array();
    stage
        .objects
        .until(
            Kind::CONNECTOR_ADVERTISEMENT,
            "repair",
            EDGE,
            "targets",
            advertised,
        )
        .await?;
    let edit =
        json!({"spec": {"connectorClassName": "other"}, "metadata": {"labels": {"mine": "too"}}});
    stage
        .objects
        .merge(Kind::CONNECTOR, "repair", EDGE, None, &edit)
        .await?;
    let repaired = |c: &Value| {
        c["spec"]["connectorClassName"] == "datum-connect"
            && c["metadata"]["labels"]["mine"] == "too"
    };
    stage.connector("its class again", repaired).await?;

    // An administrator forbids TCP: the agent does not undo it, and says so.
    let disable = json!({"spec": {"capabilities": [{"type": "ConnectTCP", "connectTCP": {"disabled": true}}]}});
    stage
        .objects
        .merge(Kind::CONNECTOR, "repair", EDGE, None, &disable)
        .await?;
    let denied = |c: &Value| {
        c["status"]["capabilities"][0]["conditions"][0]["reason"] == "Disabled"
            && c["spec"]["capabilities"][0]["connectTCP"]["disabled"] == true
    };
    stage.connector("the denial", denied).await?;
    Ok(())
}

pub async fn an_httpproxy_is_applied_when_asked_to() -> Result<()> {
    let mut stage = Stage::new("proxy").await?;
    let file = stage.dir.path().join("proxy.yaml");
    let text = format!(
        "apiVersion: networking.datumapis.com/v1alpha\nkind: HTTPProxy\nmetadata: {{name: {EDGE}}}\n\
         spec:\n  hostnames: [web.example.com]\n  rules:\n  - backends:\n    - endpoint: http://{}\n\
         \x20     connector: {{name: {EDGE}}}\n",
        stage.echo.addr
    );
    fs::write(&file, text)?;
    stage.agent.set("http-proxy", json!(file));
    stage.agent.start().await?;
    let applied = |p: &Value| p["spec"]["hostnames"][0] == "web.example.com";
    stage
        .objects
        .until(Kind::HTTP_PROXY, "proxy", EDGE, "the manifest", applied)
        .await?;
    Ok(())
}

pub async fn a_home_relay_is_told_and_so_is_its_end() -> Result<()> {
    let mut stage = Stage::new("relay").await?;
    let relay = Relay::start().await?;
    let (url, at) = (relay.url.clone(), relay.addr);
    stage.agent.set("relay", json!([url]));
    stage.agent.start().await?;
    let home = |c: &Value| {
        let said = c["status"]["connectionDetails"]["publicKey"]["homeRelay"].as_str();
        said.unwrap_or_default().trim_end_matches('/').to_owned()
    };
    let first = stage
        .connector("the home relay", |c| has_details(c) && home(c) == url)
        .await?;
    // iroh looks at its relays every half minute or so.
    let begun = Instant::now();
    relay.stop().await?;
    stage
        .connector("no home relay", |c| has_details(c) && home(c).is_empty())
        .await?;
    println!("its end is told after {:?}", begun.elapsed());
    let begun = Instant::now();
    let _relay = Relay::start_at(at).await?;
    let again = stage
        .connector("the home relay again", |c| home(c) == url)
        .await?;
    println!("it is told again after {:?}", begun.elapsed());
    ensure!(first["metadata"]["uid"] == again["metadata"]["uid"]);
    Ok(())
}

pub async fn an_httpproxy_is_updated_when_its_manifest_is_another() -> Result<()> {
    let mut stage = Stage::new("newer").await?;
    let file = stage.dir.path().join("proxy.yaml");
    let manifest = |host: &str| {
        json!({
            "apiVersion": "networking.datumapis.com/v1alpha", "kind": "HTTPProxy",
            "metadata": {"name": EDGE},
            "spec": {"hostnames": [host], "rules": [{"backends": [{
                "endpoint": format!("http://{}", stage.echo.addr), "connector": {"name": EDGE},
            }]}]},
        })
        .to_string()
    };
    let (old, new) = (manifest("old.example.com"), manifest("new.example.com"));
    fs::write(&file, old)?;
    stage.agent.set("http-proxy", json!(file));
    stage.agent.start().await?;
    let has = |host: &'static str| move |p: &Value| p["spec"]["hostnames"] == json!([host]);
    let kind = Kind::HTTP_PROXY;
    let until = async |stage: &Stage, host| {
        let found = stage.objects.until(kind, "newer", EDGE, host, has(host));
        found.await.with_context(|| at(host, stage))
    };
    let first = until(&stage, "old.example.com").await?;
    let mut process = stage.agent.process.take().context("a process")?;
    process.terminate().await?;
    fs::write(&file, new)?;
    stage.agent.start().await?;
    let second = until(&stage, "new.example.com").await?;
    ensure!(first["metadata"]["uid"] == second["metadata"]["uid"]);
    Ok(())
}
