//! Every way to begin a stream wrongly.

use adit_wire::{
    ErrorClass,
    connect::{MAX_HEAD, MAX_HEADERS},
};

use crate::support::*;

#[tokio::test]
async fn what_is_no_tunnel_request_is_answered_as_misconfigured() {
    let service = echo().await.to_string();
    let rig = rig(&[&service]).await;
    let dialer = rig.connect().await;
    let many = format!(
        "CONNECT {service} HTTP/1.1\r\n{}\r\n",
        "a: b\r\n".repeat(MAX_HEADERS + 1)
    );
    let long = format!(
        "CONNECT {service} HTTP/1.1\r\na: {}\r\n\r\n",
        "b".repeat(MAX_HEAD)
    );
    for head in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET http://a:1/ HTTP/1.1\r\nhost: a\r\n\r\n",
        "CONNECT a HTTP/1.1\r\n\r\n",
        "CONNECT a:0 HTTP/1.1\r\n\r\n",
        "CONNECT 0x7f.1:80 HTTP/1.1\r\n\r\n",
        "CONNECT [::1:80 HTTP/1.1\r\n\r\n",
        "CONNECT a:1 HTTP/2\r\n\r\n",
        "\0\0\0\0\0\0\0\0\0\0\0\0",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &many,
        &long,
    ] {
        let answer = dialer.raw(head.as_bytes()).await.err();
        assert_eq!(answer, Some(ErrorClass::Misconfigured), "{head:.60}");
    }
    // The connection and its other streams do not suffer.
    assert!(dialer.tunnel(&service).await.is_ok());
}

#[tokio::test]
async fn a_head_that_is_cut_anywhere_opens_nothing() {
    let service = echo().await.to_string();
    let rig = rig(&[&service]).await;
    let dialer = rig.connect().await;
    let head = adit_wire::connect::encode_request(&service.parse().unwrap());
    for end in 1..head.len() {
        let (mut send, mut recv) = within(dialer.connection.open_bi()).await.unwrap();
        send.write_all(&head[..end]).await.unwrap();
        send.finish().unwrap();
        assert!(within(recv.read_to_end(1024)).await.is_err(), "{end} bytes");
    }
    let line = format!(
        "adit_connector_streams_ended_total{{result=\"bad-head\"}} {}",
        head.len() - 1
    );
    rig.until_metric(&line).await;
}

#[tokio::test]
async fn a_head_may_come_byte_by_byte_but_not_for_ever() {
    let service = echo().await.to_string();
    let quick = |options: &mut adit_connector::Options| {
        options.head_timeout = "300ms".parse().ok();
    };
    let rig = rig_with(&[&service], quick, |_| {}).await;
    let dialer = rig.connect().await;
    let head = adit_wire::connect::encode_request(&service.parse().unwrap());
    let (mut send, recv) = within(dialer.connection.open_bi()).await.unwrap();
    for byte in &head {
        send.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert!(answer(send, recv).await.is_ok());

    let (mut send, recv) = within(dialer.connection.open_bi()).await.unwrap();
    send.write_all(&head[..head.len() - 1]).await.unwrap();
    assert_eq!(answer(send, recv).await.err(), Some(ErrorClass::Timeout));
}

#[tokio::test]
async fn bytes_right_behind_the_request_reach_the_service_first() {
    let service = echo().await.to_string();
    let rig = rig(&[&service]).await;
    let dialer = rig.connect().await;
    let early = vec![7; 20_000];
    let mut tunnel = dialer.tunnel_with(&service, &early).await.unwrap();
    tunnel.send.write_all(b"later").await.unwrap();
    tunnel.send.finish().unwrap();
    assert_eq!(tunnel.rest().await, [&early[..], b"later"].concat());
}

#[tokio::test]
async fn thousands_of_streams_that_say_nothing_do_not_stop_one_that_does() {
    let service = echo().await.to_string();
    let rig = rig(&[&service]).await;
    let dialer = rig.connect().await;
    let mut silent = Vec::new();
    for _ in 0..2000 {
        let (mut send, recv) = within(dialer.connection.open_bi()).await.unwrap();
        send.write_all(b"C").await.unwrap();
        silent.push((send, recv));
    }
    let mut tunnel = dialer.tunnel(&service).await.unwrap();
    tunnel.send.write_all(b"x").await.unwrap();
    assert_eq!(tunnel.next(1).await, b"x");
}
