//! The load generator's HTTP/1.1: as little work as possible for each request,
//! so that the CPU time goes to what is measured.

use std::path::PathBuf;
use std::{net::SocketAddr, pin::Pin};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpStream, UnixStream},
};

/// How a load gets onto a path.
#[derive(Debug, Clone)]
pub struct Door {
    /// Where to connect.
    pub at: At,
    /// The host that the requests carry.
    pub host: String,
}

/// An address.
#[derive(Debug, Clone)]
pub enum At {
    /// A listener of Envoy.
    Tcp(SocketAddr),
    /// A Unix socket, where no Envoy is on the path.
    Unix(PathBuf),
}

/// Anything that carries bytes both ways.
pub trait Io: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> Io for T {}

/// One connection.
pub struct Connection {
    io: Pin<Box<dyn Io>>,
    buf: Vec<u8>,
    host: String,
}

/// The head of an answer.
#[derive(Debug, Clone, Copy)]
pub struct Head {
    /// The status.
    pub status: u16,
    /// The body's length, if it was said.
    pub len: Option<u64>,
}

impl Door {
    /// A raw connection.
    pub async fn dial(&self) -> Result<Pin<Box<dyn Io>>> {
        let what = || format!("connect to {:?}", self.at);
        Ok(match &self.at {
            At::Tcp(addr) => {
                let tcp = TcpStream::connect(addr).await.with_context(what)?;
                tcp.set_nodelay(true)?;
                Box::pin(tcp)
            }
            At::Unix(path) => Box::pin(UnixStream::connect(path).await.with_context(what)?),
        })
    }

    /// The listener's address, for loads that need Envoy.
    pub fn tcp(&self) -> Result<SocketAddr> {
        match self.at {
            At::Tcp(addr) => Ok(addr),
            At::Unix(_) => bail!("this load needs Envoy on the path"),
        }
    }

    /// A connection for requests.
    pub async fn connect(&self) -> Result<Connection> {
        Ok(Connection {
            io: self.dial().await?,
            buf: Vec::with_capacity(64 * 1024),
            host: self.host.clone(),
        })
    }
}

impl Connection {
    /// GET of a small body: the status.
    pub async fn get(&mut self, path: &str) -> Result<u16> {
        let head = self.ask("GET", path, None).await?;
        let len = head.len.context("an answer without a length")?;
        let len = usize::try_from(len)?;
        while self.buf.len() < len {
            self.more().await?;
        }
        self.buf.drain(..len);
        Ok(head.status)
    }

    /// GET that must be answered with 200.
    pub async fn get_ok(&mut self, path: &str) -> Result<()> {
        let status = self.get(path).await?;
        ensure!(status == 200, "{path} of {}: {status}", self.host);
        Ok(())
    }

    /// Sends a request's head and reads the answer's.
    pub async fn ask(&mut self, method: &str, path: &str, len: Option<u64>) -> Result<Head> {
        self.begin(method, path, len).await?;
        self.head().await
    }

    /// Sends a request's head.
    pub async fn begin(&mut self, method: &str, path: &str, len: Option<u64>) -> Result<()> {
        let host = &self.host;
        let len = len.map_or(String::new(), |n| format!("content-length: {n}\r\n"));
        let request = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\n{len}\r\n");
        Ok(self.io.write_all(request.as_bytes()).await?)
    }

    /// Sends a piece of a request's body.
    pub async fn write(&mut self, piece: &[u8]) -> Result<()> {
        Ok(self.io.write_all(piece).await?)
    }

    /// Reads an answer's head.
    pub async fn head(&mut self) -> Result<Head> {
        let mut seen: usize = 0;
        let end = loop {
            let from = seen.saturating_sub(3);
            if let Some(at) = find(&self.buf[from..], b"\r\n\r\n") {
                break from + at + 4;
            }
            seen = self.buf.len();
            self.more().await?;
        };
        let head = parse(&self.buf[..end])?;
        self.buf.drain(..end);
        Ok(head)
    }

    /// Takes what has come of a body, into `buf`; 0 at the end.
    pub async fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        if !self.buf.is_empty() {
            let n = self.buf.len().min(buf.len());
            buf[..n].copy_from_slice(&self.buf[..n]);
            self.buf.drain(..n);
            return Ok(n);
        }
        Ok(self.io.read(buf).await?)
    }

    async fn more(&mut self) -> Result<()> {
        let n = self.io.read_buf(&mut self.buf).await?;
        ensure!(
            n > 0,
            "{} closed the connection before its answer",
            self.host
        );
        Ok(())
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}

fn parse(head: &[u8]) -> Result<Head> {
    let text = std::str::from_utf8(head).context("an answer's head")?;
    let status = text.split(' ').nth(1).and_then(|s| s.parse().ok());
    let status = status.with_context(|| format!("a status line: {text:?}"))?;
    let len = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse().ok())?
    });
    Ok(Head { status, len })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_says_status_and_length() {
        let head = parse(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 12\r\n\r\n");
        let head = head.expect("a head");
        assert_eq!((head.status, head.len), (503, Some(12)));
    }
}
