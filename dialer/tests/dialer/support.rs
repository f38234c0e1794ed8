//! A running dialer, Envoy's side of its socket, and connectors to reach.

use std::{
    collections::HashMap,
    future::Future,
    net::SocketAddr,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use adit_api::{ConnectorHint, DialerState};
use adit_dialer::{Options, run};
use adit_tunnel::{admin::AdminAddr, ids, status::Status};
use adit_wire::{
    Connected, EndpointId, ErrorClass, Protocol, Refusal, Target, Verdict, connect,
    preface::Preface,
};
use hickory_resolver::proto::{
    op::{Message, ResponseCode},
    rr::{RData, Record, rdata::TXT},
};
use iroh::{
    Endpoint, RelayMode, RelayUrl, SecretKey,
    endpoint::{
        Connection, Incoming, QuicTransportConfig, RecvStream, SendStream, VarInt, presets,
    },
};
use rustix::event::{PollFd, PollFlags, poll};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// Longer than anything here should take: a test that waits this long fails.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Fails the test instead of waiting for ever.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("still waiting: {what}"))
}

/// Asks again and again until it is so.
pub async fn until(what: &str, mut so: impl FnMut() -> bool) {
    soon(what, async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// A running dialer.
pub struct Dialer {
    pub dir: TempDir,
    pub socket: PathBuf,
    pub shutdown: CancellationToken,
    pub task: JoinHandle<Result<(), String>>,
    state: std::sync::Mutex<DialerState>,
}

impl Dialer {
    /// Starts one that knows nobody.
    pub async fn start() -> Self {
        Self::with(|_| ()).await
    }

    pub async fn with(change: impl FnOnce(&mut Options)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let mut options = Self::options_in(dir.path());
        change(&mut options);
        let shutdown = CancellationToken::new();
        let config = options.resolve().unwrap();
        let stop = shutdown.clone();
        let task = tokio::spawn(async move { run(config, stop).await.map_err(|e| e.to_string()) });
        let dialer = Self {
            socket,
            shutdown,
            task,
            state: Default::default(),
            dir,
        };
        dialer.ready().await;
        dialer
    }

    pub fn options_in(dir: &Path) -> Options {
        let mut options = Options {
            socket: Some(dir.join("s").to_str().unwrap().into()),
            state: Some(dir.join("state.json")),
            admin: Some(AdminAddr::Unix(dir.join("admin"))),
            workers: Some(2),
            ..Options::default()
        };
        options.endpoint.key_file = Some(dir.join("key"));
        options.endpoint.bind = vec!["127.0.0.1:0".parse().unwrap()];
        options
    }

    async fn ready(&self) {
        soon("the dialer listens", async {
            while self
                .get("/readyz")
                .await
                .is_none_or(|(code, _)| code != 200)
                || std::os::unix::net::UnixStream::connect(&self.socket).is_err()
            {
                assert!(!self.task.is_finished(), "the dialer has ended");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }

    /// Tells the dialer where connectors are, and nothing else.
    pub fn tell(&self, known: &[(EndpointId, &[SocketAddr])]) {
        self.state.lock().unwrap().connectors = hints(known);
        self.write_state();
    }

    /// Tells that one connector is at a relay.
    pub fn tell_relay(&self, id: EndpointId, relay: &RelayUrl) {
        self.state.lock().unwrap().connectors = vec![ConnectorHint {
            endpoint_id: id,
            relay: Some(relay.to_string()),
            addresses: vec![],
        }];
        self.write_state();
    }

    /// The same, for a dialer in another process.
    pub fn write_hints(dir: &Path, known: &[(EndpointId, &[SocketAddr])]) {
        let state = DialerState {
            connectors: hints(known),
            targets: None,
        };
        std::fs::write(dir.join("state.json"), serde_json::to_vec(&state).unwrap()).unwrap();
    }

    pub fn tell_targets(&self, targets: Option<Vec<Target>>) {
        self.state.lock().unwrap().targets = targets;
        self.write_state();
    }

    fn write_state(&self) {
        let text = serde_json::to_vec(&*self.state.lock().unwrap()).unwrap();
        let new = self.dir.path().join("state.new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.dir.path().join("state.json")).unwrap();
    }

    /// Connects and asks for a target, wanting a verdict.
    pub async fn ask(&self, target: &Target) -> UnixStream {
        let preface = Preface {
            target: target.clone(),
            wants_verdict: true,
        };
        let mut socket = UnixStream::connect(&self.socket).await.unwrap();
        socket.write_all(&preface.encode().unwrap()).await.unwrap();
        socket
    }

    /// Asks, and takes the verdict.
    pub async fn open(&self, target: &Target) -> Result<(UnixStream, Connected), Refusal> {
        let mut socket = self.ask(target).await;
        match verdict(&mut socket).await {
            Verdict::Connected(connected) => Ok((socket, connected)),
            Verdict::Refused(refusal) => Err(refusal),
        }
    }

    pub async fn refused(&self, target: &Target) -> Refusal {
        self.open(target).await.expect_err("a refusal")
    }

    pub async fn status(&self) -> Status {
        let (code, body) = self.get("/status").await.expect("an answer");
        assert_eq!(code, 200);
        serde_json::from_str(&body).unwrap()
    }

    /// GET on the admin server.
    pub async fn get(&self, path: &str) -> Option<(u16, String)> {
        let admin = self.dir.path().join("admin");
        let mut socket = UnixStream::connect(admin).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let code = head.split(' ').nth(1)?.parse().ok()?;
        Some((code, body.into()))
    }

    /// Ends it and waits until it has ended.
    pub async fn stop(self) {
        self.shutdown.cancel();
        let ended = soon("the dialer ends", self.task).await;
        ended.unwrap().unwrap();
    }
}

fn hints(known: &[(EndpointId, &[SocketAddr])]) -> Vec<ConnectorHint> {
    known
        .iter()
        .map(|(id, addresses)| ConnectorHint {
            endpoint_id: *id,
            relay: None,
            addresses: addresses.to_vec(),
        })
        .collect()
}

/// Reads a verdict, and not a byte more.
pub async fn verdict(socket: &mut UnixStream) -> Verdict {
    soon("a verdict", async {
        let mut buf = Vec::new();
        loop {
            buf.push(socket.read_u8().await.expect("a verdict, not an end"));
            if let Some((verdict, len)) = Verdict::decode(&buf).unwrap() {
                assert_eq!(len, buf.len());
                return verdict;
            }
        }
    })
    .await
}

/// How the dialer has closed a socket, as the module tells it.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    Clean,
    Abort,
}

/// Reads to the end; the bytes, and which end it was.
pub async fn read_end(socket: &mut UnixStream) -> (Vec<u8>, End) {
    let mut bytes = Vec::new();
    let read = soon("the end of the stream", socket.read_to_end(&mut bytes)).await;
    let mut fds = [PollFd::new(&*socket, PollFlags::RDHUP)];
    let now = rustix::event::Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut fds, Some(&now)).unwrap();
    let hung_up = fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR);
    if read.is_err() || hung_up {
        (bytes, End::Abort)
    } else {
        (bytes, End::Clean)
    }
}

/// Reads to the end of a socket whose own half has ended already: then both
/// kinds of end look the same.
pub async fn read_all(socket: &mut UnixStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let read = soon("the end of the stream", socket.read_to_end(&mut bytes)).await;
    read.expect("an end, not an error");
    bytes
}

/// A target of these connectors with a deadline that no passing test reaches.
pub fn target(connectors: &[EndpointId]) -> Target {
    Target {
        connectors: connectors.to_vec(),
        service: "service.internal:8080".parse().unwrap(),
        protocol: Protocol::Tcp,
        deadline: Duration::from_secs(20),
        name: "test".into(),
    }
}

/// The same with a deadline that the test waits for.
pub fn hasty(connectors: &[EndpointId], deadline_ms: u64) -> Target {
    Target {
        deadline: Duration::from_millis(deadline_ms),
        ..target(connectors)
    }
}

type Serving = Pin<Box<dyn Future<Output = ()> + Send>>;
/// What a connector does with a stream.
pub type Service = Arc<dyn Fn(SendStream, RecvStream) -> Serving + Send + Sync>;

/// Wraps a service.
pub fn service<F, S>(serve: S) -> Service
where
    F: Future<Output = ()> + Send + 'static,
    S: Fn(SendStream, RecvStream) -> F + Send + Sync + 'static,
{
    Arc::new(move |send, recv| Box::pin(serve(send, recv)))
}

/// Takes every CONNECT, and sends back what comes until it ends.
pub fn echo() -> Service {
    service(async |mut send: SendStream, mut recv: RecvStream| {
        let early = accept(&mut send, &mut recv, Ok(())).await;
        let _ = send.write_all(&early).await;
        while let Ok(Some(chunk)) = recv.read_chunk(65536).await {
            if send.write_chunk(chunk).await.is_err() {
                return;
            }
        }
        let _ = send.finish();
    })
}

/// Reads a CONNECT and answers it; what came behind the head.
pub async fn accept(
    send: &mut SendStream,
    recv: &mut RecvStream,
    answer: Result<(), ErrorClass>,
) -> Vec<u8> {
    let early = request(recv).await;
    let _ = send.write_all(&connect::encode_answer(answer)).await;
    early
}

/// Reads a CONNECT; what came behind the head.
pub async fn request(recv: &mut RecvStream) -> Vec<u8> {
    let mut head = Vec::new();
    while let Ok(Some(chunk)) = recv.read_chunk(8192).await {
        head.extend_from_slice(&chunk);
        if let Some((_, len)) = connect::decode_request(&head).unwrap() {
            return head[len..].to_vec();
        }
    }
    Vec::new()
}

/// The address of a device that has none.
const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9);

/// A connector, on a thread of its own so that it can be frozen.
pub struct Device {
    pub id: EndpointId,
    pub addr: SocketAddr,
    pub connections: Arc<AtomicUsize>,
    pub streams: Arc<AtomicUsize>,
    runtime: Option<tokio::runtime::Runtime>,
    frozen: Option<std::sync::mpsc::Sender<()>>,
    endpoint: Endpoint,
}

/// How a device is made.
pub struct DeviceConfig {
    pub key: SecretKey,
    pub alpn: Vec<u8>,
    pub max_streams: u32,
    pub service: Service,
    /// Closes each connection with this code instead of serving it.
    pub reject: Option<u32>,
    /// While true, closes one connection at its first stream, and is false then.
    pub close_once: Option<Arc<AtomicBool>>,
    /// Reachable through this relay only.
    pub relay: Option<RelayUrl>,
}

impl Default for DeviceConfig {
    fn default() -> Self {
        Self {
            key: SecretKey::generate(),
            alpn: connect::ALPN.to_vec(),
            max_streams: 4096,
            service: echo(),
            reject: None,
            close_once: None,
            relay: None,
        }
    }
}

impl Device {
    /// An echo behind a new key.
    pub fn start() -> Self {
        Self::with(DeviceConfig::default())
    }

    pub fn serving(service: Service) -> Self {
        Self::with(DeviceConfig {
            service,
            ..Default::default()
        })
    }

    pub fn with(config: DeviceConfig) -> Self {
        let config = Arc::new(config);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let transport = QuicTransportConfig::builder()
            .max_concurrent_bidi_streams(VarInt::from_u32(config.max_streams))
            .build();
        let (connections, streams) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let made = config.clone();
        let endpoint = futures_util::FutureExt::boxed(async move {
            let builder = Endpoint::builder(presets::Minimal)
                .secret_key(made.key.clone())
                .alpns(vec![made.alpn.clone()])
                .transport_config(transport)
                .clear_ip_transports();
            let builder = match &made.relay {
                Some(url) => builder.relay_mode(RelayMode::custom([url.clone()])),
                None => builder.bind_addr("127.0.0.1:0").unwrap(),
            };
            let endpoint = builder.bind().await.unwrap();
            if made.relay.is_some() {
                soon("the device is at its relay", endpoint.online()).await;
            }
            endpoint
        });
        let handle = runtime.handle().clone();
        let endpoint =
            std::thread::scope(|s| s.spawn(|| handle.block_on(endpoint)).join()).unwrap();
        let accept = {
            let (endpoint, connections, streams) =
                (endpoint.clone(), connections.clone(), streams.clone());
            async move {
                while let Some(incoming) = endpoint.accept().await {
                    // As a connector does it: a handshake whose dialer is gone
                    // lasts for seconds, and holds up no other.
                    tokio::spawn(accepted(
                        incoming,
                        config.clone(),
                        connections.clone(),
                        streams.clone(),
                    ));
                }
            }
        };
        runtime.spawn(accept);
        Self {
            id: ids::to_wire(endpoint.id()),
            addr: endpoint.bound_sockets().first().copied().unwrap_or(NOWHERE),
            connections,
            streams,
            runtime: Some(runtime),
            frozen: None,
            endpoint,
        }
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Streams being served now.
    pub fn streams(&self) -> usize {
        self.streams.load(Ordering::SeqCst)
    }

    /// Stops answering at once, like a machine without power: no packet says so.
    pub fn freeze(&mut self) {
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        let runtime = self.runtime.as_ref().unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        runtime.spawn(async move {
            tell.send(()).unwrap();
            // The runtime's only worker: nothing else runs any more.
            let _ = receiver.recv();
        });
        told.recv().unwrap();
        self.frozen = Some(sender);
    }

    /// Closes its connections in good order.
    pub async fn close(&self) {
        let endpoint = self.endpoint.clone();
        let handle = self.runtime.as_ref().unwrap().handle().clone();
        let _ = handle.spawn(async move { endpoint.close().await }).await;
    }
}

async fn accepted(
    incoming: Incoming,
    config: Arc<DeviceConfig>,
    connections: Arc<AtomicUsize>,
    streams: Arc<AtomicUsize>,
) {
    let Ok(connection) = incoming.await else {
        return;
    };
    connections.fetch_add(1, Ordering::SeqCst);
    let once = config.close_once.as_ref();
    if once.is_some_and(|once| once.swap(false, Ordering::SeqCst)) {
        let _ = connection.accept_bi().await;
        return connection.close(VarInt::from_u32(0), b"once");
    }
    match config.reject {
        Some(code) => connection.close(VarInt::from_u32(code), b"rejected"),
        None => serve(connection, config.service.clone(), streams).await,
    }
}

async fn serve(connection: Connection, service: Service, streams: Arc<AtomicUsize>) {
    while let Ok((send, recv)) = connection.accept_bi().await {
        let (serving, streams) = (service(send, recv), streams.clone());
        streams.fetch_add(1, Ordering::SeqCst);
        tokio::spawn(async move {
            serving.await;
            streams.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.frozen = None;
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A DNS server on loopback that tells what connectors publish.
pub struct Names {
    pub addr: SocketAddr,
    origin: String,
    records: Arc<std::sync::Mutex<HashMap<String, Vec<String>>>>,
    queries: Arc<AtomicUsize>,
}

impl Names {
    pub async fn start(origin: &str) -> Self {
        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let names = Self {
            addr: socket.local_addr().unwrap(),
            origin: origin.into(),
            records: Arc::default(),
            queries: Arc::default(),
        };
        let (records, queries) = (names.records.clone(), names.queries.clone());
        tokio::spawn(async move {
            let mut buf = [0; 4096];
            while let Ok((n, from)) = socket.recv_from(&mut buf).await {
                // The port may have been a dead device's: dialers of other tests
                // still send their handshakes there.
                let query = Message::from_vec(&buf[..n]).ok();
                let answer = query.and_then(|query| answer(&query, &records.lock().unwrap()));
                let Some(answer) = answer else { continue };
                queries.fetch_add(1, Ordering::SeqCst);
                let _ = socket.send_to(&answer.to_vec().unwrap(), from).await;
            }
        });
        names
    }

    pub fn publish(&self, id: EndpointId, records: &[&str]) {
        let name = format!("_iroh.{}.{}.", id.to_z32(), self.origin);
        let records = records.iter().map(|r| (*r).to_owned()).collect();
        self.records.lock().unwrap().insert(name, records);
    }

    pub fn queries(&self) -> usize {
        self.queries.load(Ordering::SeqCst)
    }
}

fn answer(query: &Message, records: &HashMap<String, Vec<String>>) -> Option<Message> {
    let question = query.queries.first()?.clone();
    let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
    answer.metadata.recursion_desired = query.metadata.recursion_desired;
    answer.metadata.authoritative = true;
    match records.get(&question.name().to_string().to_ascii_lowercase()) {
        Some(records) => {
            for text in records {
                let data = RData::TXT(TXT::new(vec![text.clone()]));
                answer.add_answer(Record::from_rdata(question.name().clone(), 30, data));
            }
        }
        None => answer.metadata.response_code = ResponseCode::NXDomain,
    }
    answer.add_query(question);
    Some(answer)
}

/// A relay on loopback.
pub async fn relay(addr: SocketAddr) -> (iroh_relay::server::Server, RelayUrl) {
    let mut relay = iroh_relay::server::RelayConfig::new(addr);
    relay.key_cache_capacity = Some(1024);
    let mut config = iroh_relay::server::ServerConfig::default();
    config.relay = Some(relay);
    let server = iroh_relay::server::Server::spawn(config).await.unwrap();
    let url = format!("http://{}", server.http_addr().unwrap());
    (server, url.parse().unwrap())
}
