//! Queues, stream limits, clients that leave, stalled siblings.

use std::sync::Arc;

use adit_wire::ErrorClass;
use futures_util::future::join_all;
use iroh::endpoint::{RecvStream, SendStream};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::Semaphore,
};

use crate::support::{
    Device, DeviceConfig, Dialer, accept, hasty, read_all, request, service, soon, target, until,
};

/// One request on a tunnel: open, say, hear, end.
async fn exchange(dialer: &Dialer, wanted: &adit_wire::Target) {
    let (mut socket, _) = dialer.open(wanted).await.expect("served, not refused");
    socket.write_all(b"ping").await.unwrap();
    socket.shutdown().await.unwrap();
    assert_eq!(read_all(&mut socket).await, b"ping");
}

#[tokio::test]
async fn thirty_streams_over_a_limit_of_three_wait_and_none_fails() {
    let dialer = Dialer::with(|o| o.max_streams_per_connector = Some(3)).await;
    let device = Device::start();
    dialer.tell(&[(device.id, &[device.addr])]);
    let wanted = target(&[device.id]);
    join_all((0..30).map(|_| exchange(&dialer, &wanted))).await;
    assert_eq!(device.connections(), 1);
}

#[tokio::test]
async fn thirty_streams_over_a_limit_in_all_wait_and_none_fails() {
    let dialer = Dialer::with(|o| o.max_streams = Some(2)).await;
    let (a, b) = (Device::start(), Device::start());
    dialer.tell(&[(a.id, &[a.addr]), (b.id, &[b.addr])]);
    let (to_a, to_b) = (target(&[a.id]), target(&[b.id]));
    join_all((0..30).map(|i| exchange(&dialer, if i % 2 == 0 { &to_a } else { &to_b }))).await;
}

#[tokio::test]
async fn a_connectors_own_limit_on_streams_makes_them_wait_not_fail() {
    let dialer = Dialer::start().await;
    let device = Device::with(DeviceConfig {
        max_streams: 3,
        ..Default::default()
    });
    dialer.tell(&[(device.id, &[device.addr])]);
    let wanted = target(&[device.id]);
    join_all((0..30).map(|_| exchange(&dialer, &wanted))).await;
}

#[tokio::test]
async fn a_stream_that_gets_no_place_by_its_deadline_is_told_so() {
    let dialer = Dialer::start().await;
    let device = Device::with(DeviceConfig {
        max_streams: 1,
        ..Default::default()
    });
    dialer.tell(&[(device.id, &[device.addr])]);
    let (held, _) = dialer.open(&target(&[device.id])).await.unwrap();
    let refusal = dialer.refused(&hasty(&[device.id], 200)).await;
    assert_eq!(refusal.class, ErrorClass::Timeout, "{}", refusal.text);
    drop(held);
    exchange(&dialer, &target(&[device.id])).await;
}

#[tokio::test]
async fn overloaded_is_the_answer_only_when_the_queue_itself_is_full() {
    let dialer = Dialer::with(|o| {
        o.max_streams_per_connector = Some(1);
        o.max_queue = Some(2);
    })
    .await;
    let device = Device::start();
    dialer.tell(&[(device.id, &[device.addr])]);
    let wanted = target(&[device.id]);
    let (held, _) = dialer.open(&wanted).await.unwrap();
    let mut waiting = Vec::new();
    for n in 1..=2 {
        waiting.push(dialer.ask(&wanted).await);
        soon("it waits", async {
            while dialer.status().await.queued != n {}
        })
        .await;
    }
    assert_eq!(dialer.refused(&wanted).await.class, ErrorClass::Overloaded);
    drop(held);
    for mut socket in waiting {
        let verdict = crate::support::verdict(&mut socket).await;
        assert!(matches!(verdict, adit_wire::Verdict::Connected(_)));
    }
}

#[tokio::test]
async fn a_client_that_leaves_while_it_waits_frees_its_place() {
    let gate = Arc::new(Semaphore::new(0));
    let device = Device::serving({
        let gate = gate.clone();
        service(move |mut send, mut recv| {
            let gate = gate.clone();
            async move {
                let early = request(&mut recv).await;
                assert!(early.is_empty());
                tokio::select! {
                    permit = gate.acquire() => permit.unwrap().forget(),
                    // The dialer gave up: so does the service's side.
                    _ = recv.received_reset() => return,
                }
                let answer = adit_wire::connect::encode_answer(Ok(()));
                let _ = send.write_all(&answer).await;
                let _ = send.stopped().await;
            }
        })
    });
    let dialer = Dialer::with(|o| o.max_streams_per_connector = Some(1)).await;
    dialer.tell(&[(device.id, &[device.addr])]);
    let wanted = target(&[device.id]);
    // While the connector is asked, and while it waits for a place.
    let first = dialer.ask(&wanted).await;
    until("the connector is asked", || device.streams() == 1).await;
    let second = dialer.ask(&wanted).await;
    drop(second);
    drop(first);
    until("the stream was given up", || device.streams() == 0).await;
    // The second one may have had the place for a moment.
    gate.add_permits(100);
    assert!(dialer.open(&wanted).await.is_ok(), "the place is free");
}

#[tokio::test]
async fn a_client_that_leaves_during_a_dial_costs_the_others_nothing() {
    let dialer = Dialer::start().await;
    let device = Device::start();
    // An address that says nothing keeps the dial going.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    dialer.tell(&[(device.id, &[silent.local_addr().unwrap()])]);
    let wanted = target(&[device.id]);
    let stays = dialer.ask(&wanted).await;
    let leaves = dialer.ask(&wanted).await;
    soon("both wait", async {
        while dialer.status().await.queued != 2 {}
    })
    .await;
    drop(leaves);
    soon("one waits", async {
        while dialer.status().await.queued != 1 {}
    })
    .await;
    dialer.tell(&[(device.id, &[device.addr])]);
    let mut stays = stays;
    let verdict = crate::support::verdict(&mut stays).await;
    assert!(matches!(verdict, adit_wire::Verdict::Connected(_)));
}

#[tokio::test]
async fn a_stalled_stream_does_not_stall_its_siblings() {
    let device = Device::serving(service(
        async |mut send: SendStream, mut recv: RecvStream| {
            let start = accept(&mut send, &mut recv, Ok(())).await;
            assert!(start.is_empty());
            let mut kind = [0];
            recv.read_exact(&mut kind).await.unwrap();
            match kind {
                // Floods a client that does not read.
                [b'f'] => while send.write_all(&[0; 65536]).await.is_ok() {},
                // Never reads what its client sends.
                [b'n'] => std::future::pending().await,
                _ => {
                    send.write_all(b"pong").await.unwrap();
                    send.finish().unwrap();
                    let _ = send.stopped().await;
                }
            }
        },
    ));
    let dialer = Dialer::start().await;
    dialer.tell(&[(device.id, &[device.addr])]);
    let wanted = target(&[device.id]);
    let mut stalled = Vec::new();
    for _ in 0..8 {
        let (mut flooded, _) = dialer.open(&wanted).await.unwrap();
        flooded.write_all(b"f").await.unwrap();
        let (mut unread, _) = dialer.open(&wanted).await.unwrap();
        unread.write_all(b"n").await.unwrap();
        // As much as the way takes.
        let much = vec![0; 1 << 16];
        while let Ok(written) =
            tokio::time::timeout(std::time::Duration::from_millis(200), unread.write(&much)).await
        {
            written.unwrap();
        }
        stalled.push((flooded, unread));
    }
    let (mut socket, _) = dialer.open(&wanted).await.unwrap();
    socket.write_all(b"p").await.unwrap();
    let mut pong = [0; 4];
    soon("a sibling's answer", socket.read_exact(&mut pong))
        .await
        .unwrap();
    drop(stalled);
    until("the stalled ones end with their clients", || {
        device.streams() <= 9
    })
    .await;
}
