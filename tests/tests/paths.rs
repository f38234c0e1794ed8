//! How a connector is reached, and by whom.
//!
//! | relay | trusted | path |
//! |---|---|---|
//! | none | - | direct |
//! | https, own authority | by both sides | relay |
//! | https, own authority | not by the dialer | none: offline, and nobody hangs |

use adit_tests::{
    client::{
        http::{Client, get},
        patiently,
    },
    on_each_envoy,
    process::until,
    relay::Relay,
    services::tls::Authority,
    stage::{Plan, Stage},
};
use anyhow::{Result, ensure};
use serde_json::json;

on_each_envoy!(
    without_a_relay_the_path_is_direct,
    a_relay_with_a_certificate_of_ones_own_is_used_if_it_is_trusted,
    a_relay_that_is_not_trusted_is_a_clear_failure,
);

async fn without_a_relay_the_path_is_direct(version: &str) -> Result<()> {
    let stage = Plan::of(version).start().await?;
    ensure!(get(stage.addr(), "web.test", "/echo").await?.status == 200);
    let path = stage.gateway.path(&stage.connector.key.id).await;
    ensure!(path.as_deref() == Some("direct"), "{path:?}");
    let status = stage.gateway.status().await?;
    ensure!(
        status["relay"].is_null(),
        "a relay nobody asked for: {status}"
    );
    Ok(())
}

/// A stage where the relay is the only way: IPv6 there and IPv4 here.
async fn relay_only(version: &str, relay: &Relay, ca: &str, dialers_ca: &str) -> Result<Stage> {
    let mut plan = Plan::of(version)
        .env("ADIT_RELAY", &relay.url)
        .env("ADIT_RELAY_CA", dialers_ca)
        .option("relay", json!([relay.url]))
        .option("relay-ca", json!(ca))
        .option("bind", json!(["[::1]:0"]));
    plan.hints = false;
    plan.relay = Some(relay.url.clone());
    plan.start().await
}

async fn a_relay_with_a_certificate_of_ones_own_is_used_if_it_is_trusted(
    version: &str,
) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let authority = Authority::new()?;
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, authority.pem())?;
    let ca = ca.display().to_string();
    let relay = Relay::start_tls(&authority).await?;
    let stage = relay_only(version, &relay, &ca, &ca).await?;
    until("answer through the relay", async || {
        let answer = get(stage.addr(), "web.test", "/echo").await.ok()?;
        (answer.status == 200).then_some(())
    })
    .await?;
    let path = stage.gateway.path(&stage.connector.key.id).await;
    ensure!(path.as_deref() == Some("relay"), "{path:?}");
    let mut client = Client::http1(stage.addr(), "web.test").await?;
    patiently("an upload", client.upload(5, 16 << 20)).await
}

async fn a_relay_that_is_not_trusted_is_a_clear_failure(version: &str) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (authority, other) = (Authority::new()?, Authority::new()?);
    let (ca, others_ca) = (dir.path().join("ca.pem"), dir.path().join("other.pem"));
    std::fs::write(&ca, authority.pem())?;
    std::fs::write(&others_ca, other.pem())?;
    let relay = Relay::start_tls(&authority).await?;
    let (ca, others_ca) = (ca.display().to_string(), others_ca.display().to_string());
    let stage = relay_only(version, &relay, &ca, &others_ca).await?;
    let answer = patiently("an answer", get(stage.addr(), "web.test", "/echo")).await?;
    ensure!(
        answer.status == 503 || answer.status == 504,
        "{} {}",
        answer.status,
        answer.text()
    );
    Ok(())
}
