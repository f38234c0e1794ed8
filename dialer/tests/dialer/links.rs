//! One connection to each connector; death, restart and failover.

use std::time::{Duration, Instant};

use adit_wire::ErrorClass;
use iroh::SecretKey;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{
    Device, DeviceConfig, Dialer, End, Names, accept, hasty, read_all, read_end, relay, request,
    service, soon, target, until,
};

/// Prints a time that a reader may want to know; never asserted.
fn report(what: &str, since: Instant) {
    println!("{what}: {} ms", since.elapsed().as_millis());
}

/// Asks until the answer is yes: what Envoy's retries do.
async fn reach(dialer: &Dialer, wanted: &adit_wire::Target) -> tokio::net::UnixStream {
    soon("the connector is reached", async {
        loop {
            match dialer.open(wanted).await {
                Ok((socket, _)) => return socket,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_peer_that_dies_silently_ends_all_its_sockets_as_aborts() {
    let (dialer, mut device) = (Dialer::start().await, Device::start());
    dialer.tell(&[(device.id, &[device.addr])]);
    let wanted = target(&[device.id]);
    let mut sockets = Vec::new();
    for _ in 0..5 {
        sockets.push(dialer.open(&wanted).await.unwrap().0);
    }
    // One of them is stuck both ways: its client writes and does not read.
    let much = vec![0; 1 << 16];
    while let Ok(written) =
        tokio::time::timeout(Duration::from_millis(200), sockets[0].write(&much)).await
    {
        written.unwrap();
    }
    let died = Instant::now();
    device.freeze();
    for socket in &mut sockets {
        assert_eq!(read_end(socket).await.1, End::Abort);
    }
    report("a dead peer was noticed after", died);
    soon("nothing is left", async {
        while dialer.status().await.streams != 0 {}
    })
    .await;
}

#[tokio::test]
async fn a_peer_that_goes_in_good_order_ends_its_sockets_at_once() {
    let (dialer, device) = (Dialer::start().await, Device::start());
    dialer.tell(&[(device.id, &[device.addr])]);
    let (mut socket, _) = dialer.open(&target(&[device.id])).await.unwrap();
    let closed = Instant::now();
    device.close().await;
    assert_eq!(read_end(&mut socket).await.1, End::Abort);
    report("a closing peer was noticed after", closed);
}

/// A device, and another one with its key that takes its place.
fn twins() -> (Device, impl Fn() -> Device) {
    let key = SecretKey::generate();
    let make = move || {
        Device::with(DeviceConfig {
            key: key.clone(),
            ..Default::default()
        })
    };
    (make(), make)
}

#[tokio::test]
async fn a_device_restarted_elsewhere_is_reached_when_the_state_file_says_so() {
    let dialer = Dialer::start().await;
    let (mut old, again) = twins();
    dialer.tell(&[(old.id, &[old.addr])]);
    let wanted = target(&[old.id]);
    let (mut cut, _) = dialer.open(&wanted).await.unwrap();
    old.freeze();
    let new = again();
    assert_ne!(old.addr, new.addr);
    let told = Instant::now();
    dialer.tell(&[(new.id, &[new.addr])]);
    let mut socket = reach(&dialer, &wanted).await;
    report("a restarted device was reached after", told);
    socket.write_all(b"hi").await.unwrap();
    let mut back = [0; 2];
    soon("an echo", socket.read_exact(&mut back)).await.unwrap();
    assert_eq!(read_end(&mut cut).await.1, End::Abort);
    assert_eq!(new.connections(), 1);
}

#[tokio::test]
async fn a_device_restarted_elsewhere_is_reached_when_dns_says_so() {
    let names = Names::start("iroh.test").await;
    let dialer = Dialer::with(|o| {
        o.dns_origin = Some("iroh.test".into());
        o.dns_resolver = vec![names.addr];
    })
    .await;
    let (mut old, again) = twins();
    names.publish(old.id, &[&format!("addr={}", old.addr)]);
    let wanted = target(&[old.id]);
    let (mut cut, _) = dialer.open(&wanted).await.unwrap();
    old.freeze();
    let new = again();
    let told = Instant::now();
    names.publish(new.id, &[&format!("addr={}", new.addr)]);
    reach(&dialer, &wanted).await;
    report("a restarted device was reached through DNS after", told);
    assert_eq!(read_end(&mut cut).await.1, End::Abort);
}

#[tokio::test]
async fn records_that_are_unknown_broken_or_dead_do_not_hide_the_good_one() {
    let names = Names::start("iroh.test").await;
    let dialer = Dialer::with(|o| {
        o.dns_origin = Some("iroh.test".into());
        o.dns_resolver = vec![names.addr];
    })
    .await;
    let device = Device::start();
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    names.publish(
        device.id,
        &[
            "ver=1",
            "nonsense",
            "",
            "addr=not-an-address",
            "user-data=a=b=c",
            &format!("addr={}", silent.local_addr().unwrap()),
            &format!("addr={}", device.addr),
        ],
    );
    assert!(dialer.open(&target(&[device.id])).await.is_ok());
}

#[tokio::test]
async fn a_name_that_appears_later_is_found_and_one_question_serves_many_streams() {
    let names = Names::start("iroh.test").await;
    let dialer = Dialer::with(|o| {
        o.dns_origin = Some("iroh.test".into());
        o.dns_resolver = vec![names.addr];
    })
    .await;
    let device = Device::start();
    let wanted = target(&[device.id]);
    let ask = (0..30).map(|_| dialer.refused(&wanted));
    let refusals = futures_util::future::join_all(ask).await;
    assert!(refusals.iter().all(|r| r.class == ErrorClass::Offline));
    assert_eq!(names.queries(), 1);
    names.publish(device.id, &[&format!("addr={}", device.addr)]);
    reach(&dialer, &wanted).await;
}

#[tokio::test]
async fn a_dial_that_is_under_way_follows_the_device() {
    let (dialer, device) = (Dialer::start().await, Device::start());
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    dialer.tell(&[(device.id, &[silent.local_addr().unwrap()])]);
    let mut socket = dialer.ask(&target(&[device.id])).await;
    soon("the dial", async {
        while dialer.status().await.queued != 1 {}
    })
    .await;
    let told = Instant::now();
    dialer.tell(&[(device.id, &[device.addr])]);
    let verdict = crate::support::verdict(&mut socket).await;
    assert!(matches!(verdict, adit_wire::Verdict::Connected(_)));
    report("a dial to a dead address reached the new one after", told);
}

#[tokio::test]
async fn a_stale_address_where_another_key_answers_does_not_end_the_dial() {
    let dialer = Dialer::start().await;
    for _ in 0..5 {
        let (device, stranger) = (Device::start(), Device::start());
        dialer.tell(&[(device.id, &[stranger.addr, device.addr])]);
        let (_, connected) = dialer.open(&target(&[device.id])).await.unwrap();
        assert_eq!(connected.connector, device.id);
    }
}

#[tokio::test]
async fn a_lost_link_is_dialled_again_within_the_same_stream() {
    let (dialer, device) = (Dialer::start().await, Device::start());
    dialer.tell(&[(device.id, &[device.addr])]);
    let wanted = target(&[device.id]);
    // A connector that closes the connection instead of answering, once.
    let key = SecretKey::generate();
    let first = std::sync::atomic::AtomicBool::new(true);
    let first = std::sync::Arc::new(first);
    let fickle = Device::with(DeviceConfig {
        key,
        close_once: Some(first.clone()),
        ..Default::default()
    });
    dialer.tell(&[(device.id, &[device.addr]), (fickle.id, &[fickle.addr])]);
    let (_, connected) = dialer.open(&target(&[fickle.id])).await.unwrap();
    assert_eq!(connected.connector, fickle.id);
    assert_eq!(fickle.connections(), 2);
    assert!(dialer.open(&wanted).await.is_ok());
}

#[tokio::test]
async fn the_next_connector_serves_when_the_first_cannot() {
    let dialer = Dialer::start().await;
    let good = Device::start();
    let refusing = Device::serving(service(|mut send, mut recv| async move {
        accept(&mut send, &mut recv, Err(ErrorClass::Refused)).await;
        let _ = send.stopped().await;
    }));
    let nobody = adit_tunnel::ids::to_wire(SecretKey::generate().public());
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    dialer.tell(&[
        (good.id, &[good.addr]),
        (refusing.id, &[refusing.addr]),
        (nobody, &[silent.local_addr().unwrap()]),
    ]);
    for order in [
        [nobody, refusing.id, good.id],
        [refusing.id, nobody, good.id],
        [refusing.id, good.id, nobody],
    ] {
        let (_, connected) = dialer.open(&target(&order)).await.unwrap();
        assert_eq!(connected.connector, good.id);
    }
    let refusal = dialer.refused(&target(&[nobody, refusing.id])).await;
    assert_eq!(refusal.class, ErrorClass::Refused, "not all are offline");
}

#[tokio::test]
async fn a_connector_that_hangs_costs_its_share_of_the_deadline_and_no_more() {
    let dialer = Dialer::start().await;
    let good = Device::start();
    let hanging = Device::serving(service(|send, mut recv| async move {
        request(&mut recv).await;
        let _open = send;
        std::future::pending().await
    }));
    dialer.tell(&[(good.id, &[good.addr]), (hanging.id, &[hanging.addr])]);
    let wanted = hasty(&[hanging.id, good.id], 4000);
    let (_, connected) = dialer.open(&wanted).await.unwrap();
    assert_eq!(connected.connector, good.id);
}

#[tokio::test]
async fn a_live_connector_is_taken_before_a_preferred_one_that_is_not() {
    let dialer = Dialer::start().await;
    let (first, second) = (Device::start(), Device::start());
    dialer.tell(&[(first.id, &[first.addr]), (second.id, &[second.addr])]);
    dialer.open(&target(&[second.id])).await.unwrap();
    let both = target(&[first.id, second.id]);
    assert_eq!(dialer.open(&both).await.unwrap().1.connector, second.id);
    dialer.open(&target(&[first.id])).await.unwrap();
    assert_eq!(dialer.open(&both).await.unwrap().1.connector, first.id);
}

#[tokio::test]
async fn bytes_move_when_the_winner_lives_on_another_shard() {
    let dialer = Dialer::with(|o| o.workers = Some(4)).await;
    let devices: Vec<Device> = (0..6).map(|_| Device::start()).collect();
    let known: Vec<_> = devices.iter().map(|d| (d.id, [d.addr])).collect();
    let known: Vec<_> = known.iter().map(|(id, a)| (*id, &a[..])).collect();
    dialer.tell(&known);
    let nobody = adit_tunnel::ids::to_wire(SecretKey::generate().public());
    for device in &devices {
        let (mut socket, _) = dialer.open(&target(&[nobody, device.id])).await.unwrap();
        socket.write_all(b"across").await.unwrap();
        socket.shutdown().await.unwrap();
        assert_eq!(read_all(&mut socket).await, b"across");
    }
}

#[tokio::test]
async fn a_connector_without_streams_is_disconnected_after_a_while() {
    let dialer = Dialer::with(|o| o.idle_close = "300ms".parse().ok()).await;
    let device = Device::start();
    dialer.tell(&[(device.id, &[device.addr])]);
    let (mut socket, _) = dialer.open(&target(&[device.id])).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1200)).await;
    socket.write_all(b"still here").await.unwrap();
    socket.shutdown().await.unwrap();
    assert_eq!(read_all(&mut socket).await, b"still here");
    soon("the link goes", async {
        while dialer.status().await.peers[0].path.is_some() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert!(dialer.open(&target(&[device.id])).await.is_ok());
    until("it was dialled again", || device.connections() == 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_device_without_an_address_is_reached_through_its_relay() {
    let (server, url) = relay("127.0.0.1:0".parse().unwrap()).await;
    let dialer = Dialer::with(|o| o.endpoint.relay = vec![url.to_string()]).await;
    let device = Device::with(DeviceConfig {
        relay: Some(url.clone()),
        ..Default::default()
    });
    dialer.tell_relay(device.id, &url);
    let (mut socket, connected) = dialer.open(&target(&[device.id])).await.unwrap();
    assert_eq!(connected.path, adit_wire::Path::Relay);
    socket.write_all(b"hi").await.unwrap();
    let mut back = [0; 2];
    soon("an echo", socket.read_exact(&mut back)).await.unwrap();
    assert!(dialer.status().await.relay.unwrap().connected);

    // The relay dies: the tunnel ends as an abort, and the dialer stays ready.
    let addr = server.http_addr().unwrap();
    server.shutdown().await.unwrap();
    assert_eq!(read_end(&mut socket).await.1, End::Abort);
    assert_eq!(dialer.get("/readyz").await.unwrap().0, 200);
    // It comes back: so do the tunnels.
    let (_server, _) = relay(addr).await;
    let back = Instant::now();
    reach(&dialer, &target(&[device.id])).await;
    report("after a relay's restart the device was reached after", back);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_dialer_without_a_relay_of_its_own_reaches_a_device_at_its_relay() {
    let (_server, url) = relay("127.0.0.1:0".parse().unwrap()).await;
    let dialer = Dialer::start().await;
    let device = Device::with(DeviceConfig {
        relay: Some(url.clone()),
        ..Default::default()
    });
    dialer.tell_relay(device.id, &url);
    let (_, connected) = dialer.open(&target(&[device.id])).await.unwrap();
    assert_eq!(connected.path, adit_wire::Path::Relay);
}

#[tokio::test]
async fn a_new_address_of_a_device_that_is_alive_cuts_nothing() {
    let (dialer, device) = (Dialer::start().await, Device::start());
    dialer.tell(&[(device.id, &[device.addr])]);
    let (mut socket, _) = dialer.open(&target(&[device.id])).await.unwrap();
    let elsewhere = "127.0.0.1:9".parse().unwrap();
    dialer.tell(&[(device.id, &[elsewhere])]);
    // Longer than a dead one would be taken for alive.
    tokio::time::sleep(Duration::from_millis(4000)).await;
    socket.write_all(b"here").await.unwrap();
    socket.shutdown().await.unwrap();
    assert_eq!(read_all(&mut socket).await, b"here");
    assert_eq!(device.connections(), 1);
}

#[tokio::test]
async fn an_old_answer_of_dns_that_fails_at_once_is_asked_for_again() {
    let names = Names::start("iroh.test").await;
    let dialer = Dialer::with(|o| {
        o.dns_origin = Some("iroh.test".into());
        o.dns_resolver = vec![names.addr];
    })
    .await;
    let (device, stranger) = (Device::start(), Device::start());
    let wanted = target(&[device.id]);
    // The records' time to live is far longer than this test is patient.
    names.publish(device.id, &[&format!("addr={}", stranger.addr)]);
    assert_eq!(dialer.refused(&wanted).await.class, ErrorClass::Offline);
    names.publish(device.id, &[&format!("addr={}", device.addr)]);
    let reached = tokio::time::timeout(Duration::from_secs(15), reach(&dialer, &wanted)).await;
    assert!(
        reached.is_ok(),
        "the old answer is still believed: {:?}",
        dialer.status().await
    );
}
