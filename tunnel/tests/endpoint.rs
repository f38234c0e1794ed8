//! The supervised endpoint against a real relay that goes and comes back, and
//! the admin server on both kinds of socket.

#![allow(clippy::unwrap_used)]

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use adit_tunnel::{
    admin::{self, Admin, AdminAddr},
    endpoint::Supervisor,
    options::EndpointOptions,
    status::{Role, Status},
};
use iroh_relay::server::{RelayConfig, Server, ServerConfig};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

async fn relay(addr: SocketAddr) -> Server {
    let mut relay = RelayConfig::new(addr);
    relay.key_cache_capacity = Some(64);
    let mut config = ServerConfig::default();
    config.relay = Some(relay);
    Server::spawn(config).await.unwrap()
}

async fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let wait = async {
        while !check() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(40), wait)
        .await
        .unwrap_or_else(|_| panic!("{what}"));
}

#[tokio::test]
async fn the_watchdog_rebuilds_the_endpoint_under_the_same_key_and_finds_the_relay_again() {
    let dir = tempfile::tempdir().unwrap();
    let server = relay((Ipv4Addr::LOCALHOST, 0).into()).await;
    let addr = server.http_addr().unwrap();
    let config = EndpointOptions {
        key_file: Some(dir.path().join("key")),
        bind: vec!["127.0.0.1:0".parse().unwrap()],
        relay: vec![format!("http://{addr}")],
        relay_watchdog: "500ms".parse().ok(),
        ..Default::default()
    }
    .resolve()
    .unwrap();
    let live = Arc::new(AtomicUsize::new(1));
    let supervisor = Supervisor::start(config, &[b"test"], live, CancellationToken::new())
        .await
        .unwrap();
    let first = supervisor.endpoint();
    let relay_state = || supervisor.relay().unwrap();
    eventually("connects to its relay", || relay_state().connected).await;

    server.shutdown().await.unwrap();
    eventually("gives the wedged endpoint up", || {
        relay_state().rebuilds > 0
    })
    .await;
    assert!(
        !first.is_closed(),
        "a live connection keeps the old endpoint"
    );
    assert_eq!(supervisor.endpoint().id(), first.id());

    let _server = relay(addr).await;
    eventually("connects to the relay that is back", || {
        relay_state().connected
    })
    .await;
    supervisor.close(Duration::from_secs(2)).await;
}

fn admin(ready: bool) -> Admin {
    Admin {
        status: Arc::new(move || Status {
            role: Role::Dialer,
            version: "0".into(),
            endpoint_id: "00".repeat(32),
            uptime_seconds: 1,
            ready,
            bound: vec![],
            relay: None,
            control_plane: None,
            streams: 0,
            queued: 0,
            peers: vec![],
        }),
        metrics: Arc::new(|| "# EOF\n".into()),
        log: None,
    }
}

async fn get(addr: &AdminAddr, path: &str) -> String {
    async fn exchange(mut io: impl AsyncReadExt + AsyncWriteExt + Unpin, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        io.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        io.read_to_string(&mut answer).await.unwrap();
        answer
    }
    match addr {
        AdminAddr::Tcp(addr) => {
            exchange(tokio::net::TcpStream::connect(addr).await.unwrap(), path).await
        }
        AdminAddr::Unix(path_) => {
            exchange(tokio::net::UnixStream::connect(path_).await.unwrap(), path).await
        }
    }
}

#[tokio::test]
async fn the_admin_server_answers_on_tcp_and_on_a_unix_socket_that_replaces_a_stale_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    for wanted in ["127.0.0.1:0".to_owned(), format!("unix:{}", path.display())] {
        let shutdown = CancellationToken::new();
        let bound = admin::serve(wanted.parse().unwrap(), admin(true), shutdown.clone())
            .await
            .unwrap();
        assert!(get(&bound, "/livez").await.starts_with("HTTP/1.1 200"));
        assert!(get(&bound, "/readyz").await.starts_with("HTTP/1.1 200"));
        assert!(get(&bound, "/status").await.contains("\"role\":\"dialer\""));
        assert!(get(&bound, "/metrics").await.ends_with("# EOF\n"));
        assert!(get(&bound, "/log").await.starts_with("HTTP/1.1 405"));
        let second = admin::serve(bound.clone(), admin(true), shutdown.clone()).await;
        assert!(
            second.unwrap_err().to_string().contains("--admin"),
            "two processes, one address"
        );
        shutdown.cancel();
    }
}

#[tokio::test]
async fn a_process_that_does_not_serve_is_alive_but_not_ready() {
    let addr = "127.0.0.1:0".parse().unwrap();
    let bound = admin::serve(addr, admin(false), CancellationToken::new())
        .await
        .unwrap();
    assert!(get(&bound, "/livez").await.starts_with("HTTP/1.1 200"));
    assert!(get(&bound, "/readyz").await.starts_with("HTTP/1.1 503"));
}
