//! What the admin server tells.

use adit_tunnel::{
    admin::AdminAddr,
    status::{PathKind, PeerState, Role, Status},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::*;

async fn get(rig: &Rig, path: &str) -> (String, String) {
    let AdminAddr::Tcp(addr) = rig.connector.admin() else {
        panic!("a TCP address");
    };
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    within(stream.read_to_string(&mut response)).await.unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

#[tokio::test]
async fn the_pages_say_who_is_connected_and_how() {
    let service = echo().await.to_string();
    let rig = rig(&[&service]).await;
    let dialer = rig.connect().await;
    let mut tunnel = dialer.tunnel(&service).await.unwrap();
    tunnel.send.write_all(b"hello").await.unwrap();
    tunnel.next(5).await;

    assert!(get(&rig, "/livez").await.0.ends_with("200 OK"));
    assert!(get(&rig, "/readyz").await.0.ends_with("200 OK"));
    let status: Status = serde_json::from_str(&get(&rig, "/status").await.1).unwrap();
    assert_eq!((status.role, status.streams), (Role::Connector, 1));
    let peer = &status.peers[0];
    assert_eq!(peer.endpoint_id, id_of(&dialer_key()));
    assert_eq!(
        (peer.state, peer.path),
        (PeerState::Connected, Some(PathKind::Direct))
    );
    assert_eq!((peer.bytes_sent, peer.bytes_received), (5, 5));
    let metrics = get(&rig, "/metrics").await.1;
    assert!(metrics.contains("adit_connector_streams 1\n"), "{metrics}");
    assert!(metrics.ends_with("# EOF\n"));
}

#[tokio::test]
async fn a_connector_without_its_relay_is_alive_and_not_ready() {
    let unreachable = |options: &mut adit_connector::Options| {
        options.endpoint.relay = vec!["http://127.0.0.1:1".into()];
    };
    let rig = rig_with(&["127.0.0.1:1"], unreachable, |_| {}).await;
    assert!(get(&rig, "/livez").await.0.ends_with("200 OK"));
    assert!(get(&rig, "/readyz").await.0.contains("503"));
    let status: Status = serde_json::from_str(&get(&rig, "/status").await.1).unwrap();
    assert!(!status.ready);
    assert!(status.relay.is_some());
}

#[tokio::test]
async fn a_dialer_that_left_keeps_its_row() {
    let service = echo().await.to_string();
    let rig = rig(&[&service]).await;
    let dialer = rig.connect().await;
    let mut tunnel = dialer.tunnel(&service).await.unwrap();
    tunnel.send.finish().unwrap();
    tunnel.rest().await;
    dialer.connection.close(0u32.into(), b"");
    rig.until(|status| status.peers.iter().all(|p| p.state == PeerState::Idle))
        .await;
    let row = rig.connector.status().peers.remove(0);
    assert_eq!((row.streams, row.streams_total), (0, 1));
}
