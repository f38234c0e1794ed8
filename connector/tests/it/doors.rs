//! Who gets in.

use adit_wire::connect::{ALPN, CLOSE_DENIED, CLOSE_OVERLOADED};
use iroh::{
    SecretKey,
    endpoint::{Connection, ConnectionError},
};

use crate::support::*;

async fn close_code(connection: &Connection) -> u64 {
    match within(connection.closed()).await {
        ConnectionError::ApplicationClosed(close) => close.error_code.into_inner(),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn an_allowed_dialer_reaches_the_service() {
    let service = echo().await.to_string();
    let rig = rig(&[&service]).await;
    let dialer = rig.connect().await;
    let mut tunnel = dialer.tunnel(&service).await.unwrap();
    tunnel.send.write_all(b"hello").await.unwrap();
    assert_eq!(tunnel.next(5).await, b"hello");
    tunnel.send.finish().unwrap();
    assert_eq!(tunnel.rest().await, b"");
    rig.until_metric("adit_connector_streams_ended_total{result=\"clean\"} 1")
        .await;
}

#[tokio::test]
async fn a_dialer_that_is_not_listed_is_closed_with_a_reason() {
    let rig = rig(&["127.0.0.1:1"]).await;
    let stranger = rig.connect_as(SecretKey::from_bytes(&[7; 32])).await;
    assert_eq!(
        close_code(&stranger.connection).await,
        u64::from(CLOSE_DENIED)
    );
    rig.until_metric("adit_connector_connections_rejected_total{reason=\"not-allowed\"} 1")
        .await;
    assert!(rig.connector.status().peers.is_empty());
}

#[tokio::test]
async fn any_lets_everybody_in() {
    let service = echo().await.to_string();
    let anybody = |options: &mut adit_connector::Options| options.allow = Some(vec!["any".into()]);
    let rig = rig_with(&[&service], anybody, |_| {}).await;
    let stranger = rig.connect_as(SecretKey::from_bytes(&[7; 32])).await;
    assert!(stranger.tunnel(&service).await.is_ok());
}

#[tokio::test]
async fn another_protocol_is_refused_in_the_handshake() {
    let rig = rig(&["127.0.0.1:1"]).await;
    let endpoint = endpoint(dialer_key()).await;
    let refused = within(endpoint.connect(rig.addr(), b"another/1")).await;
    // TLS alert 120: no_application_protocol (RFC 7301).
    let error = refused.expect_err("another ALPN");
    assert!(format!("{error:?}").contains("120"), "{error:?}");
    rig.until_metric("adit_connector_connections_rejected_total{reason=\"handshake\"} 1")
        .await;
}

#[tokio::test]
async fn connections_over_a_dialers_limit_are_closed_and_the_old_ones_live() {
    let service = echo().await.to_string();
    let limit = |options: &mut adit_connector::Options| {
        options.max_connections_per_dialer = Some(2);
    };
    let rig = rig_with(&[&service], limit, |_| {}).await;
    let first = rig.connect().await;
    assert!(first.tunnel(&service).await.is_ok());
    let second = within(first.endpoint.connect(rig.addr(), ALPN))
        .await
        .unwrap();
    rig.until_metric("adit_connector_connections 2").await;
    let third = within(first.endpoint.connect(rig.addr(), ALPN))
        .await
        .unwrap();
    assert_eq!(close_code(&third).await, u64::from(CLOSE_OVERLOADED));
    assert!(first.tunnel(&service).await.is_ok());
    assert!(second.close_reason().is_none());
    // A place that was given back is used again.
    second.close(0u32.into(), b"");
    rig.until_metric("adit_connector_connections 1").await;
    let fourth = within(first.endpoint.connect(rig.addr(), ALPN))
        .await
        .unwrap();
    rig.until_metric("adit_connector_connections 2").await;
    assert!(fourth.close_reason().is_none());
}

#[tokio::test]
async fn a_dialer_that_died_gives_its_connection_back() {
    let (addr, mut connections) = held().await;
    let fast = |options: &mut adit_connector::Options| {
        options.endpoint.max_idle_timeout = "600ms".parse().ok();
    };
    let rig = rig_with(&[&addr.to_string()], fast, |_| {}).await;
    // A dialer in another runtime that stops being run is a process that
    // was killed: nothing is said.
    let (sent, received) = tokio::sync::oneshot::channel();
    let address = rig.addr();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let dialer = runtime.block_on(async move {
            let endpoint = endpoint(dialer_key()).await;
            let connection = endpoint.connect(address, ALPN).await.unwrap();
            let dialer = Dialer {
                endpoint,
                connection,
            };
            let tunnel = dialer.tunnel(&addr.to_string()).await.unwrap();
            (dialer, tunnel)
        });
        sent.send(()).unwrap();
        // Neither driven nor dropped.
        std::mem::forget((dialer, runtime));
    });
    within(received).await.unwrap();
    thread.join().unwrap();
    let service = within(connections.recv()).await.unwrap();
    assert_eq!(
        ended(service).await,
        Err(std::io::ErrorKind::ConnectionReset)
    );
    rig.until_metric("adit_connector_connections 0").await;
}

#[tokio::test]
async fn more_handshakes_than_places_all_succeed_in_the_end() {
    let one = |options: &mut adit_connector::Options| {
        options.max_handshakes = Some(1);
        options.max_connections_per_dialer = Some(100);
    };
    let rig = rig_with(&["127.0.0.1:1"], one, |_| {}).await;
    let mut dialing = Vec::new();
    for _ in 0..8 {
        let endpoint = endpoint(dialer_key()).await;
        let addr = rig.addr();
        dialing.push(tokio::spawn(async move {
            let connection = endpoint.connect(addr, ALPN).await;
            (endpoint, connection)
        }));
    }
    let mut connected = Vec::new();
    for task in dialing {
        let (endpoint, connection) = within(task).await.unwrap();
        connected.push((endpoint, connection.unwrap()));
    }
    rig.until_metric("adit_connector_connections 8").await;
}

#[tokio::test]
async fn packets_that_are_no_quic_disturb_nobody() {
    let service = echo().await.to_string();
    let rig = rig(&[&service]).await;
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let to = rig.connector.endpoint().bound_sockets()[0];
    for i in 0..2000u32 {
        let len = (i as usize * 37) % 1400;
        let noise: Vec<u8> = (0..len).map(|j| (i as usize * 31 + j * j) as u8).collect();
        // A full socket buffer is no failure of the connector.
        let _ = socket.send_to(&noise, to).await;
    }
    let dialer = rig.connect().await;
    assert!(dialer.tunnel(&service).await.is_ok());
}
