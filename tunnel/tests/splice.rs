//! The splice over real QUIC and real sockets, each way and with each kind of
//! end:
//!
//! | end | Unix socket | TCP socket |
//! |---|---|---|
//! | half-close, then the other | yes | yes |
//! | near side aborts | close without shutdown | RST |
//! | far side resets | POLLHUP at the peer | RST at the peer |
//! | connection lost | POLLHUP at the peer | |

#![allow(clippy::unwrap_used)]

use std::{sync::Arc, time::Duration};

use adit_tunnel::{
    Local,
    meter::Meter,
    splice::{SpliceError, splice},
    stream::{TunnelRecv, TunnelSend},
};
use bytes::Bytes;
use iroh::{
    Endpoint, EndpointAddr,
    endpoint::{Connection, ReadError, RecvStream, SendStream, presets},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixStream},
    task::JoinHandle,
    time::timeout,
};

const ALPN: &[u8] = b"splice-test";

/// A spliced tunnel: `near` is the peer of the spliced socket, `far` the other
/// end of the QUIC stream.
struct Rig<S> {
    near: S,
    far_send: SendStream,
    far_recv: RecvStream,
    far_connection: Connection,
    done: JoinHandle<Result<(), SpliceError>>,
    meter: Arc<Meter>,
    _endpoints: [Endpoint; 2],
}

async fn endpoint() -> Endpoint {
    Endpoint::builder(presets::Minimal)
        .alpns(vec![ALPN.to_vec()])
        .clear_ip_transports()
        .bind_addr("127.0.0.1:0")
        .unwrap()
        .bind()
        .await
        .unwrap()
}

async fn rig<L: Local, S>(local: L, near: S) -> Rig<S> {
    let (client, server) = (endpoint().await, endpoint().await);
    let addr = EndpointAddr::new(server.id()).with_ip_addr(server.bound_sockets()[0]);
    let accept = tokio::spawn({
        let server = server.clone();
        async move { server.accept().await.unwrap().await.unwrap() }
    });
    let connection = client.connect(addr, ALPN).await.unwrap();
    let far_connection = accept.await.unwrap();
    let (mut send, recv) = connection.open_bi().await.unwrap();
    send.write_all(b"!").await.unwrap();
    let (far_send, mut far_recv) = far_connection.accept_bi().await.unwrap();
    far_recv.read_exact(&mut [0]).await.unwrap();
    let meter = Arc::new(Meter::default());
    let done = tokio::spawn({
        let meter = meter.clone();
        async move {
            let _held = connection;
            splice(
                local,
                TunnelSend::new(send),
                TunnelRecv::new(recv),
                Bytes::from_static(b"early "),
                &meter,
            )
            .await
        }
    });
    Rig {
        near,
        far_send,
        far_recv,
        far_connection,
        done,
        meter,
        _endpoints: [client, server],
    }
}

async fn unix_rig() -> Rig<UnixStream> {
    let (local, near) = UnixStream::pair().unwrap();
    rig(local, near).await
}

async fn tcp_rig() -> Rig<TcpStream> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let local = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let (near, _) = listener.accept().await.unwrap();
    rig(local, near).await
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), future)
        .await
        .expect("within 20 s")
}

/// 8 MiB that differ everywhere.
fn bulk() -> Vec<u8> {
    (0..2 * 1024 * 1024u32)
        .flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect()
}

async fn clean_ends_both_ways<S: AsyncReadExt + AsyncWriteExt + Unpin + Send + 'static>(
    mut rig: Rig<S>,
) {
    let sent = bulk();
    let expected = sent.clone();
    let far = tokio::spawn(async move {
        let up = rig.far_recv.read_to_end(64 * 1024 * 1024).await.unwrap();
        // The answer begins only after the request's half-close.
        rig.far_send.write_all(&up).await.unwrap();
        rig.far_send.finish().unwrap();
        rig.far_send.stopped().await.unwrap();
        up
    });
    rig.near.write_all(&sent).await.unwrap();
    rig.near.shutdown().await.unwrap();
    let mut down = Vec::new();
    soon(rig.near.read_to_end(&mut down)).await.unwrap();
    assert_eq!(&down[..6], b"early ");
    assert!(down[6..] == expected, "downstream bytes differ");
    assert!(
        soon(far).await.unwrap() == expected,
        "upstream bytes differ"
    );
    drop(rig.near);
    soon(rig.done).await.unwrap().unwrap();
    assert_eq!(rig.meter.sent(), expected.len() as u64);
    assert_eq!(rig.meter.received(), expected.len() as u64 + 6);
}

#[tokio::test]
async fn a_half_close_keeps_the_other_way_open_on_a_unix_socket() {
    clean_ends_both_ways(unix_rig().await).await;
}

#[tokio::test]
async fn a_half_close_keeps_the_other_way_open_on_a_tcp_socket() {
    clean_ends_both_ways(tcp_rig().await).await;
}

#[tokio::test]
async fn the_far_side_may_end_first() {
    let mut rig = unix_rig().await;
    rig.far_send.write_all(b"banner").await.unwrap();
    rig.far_send.finish().unwrap();
    let mut down = Vec::new();
    soon(rig.near.read_to_end(&mut down)).await.unwrap();
    assert_eq!(down, b"early banner");
    assert!(!rig.near.hung_up(), "a clean end keeps the descriptor open");
    rig.near.write_all(b"late").await.unwrap();
    drop(rig.near);
    assert_eq!(soon(rig.far_recv.read_to_end(16)).await.unwrap(), b"late");
    soon(rig.done).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_unix_socket_closed_without_shutdown_resets_the_stream() {
    let mut rig = unix_rig().await;
    rig.near.read_exact(&mut [0; 6]).await.unwrap();
    rig.near.write_all(b"half a request").await.unwrap();
    drop(rig.near);
    let end = soon(rig.far_recv.read_to_end(1024)).await;
    assert!(
        end.is_err(),
        "the far side must not see a clean end: {end:?}"
    );
    assert!(matches!(
        soon(rig.done).await.unwrap(),
        Err(SpliceError::LocalAborted)
    ));
}

#[tokio::test]
async fn a_tcp_reset_resets_the_stream() {
    let mut rig = tcp_rig().await;
    rig.near.read_exact(&mut [0; 6]).await.unwrap();
    rig.near.abort();
    let end = soon(rig.far_recv.read_to_end(1024)).await;
    assert!(end.is_err(), "{end:?}");
    assert!(soon(rig.done).await.unwrap().is_err());
}

#[tokio::test]
async fn a_reset_stream_hangs_up_the_unix_socket() {
    let mut rig = unix_rig().await;
    rig.far_send.reset(7u32.into()).unwrap();
    let mut down = Vec::new();
    soon(rig.near.read_to_end(&mut down)).await.unwrap();
    assert!(rig.near.hung_up(), "an abort is a close without shutdown");
    assert!(matches!(
        soon(rig.done).await.unwrap(),
        Err(SpliceError::Receive(ReadError::Reset(_)))
    ));
}

#[tokio::test]
async fn a_reset_stream_resets_the_tcp_socket() {
    let mut rig = tcp_rig().await;
    rig.far_send.reset(7u32.into()).unwrap();
    let error = soon(rig.near.read_to_end(&mut Vec::new()))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert!(soon(rig.done).await.unwrap().is_err());
}

#[tokio::test]
async fn a_lost_connection_hangs_up_even_after_the_far_side_had_ended() {
    let mut rig = unix_rig().await;
    rig.far_send.finish().unwrap();
    soon(rig.near.read_to_end(&mut Vec::new())).await.unwrap();
    assert!(!rig.near.hung_up());
    rig.far_connection.close(0u32.into(), b"");
    assert!(matches!(
        soon(rig.done).await.unwrap(),
        Err(SpliceError::Stopped)
    ));
    assert!(rig.near.hung_up());
}

#[tokio::test]
async fn an_abort_is_noticed_while_the_far_side_does_not_read() {
    let mut rig = unix_rig().await;
    // Fill the stream's window, the splice's buffer and the socket's.
    let block = vec![0; 256 * 1024];
    while timeout(Duration::from_millis(500), rig.near.write_all(&block))
        .await
        .is_ok()
    {}
    drop(rig.near);
    assert!(matches!(
        soon(rig.done).await.unwrap(),
        Err(SpliceError::LocalAborted)
    ));
    let end = soon(rig.far_recv.read_to_end(64 * 1024 * 1024)).await;
    assert!(end.is_err(), "the far side must not see a clean end");
}
