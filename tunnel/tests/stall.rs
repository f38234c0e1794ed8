//! Sockets that take no bytes, many of them on one connection.

#![allow(clippy::unwrap_used)]

use std::{net::SocketAddr, sync::Arc, time::Duration};

use adit_tunnel::{
    endpoint::EndpointConfig,
    meter::Meter,
    splice::{SpliceError, splice},
    stream::{TunnelRecv, TunnelSend},
};
use bytes::Bytes;
use iroh::{Endpoint, EndpointAddr, RelayMap, SecretKey, tls::CaTlsConfig};
use tokio::{io::AsyncReadExt, net::UnixStream, task::JoinSet, time::timeout};

const ALPN: &[u8] = b"stall-test";
/// As many as may be stalled (`MOST` in `stall.rs`).
const ALLOWED: usize = 128;
const TOO_MANY: usize = 4;
/// More than a Unix socket holds, less than a stream's window.
const PIECE: usize = 600_000;

async fn endpoint() -> Endpoint {
    let config = EndpointConfig {
        secret_key: SecretKey::generate(),
        bind: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
        relays: RelayMap::empty(),
        relay_ca: CaTlsConfig::default(),
        relay_watchdog: Duration::from_secs(60),
        max_idle: Duration::from_secs(30),
        keep_alive: Duration::from_secs(5),
        port_mapping: false,
        max_streams: 1000,
    };
    config.bind(&[ALPN]).await.unwrap()
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(30), future)
        .await
        .expect("within 30 s")
}

#[tokio::test]
async fn of_too_many_stalled_sockets_the_rest_is_cut_and_others_go_on() {
    let (client, server) = (endpoint().await, endpoint().await);
    let addr = EndpointAddr::new(server.id()).with_ip_addr(server.bound_sockets()[0]);
    // Each stream is sent one piece, and then its end.
    let serving = tokio::spawn(async move {
        let connection = server.accept().await.unwrap().await.unwrap();
        let mut sending = JoinSet::new();
        while let Ok((mut send, mut recv)) = connection.accept_bi().await {
            sending.spawn(async move {
                recv.read_exact(&mut [0]).await.ok()?;
                send.write_all(&vec![7; PIECE]).await.ok()?;
                send.finish().ok()?;
                recv.read_to_end(0).await.ok()
            });
        }
    });
    let connection = client.connect(addr, ALPN).await.unwrap();
    let meter = Arc::new(Meter::default());
    let (mut splices, mut near) = (JoinSet::new(), Vec::new());
    let open = async |splices: &mut JoinSet<_>| {
        let (local, near) = UnixStream::pair().unwrap();
        let (mut send, recv) = connection.open_bi().await.unwrap();
        send.write_all(b"!").await.unwrap();
        let meter = meter.clone();
        splices.spawn(async move {
            let (send, recv) = (TunnelSend::new(send), TunnelRecv::new(recv));
            splice(local, send, recv, Bytes::new(), &meter).await
        });
        near
    };
    for _ in 0..ALLOWED + TOO_MANY {
        near.push(open(&mut splices).await);
    }
    for _ in 0..TOO_MANY {
        let end = soon(splices.join_next()).await.unwrap().unwrap();
        assert!(matches!(end, Err(SpliceError::Stalled)), "{end:?}");
    }
    let more = timeout(Duration::from_secs(1), splices.join_next()).await;
    assert!(more.is_err(), "no more are cut than there are too many");
    // One that nobody has read yet is whole, and so is one that comes now.
    let mut whole = 0;
    near.push(open(&mut splices).await);
    for mut near in near {
        // Those that were cut end early.
        let mut got = Vec::new();
        let _ = soon(near.read_to_end(&mut got)).await;
        assert!(got.iter().all(|byte| *byte == 7));
        whole += usize::from(got.len() == PIECE);
    }
    assert_eq!(whole, ALLOWED + 1);
    serving.abort();
}
