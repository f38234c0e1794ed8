//! Every way in which a connector can fail to answer.

use adit_wire::{ErrorClass, connect};
use iroh::{
    SecretKey,
    endpoint::{RecvStream, SendStream, VarInt},
};

use crate::support::{Device, DeviceConfig, Dialer, accept, hasty, request, service, target};

#[tokio::test]
async fn every_class_that_a_connector_answers_is_passed_on() {
    let dialer = Dialer::start().await;
    for class in ErrorClass::ALL {
        let device = Device::serving(service(move |mut send, mut recv| async move {
            accept(&mut send, &mut recv, Err(class)).await;
            let _ = send.finish();
            let _ = send.stopped().await;
        }));
        dialer.tell(&[(device.id, &[device.addr])]);
        assert_eq!(dialer.refused(&target(&[device.id])).await.class, class);
    }
}

#[tokio::test]
async fn nobody_at_that_key_is_offline() {
    let dialer = Dialer::start().await;
    let nobody = adit_tunnel::ids::to_wire(SecretKey::generate().public());
    let refusal = dialer.refused(&target(&[nobody])).await;
    assert_eq!(refusal.class, ErrorClass::Offline);
    assert!(
        refusal.text.contains("no address is known"),
        "{}",
        refusal.text
    );
}

#[tokio::test]
async fn an_address_where_nobody_listens_is_offline_after_the_idle_timeout() {
    let dialer = Dialer::with(|o| o.endpoint.max_idle_timeout = "500ms".parse().ok()).await;
    let nobody = adit_tunnel::ids::to_wire(SecretKey::generate().public());
    // Bound, so that no ICMP error comes; never read.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    dialer.tell(&[(nobody, &[silent.local_addr().unwrap()])]);
    let refusal = dialer.refused(&target(&[nobody])).await;
    assert_eq!(refusal.class, ErrorClass::Offline, "{}", refusal.text);
}

#[tokio::test]
async fn an_id_that_is_no_key_is_misconfigured() {
    let dialer = Dialer::start().await;
    let no_key = (0..=255)
        .map(|b| adit_wire::EndpointId::from_bytes([b; 32]))
        .find(|id| adit_tunnel::ids::to_iroh(*id).is_err())
        .unwrap();
    let refusal = dialer.refused(&target(&[no_key])).await;
    assert_eq!(refusal.class, ErrorClass::Misconfigured, "{}", refusal.text);
}

#[tokio::test]
async fn a_peer_that_speaks_another_protocol_is_offline() {
    let dialer = Dialer::start().await;
    let device = Device::with(DeviceConfig {
        alpn: b"something-else/1".to_vec(),
        ..Default::default()
    });
    dialer.tell(&[(device.id, &[device.addr])]);
    let refusal = dialer.refused(&target(&[device.id])).await;
    assert_eq!(refusal.class, ErrorClass::Offline, "{}", refusal.text);
}

#[tokio::test]
async fn another_key_at_the_address_is_offline() {
    let (dialer, device) = (Dialer::start().await, Device::start());
    let other = adit_tunnel::ids::to_wire(SecretKey::generate().public());
    dialer.tell(&[(other, &[device.addr])]);
    let refusal = dialer.refused(&target(&[other])).await;
    assert_eq!(refusal.class, ErrorClass::Offline, "{}", refusal.text);
}

#[tokio::test]
async fn a_connector_that_does_not_want_this_dialer_is_denied() {
    let dialer = Dialer::start().await;
    let device = Device::with(DeviceConfig {
        reject: Some(connect::CLOSE_DENIED),
        ..Default::default()
    });
    dialer.tell(&[(device.id, &[device.addr])]);
    let refusal = dialer.refused(&target(&[device.id])).await;
    assert_eq!(refusal.class, ErrorClass::Denied, "{}", refusal.text);
    // At once again: the answer is remembered, not asked for.
    let before = device.connections();
    let refusal = dialer.refused(&target(&[device.id])).await;
    assert_eq!(refusal.class, ErrorClass::Denied, "{}", refusal.text);
    assert!(device.connections() <= before + 1);
}

#[tokio::test]
async fn garbage_oversized_and_broken_off_answers_are_internal_and_the_link_stays() {
    let dialer = Dialer::start().await;
    let long = format!(
        "HTTP/1.1 200 OK\r\nx: {}",
        "y".repeat(2 * connect::MAX_HEAD)
    );
    for bytes in [
        "\0\u{1}\u{2}garbage",
        "SSH-2.0-OpenSSH\r\n\r\n",
        &long,
        "HTTP/1.1 2",
        "",
    ] {
        let bytes = bytes.to_owned();
        let device = Device::serving(service(move |mut send, mut recv| {
            let bytes = bytes.clone();
            async move {
                request(&mut recv).await;
                let _ = send.write_all(bytes.as_bytes()).await;
                let _ = send.finish();
                let _ = send.stopped().await;
            }
        }));
        dialer.tell(&[(device.id, &[device.addr])]);
        for _ in 0..2 {
            let refusal = dialer.refused(&target(&[device.id])).await;
            assert_eq!(refusal.class, ErrorClass::Internal, "{}", refusal.text);
        }
        assert_eq!(device.connections(), 1);
    }
}

#[tokio::test]
async fn a_reset_instead_of_an_answer_is_internal() {
    let dialer = Dialer::start().await;
    let device = Device::serving(service(
        async |mut send: SendStream, mut recv: RecvStream| {
            request(&mut recv).await;
            let _ = send.reset(VarInt::from_u32(9));
            let _ = recv.stop(VarInt::from_u32(9));
        },
    ));
    dialer.tell(&[(device.id, &[device.addr])]);
    let refusal = dialer.refused(&target(&[device.id])).await;
    assert_eq!(refusal.class, ErrorClass::Internal, "{}", refusal.text);
}

#[tokio::test]
async fn no_answer_by_the_deadline_is_a_timeout_and_a_slow_one_before_it_is_fine() {
    let dialer = Dialer::start().await;
    let silent = Device::serving(service(async |_send: SendStream, mut recv: RecvStream| {
        request(&mut recv).await;
        std::future::pending().await
    }));
    dialer.tell(&[(silent.id, &[silent.addr])]);
    let refusal = dialer.refused(&hasty(&[silent.id], 200)).await;
    assert_eq!(refusal.class, ErrorClass::Timeout, "{}", refusal.text);

    let slow = Device::serving(service(
        async |mut send: SendStream, mut recv: RecvStream| {
            request(&mut recv).await;
            for byte in connect::encode_answer(Ok(())) {
                let _ = send.write_all(&[byte]).await;
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            let _ = send.stopped().await;
        },
    ));
    dialer.tell(&[(slow.id, &[slow.addr])]);
    assert!(dialer.open(&target(&[slow.id])).await.is_ok());
}
