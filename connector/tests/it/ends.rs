//! How tunnels end: each side first, cleanly and not.

use std::{io::ErrorKind, time::Duration};

use adit_connector::Options;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::*;

/// A tunnel to a service whose side of it the test holds.
async fn pair() -> (Rig, Dialer, Tunnel, TcpStream) {
    let (addr, mut connections) = held().await;
    let rig = rig(&[&addr.to_string()]).await;
    let dialer = rig.connect().await;
    let tunnel = dialer.tunnel(&addr.to_string()).await.unwrap();
    let service = within(connections.recv()).await.unwrap();
    (rig, dialer, tunnel, service)
}

#[tokio::test]
async fn the_dialers_half_close_reaches_the_service_and_the_answer_still_comes() {
    let (_rig, _dialer, mut tunnel, mut service) = pair().await;
    tunnel.send.write_all(b"question").await.unwrap();
    tunnel.send.finish().unwrap();
    let mut question = Vec::new();
    within(service.read_to_end(&mut question)).await.unwrap();
    assert_eq!(question, b"question");
    service.write_all(b"answer").await.unwrap();
    drop(service);
    assert_eq!(tunnel.rest().await, b"answer");
}

#[tokio::test]
async fn the_services_half_close_reaches_the_dialer_and_more_may_be_said() {
    let (_rig, _dialer, mut tunnel, mut service) = pair().await;
    service.write_all(b"banner").await.unwrap();
    service.shutdown().await.unwrap();
    assert_eq!(tunnel.rest().await, b"banner");
    tunnel.send.write_all(b"still here").await.unwrap();
    tunnel.send.finish().unwrap();
    assert_eq!(ended(service).await.unwrap(), b"still here");
}

#[tokio::test]
async fn a_dialers_reset_is_a_reset_at_the_service() {
    let (_rig, _dialer, mut tunnel, service) = pair().await;
    tunnel.send.reset(9u32.into()).unwrap();
    assert_eq!(ended(service).await, Err(ErrorKind::ConnectionReset));
    assert!(within(tunnel.recv.read_to_end(1)).await.is_err());
}

#[tokio::test]
async fn a_dialer_that_wants_no_more_is_a_reset_at_the_service() {
    let (_rig, _dialer, mut tunnel, service) = pair().await;
    tunnel.recv.stop(9u32.into()).unwrap();
    assert_eq!(ended(service).await, Err(ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn a_services_reset_is_a_reset_at_the_dialer() {
    let (rig, _dialer, mut tunnel, service) = pair().await;
    service.set_zero_linger().unwrap();
    drop(service);
    assert!(tunnel.is_cut().await);
    rig.until_metric("adit_connector_streams_ended_total{result=\"aborted\"} 1")
        .await;
    let row = rig.connector.status().peers.remove(0);
    assert!(row.last_error.is_some());
}

#[tokio::test]
async fn a_lost_connection_is_a_reset_at_the_service() {
    let (_rig, dialer, _tunnel, service) = pair().await;
    dialer.connection.close(0u32.into(), b"");
    assert_eq!(ended(service).await, Err(ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn a_service_that_speaks_first_is_heard_at_once() {
    let addr = service(|mut stream| async move {
        stream.write_all(b"220 ready\r\n").await.unwrap();
        let _ = stream.read_u8().await;
    })
    .await;
    let rig = rig(&[&addr.to_string()]).await;
    let dialer = rig.connect().await;
    let mut tunnel = dialer.tunnel(&addr.to_string()).await.unwrap();
    assert_eq!(tunnel.next(11).await, b"220 ready\r\n");
}

#[tokio::test]
async fn a_service_that_never_reads_holds_back_its_sender_and_nobody_else() {
    let (addr, mut connections) = held().await;
    let other = echo().await.to_string();
    let rig = rig(&[&addr.to_string(), &other]).await;
    let dialer = rig.connect().await;
    let mut stalled = dialer.tunnel(&addr.to_string()).await.unwrap();
    let _service = within(connections.recv()).await.unwrap();
    // Writes go on until every buffer on the way is full: two sockets' and a
    // QUIC window. 64 MiB would mean that the connector hoards.
    let chunk = vec![0; 1 << 20];
    let mut taken = 0;
    while let Ok(written) =
        tokio::time::timeout(Duration::from_millis(500), stalled.send.write_all(&chunk)).await
    {
        written.unwrap();
        taken += chunk.len();
        assert!(taken < 64 << 20, "nothing holds the sender back");
    }
    let mut lively = dialer.tunnel(&other).await.unwrap();
    lively.send.write_all(b"x").await.unwrap();
    assert_eq!(lively.next(1).await, b"x");
}

/// As a server does that answers 413 and closes: what it did not read makes
/// its close a reset, and the answer is on the wire before it.
#[tokio::test]
async fn an_answer_before_the_end_of_the_question_is_not_lost() {
    const ANSWER: &[u8] = b"HTTP/1.1 413 Content Too Large\r\nconnection: close\r\n\r\n";
    let addr = service(|mut stream| async move {
        let mut some = [0; 1024];
        let _ = stream.read_exact(&mut some).await;
        let _ = stream.write_all(ANSWER).await;
    })
    .await;
    let rig = rig(&[&addr.to_string()]).await;
    let dialer = rig.connect().await;
    for _ in 0..10 {
        let Tunnel {
            mut send,
            mut recv,
            first,
        } = dialer.tunnel(&addr.to_string()).await.unwrap();
        let asking =
            tokio::spawn(async move { while send.write_all(&[0; 65536]).await.is_ok() {} });
        let mut read = first;
        while let Ok(Some(chunk)) = within(recv.read_chunk(65536)).await {
            read.extend_from_slice(&chunk);
        }
        assert_eq!(read, ANSWER);
        within(asking).await.unwrap();
    }
}

#[tokio::test]
async fn eight_mebibytes_arrive_as_they_were_sent() {
    let service = echo().await.to_string();
    let wide = |options: &mut Options| options.max_streams = Some(64);
    let rig = rig_with(&[&service], wide, |_| {}).await;
    let dialer = rig.connect().await;
    let Tunnel {
        mut send, mut recv, ..
    } = dialer.tunnel(&service).await.unwrap();
    let bytes: Vec<u8> = (0..8u32 << 20).map(|i| (i / 251) as u8).collect();
    let writing = tokio::spawn({
        let bytes = bytes.clone();
        async move {
            send.write_all(&bytes).await.unwrap();
            send.finish().unwrap();
        }
    });
    let back = within(recv.read_to_end(16 << 20)).await.unwrap();
    assert!(back == bytes);
    writing.await.unwrap();
    let row = rig.connector.status().peers.remove(0);
    assert_eq!((row.bytes_sent, row.bytes_received), (8 << 20, 8 << 20));
}
