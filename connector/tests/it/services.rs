//! Services that are Unix sockets, absent, silent or full.

use adit_connector::{Options, Resolver};
use adit_wire::ErrorClass;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, UnixListener},
};

use crate::support::*;

fn quick(options: &mut Options) {
    options.connect_timeout = "300ms".parse().ok();
}

#[tokio::test]
async fn a_unix_socket_is_a_service() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let rig = rig(&[&format!("app.internal:80=unix:{}", path.display())]).await;
    let dialer = rig.connect().await;
    let mut tunnel = dialer.tunnel("app.internal:80").await.unwrap();
    let (mut service, _) = within(listener.accept()).await.unwrap();
    tunnel.send.write_all(b"ping").await.unwrap();
    tunnel.send.finish().unwrap();
    let mut asked = Vec::new();
    within(service.read_to_end(&mut asked)).await.unwrap();
    assert_eq!(asked, b"ping");
    service.write_all(b"pong").await.unwrap();
    service.shutdown().await.unwrap();
    assert_eq!(tunnel.rest().await, b"pong");
}

#[tokio::test]
async fn an_abstract_name_is_a_service() {
    use std::os::linux::net::SocketAddrExt as _;
    let name = format!("adit-connector-test-{}", std::process::id());
    let addr = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let listener = std::os::unix::net::UnixListener::bind_addr(&addr).unwrap();
    listener.set_nonblocking(true).unwrap();
    let listener = UnixListener::from_std(listener).unwrap();
    let rig = rig(&[&format!("app.internal:80=unix:@{name}")]).await;
    let dialer = rig.connect().await;
    assert!(dialer.tunnel("app.internal:80").await.is_ok());
    within(listener.accept()).await.unwrap();
}

#[tokio::test]
async fn a_unix_services_close_is_its_end_even_while_the_dialer_does_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let rig = rig(&[&format!("app.internal:80=unix:{}", path.display())]).await;
    let dialer = rig.connect().await;
    let mut tunnel = dialer.tunnel("app.internal:80").await.unwrap();
    let (mut service, _) = within(listener.accept()).await.unwrap();
    // More than a stream's window: the last of it is in the socket when the
    // service is gone, and stays there for a while.
    let answer = vec![7; 1_400_000];
    within(service.write_all(&answer)).await.unwrap();
    drop(service);
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    tunnel.send.finish().unwrap();
    assert!(tunnel.rest().await == answer);
}

#[tokio::test]
async fn a_unix_service_that_leaves_bytes_unread_is_a_cut_tunnel() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let rig = rig(&[&format!("app.internal:80=unix:{}", path.display())]).await;
    let dialer = rig.connect().await;
    let mut tunnel = dialer.tunnel("app.internal:80").await.unwrap();
    let (service, _) = within(listener.accept()).await.unwrap();
    tunnel.send.write_all(b"unread").await.unwrap();
    rig.until(|status| status.peers[0].bytes_received == 6)
        .await;
    drop(service);
    assert!(tunnel.is_cut().await);
}

#[tokio::test]
async fn what_is_not_there_is_refused() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = closed.local_addr().unwrap().to_string();
    drop(closed);
    let missing = Resolver::new(|_, _| async { Err(std::io::Error::other("no such name")) });
    let rig = rig_with(
        &[
            &addr,
            "gone.internal:80",
            "app.internal:80=unix:/nonexistent/app.sock",
        ],
        quick,
        |config| config.resolver = missing,
    )
    .await;
    let dialer = rig.connect().await;
    for service in [&addr, "gone.internal:80", "app.internal:80"] {
        let answer = dialer.tunnel(service).await.err();
        assert_eq!(answer, Some(ErrorClass::Refused), "{service}");
    }
    rig.until_metric("adit_connector_streams_ended_total{result=\"refused\"} 3")
        .await;
}

#[tokio::test]
async fn a_name_without_an_address_is_refused() {
    let empty = Resolver::new(|_, _| async { Ok(Vec::new()) });
    let rig = rig_with(&["gone.internal:80"], quick, |c| c.resolver = empty).await;
    let answer = rig.connect().await.tunnel("gone.internal:80").await.err();
    assert_eq!(answer, Some(ErrorClass::Refused));
}

#[tokio::test]
async fn a_lookup_that_hangs_is_a_timeout() {
    let silent = Resolver::new(|_, _| std::future::pending());
    let rig = rig_with(&["slow.internal:80"], quick, |c| c.resolver = silent).await;
    let answer = rig.connect().await.tunnel("slow.internal:80").await.err();
    assert_eq!(answer, Some(ErrorClass::Timeout));
}

/// A listener whose backlog is full answers nothing at all: Linux drops the
/// SYN. Loopback's way to have a host that is silent.
#[tokio::test]
async fn a_service_that_does_not_answer_is_a_timeout() {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
    socket.bind(&any.into()).unwrap();
    socket.listen(0).unwrap();
    let addr = socket.local_addr().unwrap().as_socket().unwrap();
    let mut filling = Vec::new();
    for _ in 0..8 {
        filling.push(tokio::spawn(tokio::net::TcpStream::connect(addr)));
    }
    let rig = rig_with(&[&addr.to_string()], quick, |_| {}).await;
    let dialer = rig.connect().await;
    let mut answers = Vec::new();
    // The first of ours may still find the last place of the backlog.
    for _ in 0..4 {
        answers.push(dialer.tunnel(&addr.to_string()).await.err());
    }
    assert_eq!(answers.last(), Some(&Some(ErrorClass::Timeout)));
    for task in filling {
        task.abort();
    }
}

#[tokio::test]
async fn a_unix_socket_with_a_full_backlog_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.sock");
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    socket
        .bind(&socket2::SockAddr::unix(&path).unwrap())
        .unwrap();
    socket.listen(0).unwrap();
    socket.set_nonblocking(true).unwrap();
    let _fills = std::os::unix::net::UnixStream::connect(&path).unwrap();
    let rig = rig(&[&format!("app.internal:80=unix:{}", path.display())]).await;
    let dialer = rig.connect().await;
    let (tunnel, _accepted) = tokio::join!(dialer.tunnel("app.internal:80"), async {
        rig.until(|status| status.streams == 1).await;
        let listener: std::os::unix::net::UnixListener = socket.into();
        let listener = UnixListener::from_std(listener).unwrap();
        let first = within(listener.accept()).await.unwrap();
        (first, within(listener.accept()).await.unwrap())
    });
    assert!(tunnel.is_ok());
}

#[tokio::test]
async fn a_dialer_that_gives_up_ends_the_attempt() {
    let silent = Resolver::new(|_, _| std::future::pending());
    let slow = |options: &mut Options| options.connect_timeout = "1h".parse().ok();
    let rig = rig_with(&["slow.internal:80"], slow, |c| c.resolver = silent).await;
    let dialer = rig.connect().await;
    let head = adit_wire::connect::encode_request(&"slow.internal:80".parse().unwrap());
    let (mut send, mut recv) = within(dialer.connection.open_bi()).await.unwrap();
    send.write_all(&head).await.unwrap();
    rig.until(|status| status.streams == 1).await;
    send.reset(1u32.into()).unwrap();
    recv.stop(1u32.into()).unwrap();
    rig.until(|status| status.streams == 0).await;
    rig.until_metric("adit_connector_streams_ended_total{result=\"left\"} 1")
        .await;
}
