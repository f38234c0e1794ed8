//! A connector, dialers for it, and services of several tempers.

use std::{net::SocketAddr, time::Duration};

use adit_connector::{Config, Connector, Options};
use adit_tunnel::ids;
use adit_wire::{
    ErrorClass,
    connect::{ALPN, decode_answer, encode_request},
};
use iroh::{
    Endpoint, EndpointAddr, SecretKey,
    endpoint::{Connection, RecvStream, SendStream, presets},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};

/// Longer than anything here takes: a test that waits this long has failed.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct Rig {
    pub connector: Connector,
    pub dir: tempfile::TempDir,
}

/// The key of the dialer that rigs allow.
pub fn dialer_key() -> SecretKey {
    SecretKey::from_bytes(&[42; 32])
}

pub fn id_of(key: &SecretKey) -> String {
    ids::to_wire(key.public()).to_string()
}

pub fn options(dir: &tempfile::TempDir, targets: &[&str]) -> Options {
    Options {
        allow: Some(vec![id_of(&dialer_key())]),
        targets: Some(targets.iter().map(ToString::to_string).collect()),
        admin: Some("127.0.0.1:0".parse().unwrap()),
        endpoint: adit_tunnel::options::EndpointOptions {
            key_file: Some(dir.path().join("key")),
            bind: vec!["127.0.0.1:0".parse().unwrap()],
            ..Default::default()
        },
        ..Default::default()
    }
}

pub async fn rig(targets: &[&str]) -> Rig {
    rig_with(targets, |_| {}, |_| {}).await
}

pub async fn rig_with(
    targets: &[&str],
    change_options: impl FnOnce(&mut Options),
    change_config: impl FnOnce(&mut Config),
) -> Rig {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(&dir, targets);
    change_options(&mut options);
    let mut config = options.resolve().unwrap();
    change_config(&mut config);
    Rig {
        connector: Connector::start(config).await.unwrap(),
        dir,
    }
}

impl Rig {
    /// The connector's address, as a dialer learns it by discovery.
    pub fn addr(&self) -> EndpointAddr {
        let endpoint = self.connector.endpoint();
        let sockets = endpoint.bound_sockets();
        sockets
            .iter()
            .fold(EndpointAddr::new(endpoint.id()), |addr, socket| {
                addr.with_ip_addr(*socket)
            })
    }

    /// A connection of the allowed dialer.
    pub async fn connect(&self) -> Dialer {
        self.connect_as(dialer_key()).await
    }

    pub async fn connect_as(&self, key: SecretKey) -> Dialer {
        let endpoint = endpoint(key).await;
        let connection = within(endpoint.connect(self.addr(), ALPN)).await.unwrap();
        Dialer {
            endpoint,
            connection,
        }
    }

    /// Waits until the connector's own view satisfies `want`.
    pub async fn until(&self, want: impl Fn(&adit_tunnel::status::Status) -> bool) {
        within(async {
            while !want(&self.connector.status()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
    }

    /// Waits until a counter is at least `least`. For what the process-wide
    /// SIGHUP of another test here may also count.
    pub async fn until_count(&self, counter: &str, least: u64) {
        let count = || {
            let text = self.connector.metrics();
            let line = text.lines().find_map(|l| l.strip_prefix(counter));
            line.map_or(0, |count| count.trim().parse::<u64>().unwrap())
        };
        within(async {
            while count() < least {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
    }

    /// Waits until a line stands in the metrics.
    pub async fn until_metric(&self, line: &str) {
        within(async {
            while !self.connector.metrics().lines().any(|l| l == line) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
    }
}

pub struct Dialer {
    /// Held: without it the connection ends.
    #[allow(dead_code)]
    pub endpoint: Endpoint,
    pub connection: Connection,
}

pub struct Tunnel {
    pub send: SendStream,
    pub recv: RecvStream,
    /// Bytes that came with the answer.
    pub first: Vec<u8>,
}

impl Dialer {
    pub async fn tunnel(&self, service: &str) -> Result<Tunnel, ErrorClass> {
        self.tunnel_with(service, b"").await
    }

    /// With bytes right behind the request.
    pub async fn tunnel_with(&self, service: &str, early: &[u8]) -> Result<Tunnel, ErrorClass> {
        let mut head = encode_request(&service.parse().unwrap());
        head.extend_from_slice(early);
        self.raw(&head).await
    }

    /// Sends a head as it is and reads the answer.
    pub async fn raw(&self, head: &[u8]) -> Result<Tunnel, ErrorClass> {
        let (mut send, recv) = within(self.connection.open_bi()).await.unwrap();
        send.write_all(head).await.unwrap();
        answer(send, recv).await
    }
}

/// Reads a connector's answer.
pub async fn answer(send: SendStream, mut recv: RecvStream) -> Result<Tunnel, ErrorClass> {
    let mut read = Vec::new();
    loop {
        if let Some((answer, len)) = decode_answer(&read).expect("an answer") {
            answer?;
            return Ok(Tunnel {
                send,
                recv,
                first: read.split_off(len),
            });
        }
        let chunk = within(recv.read_chunk(8192)).await.expect("an answer");
        read.extend_from_slice(&chunk.expect("an answer before the end"));
    }
}

impl Tunnel {
    /// Everything up to the clean end.
    pub async fn rest(&mut self) -> Vec<u8> {
        let mut all = std::mem::take(&mut self.first);
        all.extend(within(self.recv.read_to_end(1 << 26)).await.unwrap());
        all
    }

    /// The next `n` bytes.
    pub async fn next(&mut self, n: usize) -> Vec<u8> {
        let mut all = std::mem::take(&mut self.first);
        let from = all.len();
        all.resize(n.max(from), 0);
        within(self.recv.read_exact(&mut all[from..]))
            .await
            .unwrap();
        all
    }

    /// Whether both directions end, and not cleanly.
    pub async fn is_cut(&mut self) -> bool {
        let read = within(self.recv.read_to_end(1 << 26)).await;
        let stopped = within(self.send.stopped()).await;
        read.is_err() && !matches!(stopped, Ok(None))
    }
}

pub async fn endpoint(key: SecretKey) -> Endpoint {
    Endpoint::builder(presets::Minimal)
        .secret_key(key)
        .clear_ip_transports()
        .bind_addr("127.0.0.1:0")
        .unwrap()
        .bind()
        .await
        .unwrap()
}

pub async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("in time")
}

/// A service where each connection meets `serve`.
pub async fn service<F, R>(serve: F) -> SocketAddr
where
    F: Fn(TcpStream) -> R + Send + Sync + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    addr
}

/// Sends back what it gets, and ends when the other side has.
pub async fn echo() -> SocketAddr {
    service(|mut stream| async move {
        let mut buf = vec![0; 65536];
        while let Ok(n) = stream.read(&mut buf).await {
            if n == 0 || stream.write_all(&buf[..n]).await.is_err() {
                break;
            }
        }
        let _ = stream.shutdown().await;
    })
    .await
}

/// A service whose connections the test holds.
pub async fn held() -> (SocketAddr, tokio::sync::mpsc::Receiver<TcpStream>) {
    let (sender, receiver) = tokio::sync::mpsc::channel(64);
    let addr = service(move |stream| {
        let sender = sender.clone();
        async move { sender.send(stream).await.unwrap() }
    })
    .await;
    (addr, receiver)
}

/// How a service's connection ends: cleanly with some bytes, or by an error.
pub async fn ended(mut stream: TcpStream) -> Result<Vec<u8>, std::io::ErrorKind> {
    let mut all = Vec::new();
    let read = within(stream.read_to_end(&mut all)).await;
    read.map(|_| all).map_err(|error| error.kind())
}
