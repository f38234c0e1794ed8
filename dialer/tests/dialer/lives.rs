//! Revoked targets, shutdown, the admin server.

use adit_tunnel::status::{PathKind, PeerState, Role, Status};
use adit_wire::{ErrorClass, Verdict};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{
    Device, Dialer, End, read_all, read_end, request, service, soon, target, until,
};

#[tokio::test]
async fn streams_of_a_target_that_is_gone_are_cut_and_the_others_are_not() {
    let dialer = Dialer::with(|o| o.drain_timeout = "200ms".parse().ok()).await;
    let device = Device::start();
    let (kept, gone) = (target(&[device.id]), {
        let mut other = target(&[device.id]);
        other.service.port += 1;
        other
    });
    dialer.tell(&[(device.id, &[device.addr])]);
    dialer.tell_targets(Some(vec![kept.clone(), gone.clone()]));
    let (mut stays, _) = dialer.open(&kept).await.unwrap();
    let (mut goes, _) = dialer.open(&gone).await.unwrap();
    dialer.tell_targets(Some(vec![kept.clone()]));
    assert_eq!(read_end(&mut goes).await.1, End::Abort);
    stays.write_all(b"hi").await.unwrap();
    let mut back = [0; 2];
    soon("an echo", stays.read_exact(&mut back)).await.unwrap();
    until("the device has seen the cut", || device.streams() == 1).await;
}

#[tokio::test]
async fn a_stream_that_waits_for_a_target_that_is_gone_is_denied() {
    let dialer = Dialer::with(|o| o.drain_timeout = "200ms".parse().ok()).await;
    let device = Device::serving(service(|send, mut recv| async move {
        request(&mut recv).await;
        let _open = send;
        std::future::pending().await
    }));
    let wanted = target(&[device.id]);
    dialer.tell(&[(device.id, &[device.addr])]);
    dialer.tell_targets(Some(vec![wanted.clone()]));
    let mut socket = dialer.ask(&wanted).await;
    until("it is asked", || device.streams() == 1).await;
    dialer.tell_targets(Some(vec![]));
    let Verdict::Refused(refusal) = crate::support::verdict(&mut socket).await else {
        panic!("connected");
    };
    assert_eq!(refusal.class, ErrorClass::Denied);
}

#[tokio::test]
async fn at_shutdown_nobody_new_is_taken_and_open_tunnels_may_end_by_themselves() {
    let (dialer, device) = (Dialer::start().await, Device::start());
    dialer.tell(&[(device.id, &[device.addr])]);
    let (mut socket, _) = dialer.open(&target(&[device.id])).await.unwrap();
    dialer.shutdown.cancel();
    until("the socket is gone", || !dialer.socket.exists()).await;
    assert_eq!(dialer.get("/readyz").await.unwrap().0, 503);
    socket.write_all(b"last words").await.unwrap();
    socket.shutdown().await.unwrap();
    assert_eq!(read_all(&mut socket).await, b"last words");
    drop(socket);
    dialer.stop().await;
    until("the connector knows", || device.streams() == 0).await;
}

#[tokio::test]
async fn after_the_grace_period_tunnels_are_cut() {
    let dialer = Dialer::with(|o| o.grace_period = "200ms".parse().ok()).await;
    let device = Device::start();
    dialer.tell(&[(device.id, &[device.addr])]);
    let (mut socket, _) = dialer.open(&target(&[device.id])).await.unwrap();
    dialer.shutdown.cancel();
    assert_eq!(read_end(&mut socket).await.1, End::Abort);
    dialer.stop().await;
}

#[tokio::test]
async fn the_status_has_a_row_for_each_connector() {
    let (dialer, device) = (Dialer::start().await, Device::start());
    let nobody = adit_tunnel::ids::to_wire(iroh::SecretKey::generate().public());
    dialer.tell(&[(device.id, &[device.addr])]);
    dialer.refused(&target(&[nobody])).await;
    let (mut socket, _) = dialer.open(&target(&[device.id])).await.unwrap();
    socket.write_all(b"hello").await.unwrap();
    let mut back = [0; 5];
    soon("an echo", socket.read_exact(&mut back)).await.unwrap();
    let received = |status: &Status| status.peers.iter().map(|p| p.bytes_received).sum::<u64>();
    soon("the bytes are counted", async {
        while received(&dialer.status().await) != 5 {}
    })
    .await;
    let status = dialer.status().await;
    assert_eq!(
        (status.role, status.ready, status.streams),
        (Role::Dialer, true, 1)
    );
    let row = |id: adit_wire::EndpointId| {
        let rows = status.peers.iter();
        rows.clone()
            .find(|p| p.endpoint_id == id.to_string())
            .unwrap()
    };
    let live = row(device.id);
    assert_eq!(live.state, PeerState::Connected);
    assert_eq!(live.path, Some(PathKind::Direct));
    assert_eq!(live.remote, Some(device.addr.to_string()));
    assert_eq!(live.name.as_deref(), Some("test"));
    assert_eq!((live.streams, live.streams_total), (1, 1));
    assert_eq!((live.bytes_sent, live.bytes_received), (5, 5));
    assert!(live.rtt_ms.is_some());
    let dead = row(nobody);
    assert!(dead.last_error.as_ref().unwrap().contains("offline"));
}

#[tokio::test]
async fn the_metrics_count_verdicts_and_bytes_without_naming_anybody() {
    let (dialer, device) = (Dialer::start().await, Device::start());
    dialer.tell(&[(device.id, &[device.addr])]);
    let (mut socket, _) = dialer.open(&target(&[device.id])).await.unwrap();
    socket.write_all(b"hello").await.unwrap();
    let mut back = [0; 5];
    soon("an echo", socket.read_exact(&mut back)).await.unwrap();
    let (code, text) = dialer.get("/metrics").await.unwrap();
    assert_eq!(code, 200);
    for line in [
        r#"adit_dialer_verdicts_total{outcome="ok"} 1"#,
        r#"adit_dialer_bytes_total{direction="sent"} 5"#,
        r#"adit_dialer_dials_total{outcome="ok"} 1"#,
        "adit_dialer_streams 1",
        "adit_dialer_links 1",
        "adit_dialer_verdict_seconds_count 1",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    assert!(!text.contains(&device.id.short()));
}
