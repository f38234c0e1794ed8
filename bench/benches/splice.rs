//! The splice of one tunnel: a Unix socket, the product's splice, iroh over
//! loopback, and a peer that only counts or only sends.

#![allow(clippy::unwrap_used, missing_docs)]

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use adit_tunnel::{
    meter::Meter,
    splice::splice,
    stream::{TunnelRecv, TunnelSend},
};
use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use iroh::{
    Endpoint, EndpointAddr,
    endpoint::{Connection, PortmapperConfig, presets},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    runtime::Runtime,
};

const ALPN: &[u8] = b"adit-bench/criterion";
/// Of each iteration.
const LEN: usize = 16 << 20;

async fn endpoint() -> Endpoint {
    Endpoint::builder(presets::Minimal)
        .alpns(vec![ALPN.to_vec()])
        .portmapper_config(PortmapperConfig::Disabled)
        .clear_ip_transports()
        .bind_addr((Ipv4Addr::LOCALHOST, 0))
        .unwrap()
        .bind()
        .await
        .unwrap()
}

/// Two endpoints and a connection; the far one counts what comes and then sends
/// as much, as its first byte says.
async fn pair() -> (Endpoint, Endpoint, Connection) {
    let (near, far) = (endpoint().await, endpoint().await);
    let at = far.bound_sockets()[0];
    let to = EndpointAddr::new(far.id()).with_ip_addr(at);
    let accepting = far.clone();
    tokio::spawn(async move {
        while let Some(incoming) = accepting.accept().await {
            let connection = incoming.await.unwrap();
            while let Ok((mut send, mut recv)) = connection.accept_bi().await {
                tokio::spawn(async move {
                    let down = recv.read_u8().await.unwrap() == b'd';
                    let mut buf = vec![0; 64 * 1024];
                    while recv.read(&mut buf).await.unwrap().is_some() {}
                    for _ in 0..(LEN / buf.len()) * usize::from(down) {
                        send.write_all(&buf).await.unwrap();
                    }
                    send.finish().unwrap();
                });
            }
        }
    });
    let connection = near.connect(to, ALPN).await.unwrap();
    (near, far, connection)
}

/// One tunnel: `d` for as much down, `u` for as much up.
async fn tunnel(connection: &Connection, way: u8) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (send, recv) = connection.open_bi().await.unwrap();
    let meter = Arc::new(Meter::default());
    let spliced = tokio::spawn(async move {
        let (send, recv) = (TunnelSend::new(send), TunnelRecv::new(recv));
        splice(theirs, send, recv, Bytes::new(), &meter).await
    });
    let (mut reader, mut writer) = ours.into_split();
    writer.write_all(&[way]).await.unwrap();
    if way == b'u' {
        let piece = vec![0; 64 * 1024];
        for _ in 0..LEN / piece.len() {
            writer.write_all(&piece).await.unwrap();
        }
    }
    writer.shutdown().await.unwrap();
    let mut buf = vec![0; 64 * 1024];
    let mut got = 0;
    loop {
        match reader.read(&mut buf).await.unwrap() {
            0 => break,
            n => got += n,
        }
    }
    assert_eq!(got, LEN * usize::from(way == b'd'));
    drop((reader, writer));
    spliced.await.unwrap().unwrap();
}

fn throughput(c: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let (_near, _far, connection) = runtime.block_on(pair());
    let mut group = c.benchmark_group("splice");
    group.throughput(Throughput::Bytes(LEN as u64));
    group.sample_size(20);
    group.measurement_time(Duration::from_secs(10));
    for (name, way) in [("up", b'u'), ("down", b'd')] {
        group.bench_function(name, |b| {
            b.iter(|| runtime.block_on(tunnel(&connection, way)));
        });
    }
    group.finish();
}

criterion_group!(benches, throughput);
criterion_main!(benches);
