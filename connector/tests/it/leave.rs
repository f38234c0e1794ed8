//! Going away in good order, and coming back after a relay did.

use std::{io::ErrorKind, net::Ipv4Addr, net::SocketAddr, time::Duration};

use adit_connector::Options;
use adit_wire::{ErrorClass, connect::ALPN, connect::CLOSE_SHUTDOWN};
use iroh::{
    Endpoint, EndpointAddr, RelayMode, RelayUrl,
    endpoint::{ConnectionError, presets},
};

use crate::support::*;

#[tokio::test]
async fn draining_lets_open_tunnels_end_and_sends_new_ones_elsewhere() {
    let service = echo().await.to_string();
    let rig = rig(&[&service]).await;
    let dialer = rig.connect().await;
    let mut tunnel = dialer.tunnel(&service).await.unwrap();
    let addr = rig.addr();
    let draining = tokio::spawn(rig.connector.drain(PATIENCE));
    within(async {
        // Until the drain has begun, new tunnels are still made.
        while dialer.tunnel(&service).await.err() != Some(ErrorClass::Offline) {}
    })
    .await;
    // A new connection is refused at once, not left to time out.
    let refused = within(dialer.endpoint.connect(addr, ALPN)).await;
    assert!(refused.is_err());
    tunnel.send.write_all(b"last words").await.unwrap();
    tunnel.send.finish().unwrap();
    assert_eq!(tunnel.rest().await, b"last words");
    within(draining).await.unwrap();
    let ConnectionError::ApplicationClosed(close) = within(dialer.connection.closed()).await else {
        panic!("closed by the connector");
    };
    assert_eq!(close.error_code, CLOSE_SHUTDOWN.into());
}

#[tokio::test]
async fn what_is_open_after_the_grace_period_is_cut() {
    let (addr, mut connections) = held().await;
    let rig = rig(&[&addr.to_string()]).await;
    let dialer = rig.connect().await;
    let mut tunnel = dialer.tunnel(&addr.to_string()).await.unwrap();
    let service = within(connections.recv()).await.unwrap();
    within(rig.connector.drain(Duration::ZERO)).await;
    assert!(tunnel.is_cut().await);
    assert_eq!(ended(service).await, Err(ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn run_ends_when_it_is_told_to() {
    let dir = tempfile::tempdir().unwrap();
    let config = options(&dir, &["127.0.0.1:1"]).resolve().unwrap();
    let shutdown = tokio_util::sync::CancellationToken::new();
    let running = tokio::spawn(adit_connector::run(config, shutdown.clone()));
    shutdown.cancel();
    within(running).await.unwrap().unwrap();
}

async fn relay_on(addr: SocketAddr) -> iroh_relay::server::Server {
    let mut relay = iroh_relay::server::RelayConfig::new(addr);
    relay.key_cache_capacity = Some(1024);
    let mut config = iroh_relay::server::ServerConfig::default();
    config.relay = Some(relay);
    iroh_relay::server::Server::spawn(config).await.unwrap()
}

async fn relayed_tunnel(addr: &EndpointAddr, relay: &RelayUrl, service: &str) -> bool {
    let endpoint = Endpoint::builder(presets::Minimal)
        .secret_key(dialer_key())
        .relay_mode(RelayMode::custom([relay.clone()]))
        .clear_ip_transports()
        .bind()
        .await
        .unwrap();
    let connecting = endpoint.connect(addr.clone(), ALPN);
    let Ok(Ok(connection)) = tokio::time::timeout(Duration::from_secs(3), connecting).await else {
        return false;
    };
    let dialer = Dialer {
        endpoint,
        connection,
    };
    let Ok(mut tunnel) = dialer.tunnel(service).await else {
        return false;
    };
    tunnel.send.write_all(b"x").await.unwrap();
    tunnel.next(1).await == b"x"
}

#[tokio::test]
async fn a_relay_that_comes_back_brings_the_connector_back() {
    let service = echo().await.to_string();
    let relay = relay_on(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await;
    let relay_addr = relay.http_addr().unwrap();
    let url: RelayUrl = format!("http://{relay_addr}").parse().unwrap();
    let through_relay = |options: &mut Options| {
        options.endpoint.relay = vec![url.to_string()];
    };
    let rig = rig_with(&[&service], through_relay, |_| {}).await;
    rig.until(|status| status.ready).await;
    let addr = EndpointAddr::new(rig.connector.endpoint().id()).with_relay_url(url.clone());
    assert!(relayed_tunnel(&addr, &url, &service).await);

    relay.shutdown().await.unwrap();
    rig.until(|status| !status.ready).await;
    let relay = relay_on(relay_addr).await;
    rig.until(|status| status.ready).await;
    within(async { while !relayed_tunnel(&addr, &url, &service).await {} }).await;
    let status = rig.connector.status();
    assert!(status.relay.is_some_and(|relay| relay.connected));
    relay.shutdown().await.unwrap();
}
