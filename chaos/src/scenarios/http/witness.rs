//! A service that keeps every byte, and reads requests as a simple server would:
//! one after another, each with the length that its fields say.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use adit_tests::process::until;
use anyhow::{Result, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_util::task::AbortOnDropHandle;

/// A request whose path begins so is answered by 101; what follows is no HTTP.
pub(super) const SWITCH: &str = "/switch";
/// The answer to everything else.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nseen\n";
const SWITCHED: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";

/// The running service.
pub(super) struct Witness {
    pub(super) addr: SocketAddr,
    record: Arc<Mutex<Vec<Seen>>>,
    _task: AbortOnDropHandle<()>,
}

/// One request, or what is none.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    /// Up to and without the empty line.
    pub(super) head: Vec<u8>,
    /// The body as its fields delimit it.
    pub(super) body: Vec<u8>,
    /// The trailers of a chunked body.
    pub(super) trailers: Vec<u8>,
    /// Whether it came to its end.
    pub(super) whole: bool,
}

impl Witness {
    pub(super) async fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let addr = listener.local_addr()?;
        let record = Arc::new(Mutex::new(Vec::new()));
        let shared = record.clone();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                connections.spawn(serve(tcp, shared.clone()));
            }
        });
        Ok(Self {
            addr,
            record,
            _task: AbortOnDropHandle::new(task),
        })
    }

    /// As the manifests write it.
    pub(super) fn endpoint(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Every request so far.
    pub(super) fn seen(&self) -> Vec<Seen> {
        let record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        record.clone()
    }

    /// Waits until it has seen a request for this path.
    pub(super) async fn until_seen(&self, path: &str) -> Result<()> {
        until(&format!("{path} at the service"), async || {
            let all = self.seen();
            all.iter().any(|seen| seen.target() == path).then_some(())
        })
        .await
    }
}

impl Seen {
    /// The request line's second word.
    pub(super) fn target(&self) -> String {
        let line = self.head.split(|b| *b == b'\n').next().unwrap_or_default();
        let text = String::from_utf8_lossy(line);
        text.split_whitespace()
            .nth(1)
            .unwrap_or_default()
            .to_owned()
    }

    /// The values of a field, by its name in any case.
    pub(super) fn values(&self, name: &str) -> Vec<String> {
        let fields = fields(&self.head).into_iter();
        let of_name = fields.filter(|(n, _)| n.eq_ignore_ascii_case(name));
        of_name.map(|(_, value)| value).collect()
    }

    /// The names of all fields and trailers, in lower case.
    pub(super) fn names(&self) -> Vec<String> {
        let trailers = [b"\r\n", self.trailers.as_slice()].concat();
        let all = fields(&self.head).into_iter().chain(fields(&trailers));
        all.map(|(name, _)| name.to_ascii_lowercase()).collect()
    }

    /// All of it, for a message.
    pub(super) fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.head);
        format!("{text:?} with a body of {} bytes", self.body.len())
    }
}

/// The lines after the first, split at the colon.
fn fields(head: &[u8]) -> Vec<(String, String)> {
    let text = String::from_utf8_lossy(head);
    let lines = text.split("\r\n").skip(1);
    lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect()
}

async fn serve(mut tcp: TcpStream, record: Arc<Mutex<Vec<Seen>>>) {
    let mut got = Vec::new();
    loop {
        let mut seen = Seen::default();
        let read = read(&mut tcp, &mut got, &mut seen).await;
        seen.whole = read.is_ok();
        let switched = seen.target().starts_with(SWITCH);
        let nothing = seen.head.is_empty() && got.is_empty();
        if read.is_err() && !nothing {
            // Not a whole request: what came is kept as it is.
            seen.body.append(&mut got);
        }
        if !nothing {
            let mut record = record.lock().unwrap_or_else(PoisonError::into_inner);
            record.push(seen);
        }
        let answer = if switched { SWITCHED } else { ANSWER };
        if read.is_err() || tcp.write_all(answer).await.is_err() {
            return;
        }
        if switched {
            let _ = tokio::io::copy(&mut tcp, &mut tokio::io::sink()).await;
            return;
        }
    }
}

/// Reads one request from what was read already and what comes.
async fn read(tcp: &mut TcpStream, got: &mut Vec<u8>, seen: &mut Seen) -> Result<()> {
    seen.head = until_mark(tcp, got, b"\r\n\r\n").await?;
    if seen.target().starts_with(SWITCH) {
        return Ok(());
    }
    if let Some(coding) = seen.values("transfer-encoding").first() {
        ensure!(coding.eq_ignore_ascii_case("chunked"), "{coding}");
        loop {
            let line = until_mark(tcp, got, b"\r\n").await?;
            let line = String::from_utf8_lossy(&line).into_owned();
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16)?;
            if size == 0 {
                break;
            }
            seen.body.extend(exactly(tcp, got, size).await?);
            exactly(tcp, got, 2).await?;
        }
        loop {
            let line = until_mark(tcp, got, b"\r\n").await?;
            if line.is_empty() {
                return Ok(());
            }
            seen.trailers.extend_from_slice(&line);
            seen.trailers.extend_from_slice(b"\r\n");
        }
    }
    if let Some(length) = seen.values("content-length").first() {
        seen.body = exactly(tcp, got, length.parse()?).await?;
    }
    Ok(())
}

async fn until_mark(tcp: &mut TcpStream, got: &mut Vec<u8>, mark: &[u8]) -> Result<Vec<u8>> {
    loop {
        if let Some(at) = got.windows(mark.len()).position(|w| w == mark) {
            let found = got.drain(..at).collect();
            got.drain(..mark.len());
            return Ok(found);
        }
        ensure!(tcp.read_buf(got).await? > 0, "closed");
    }
}

async fn exactly(tcp: &mut TcpStream, got: &mut Vec<u8>, len: usize) -> Result<Vec<u8>> {
    while got.len() < len {
        ensure!(tcp.read_buf(got).await? > 0, "closed");
    }
    Ok(got.drain(..len).collect())
}
