//! What may be reached, by which spelling.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use adit_connector::Resolver;
use adit_wire::ErrorClass;

use crate::support::*;

/// A resolver that knows every name, at `addrs`, and counts its calls.
fn all_names_at(addrs: Vec<SocketAddr>) -> (Resolver, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let resolver = Resolver::new(move |_, _| {
        counted.fetch_add(1, Ordering::SeqCst);
        let addrs = addrs.clone();
        async move { Ok(addrs) }
    });
    (resolver, calls)
}

#[tokio::test]
async fn what_is_not_advertised_is_denied_in_any_spelling() {
    let addr = echo().await;
    let port = addr.port();
    let rig = rig(&[&format!("127.0.0.2:{port}"), "db.internal:5432"]).await;
    let dialer = rig.connect().await;
    for host in [
        "127.0.0.1",
        "[::ffff:127.0.0.1]",
        "[::1]",
        "localhost",
        "LOCALHOST.",
        "127.0.0.1.nip.example",
        "0.0.0.0",
    ] {
        let answer = dialer.tunnel(&format!("{host}:{port}")).await.err();
        assert_eq!(answer, Some(ErrorClass::Denied), "{host}");
    }
    // These no parser of ours lets through, so they are sent as they are.
    for host in ["0177.0.0.1", "2130706433", "0x7f.0.0.1", "127.1"] {
        let head = format!("CONNECT {host}:{port} HTTP/1.1\r\n\r\n");
        let answer = dialer.raw(head.as_bytes()).await.err();
        assert_eq!(answer, Some(ErrorClass::Misconfigured), "{host}");
    }
}

#[tokio::test]
async fn the_advertised_address_is_reached_in_any_spelling() {
    let addr = echo().await;
    let rig = rig(&[&addr.to_string(), &format!("localhost:{}", addr.port())]).await;
    let dialer = rig.connect().await;
    for host in ["127.0.0.1", "[::ffff:127.0.0.1]", "LocalHost", "localhost."] {
        let head = format!("CONNECT {host}:{} HTTP/1.1\r\n\r\n", addr.port());
        assert!(dialer.raw(head.as_bytes()).await.is_ok(), "{host}");
    }
}

#[tokio::test]
async fn a_host_header_decides_nothing() {
    let addr = echo().await;
    let rig = rig(&[&addr.to_string()]).await;
    let dialer = rig.connect().await;
    let head = format!("CONNECT 127.0.0.1:1 HTTP/1.1\r\nHost: {addr}\r\n\r\n");
    assert_eq!(
        dialer.raw(head.as_bytes()).await.err(),
        Some(ErrorClass::Denied)
    );
    let head = format!("CONNECT {addr} HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n");
    assert!(dialer.raw(head.as_bytes()).await.is_ok());
}

#[tokio::test]
async fn a_name_is_resolved_once_and_connected_to_where_it_was() {
    let addr = echo().await;
    let elsewhere: SocketAddr = "127.0.0.1:1".parse().unwrap();
    // A rebinding name: one address at the first look, another at the next.
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let resolver = Resolver::new(move |_, _| {
        let first = counted.fetch_add(1, Ordering::SeqCst) == 0;
        async move { Ok(vec![if first { addr } else { elsewhere }]) }
    });
    let rig = rig_with(&["app.internal:80"], |_| {}, |c| c.resolver = resolver).await;
    let dialer = rig.connect().await;
    let mut tunnel = dialer.tunnel("app.internal:80").await.unwrap();
    tunnel.send.write_all(b"x").await.unwrap();
    assert_eq!(tunnel.next(1).await, b"x");
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_name_under_a_wildcard_does_not_lead_to_this_machine() {
    let addr = echo().await;
    for target in ["*.corp.example:80", "*:80"] {
        let (resolver, calls) = all_names_at(vec![
            addr,
            SocketAddr::from(([169, 254, 169, 254], 80)),
            "[::ffff:127.0.0.1]:80".parse().unwrap(),
        ]);
        let rig = rig_with(&[target], |_| {}, |c| c.resolver = resolver).await;
        let dialer = rig.connect().await;
        let answer = dialer.tunnel("evil.corp.example:80").await.err();
        assert_eq!(answer, Some(ErrorClass::Denied));
        assert_eq!(calls.load(Ordering::SeqCst), 1);
    }
    let rig = rig(&[&format!("*:{}", addr.port())]).await;
    let dialer = rig.connect().await;
    let answer = dialer.tunnel(&addr.to_string()).await.err();
    assert_eq!(answer, Some(ErrorClass::Denied), "a literal address");
}

#[tokio::test]
async fn a_wildcard_may_lead_to_an_address_that_is_listed_itself() {
    let addr = echo().await;
    let (resolver, _) = all_names_at(vec![addr]);
    let wildcard = format!("*.corp.example:{}", addr.port());
    let targets = [wildcard.as_str(), &addr.to_string()];
    let rig = rig_with(&targets, |_| {}, |c| c.resolver = resolver).await;
    let dialer = rig.connect().await;
    let name = format!("app.corp.example:{}", addr.port());
    assert!(dialer.tunnel(&name).await.is_ok());
}

#[tokio::test]
async fn the_next_address_is_tried_when_one_refuses() {
    let addr = echo().await;
    let closed: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let (resolver, _) = all_names_at(vec![closed, "[::1]:1".parse().unwrap(), addr]);
    let rig = rig_with(&["app.internal:80"], |_| {}, |c| c.resolver = resolver).await;
    let dialer = rig.connect().await;
    assert!(dialer.tunnel("app.internal:80").await.is_ok());
}

#[tokio::test]
async fn a_target_may_be_elsewhere() {
    let addr = echo().await;
    let rig = rig(&[&format!("web.internal:80={addr}")]).await;
    let dialer = rig.connect().await;
    assert!(dialer.tunnel("web.internal:80").await.is_ok());
    let direct = dialer.tunnel(&addr.to_string()).await.err();
    assert_eq!(direct, Some(ErrorClass::Denied));
}
