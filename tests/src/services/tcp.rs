//! TCP services, well-behaved and not.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Result;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};
use tokio_util::task::AbortOnDropHandle;

use super::{Record, any_port, listen};
use crate::pattern::{Hasher, Pattern};

/// What a TCP service does with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Sends back what comes; at the client's end of stream, a closing line
    /// (see [`closing_line`]), then its own end. Proves half-close.
    Echo,
    /// Says `banner\n`, closes at once.
    ClosesFirst,
    /// Says `banner\n`, then resets.
    Resets,
    /// Accepts and never reads a byte.
    NeverReads,
    /// Reads everything, then answers with the closing line.
    Sink,
    /// Sends so many bytes of [`Pattern`] 1, then its end, then reads.
    Source(u64),
}

/// A running TCP service; dropping it closes listener and connections.
pub struct TcpService {
    /// Where it listens.
    pub addr: SocketAddr,
    /// How many connections it saw.
    pub record: Arc<Record>,
    _task: AbortOnDropHandle<()>,
}

/// What [`Manner::Echo`] and [`Manner::Sink`] say last.
pub fn closing_line(len: u64, sha256: &str) -> String {
    format!("\nend {len} {sha256}\n")
}

impl TcpService {
    /// Starts one on a free port.
    pub fn start(manner: Manner) -> Result<Self> {
        Self::start_at(any_port(), manner)
    }

    /// Starts one at an address, where another may have been.
    pub fn start_at(addr: SocketAddr, manner: Manner) -> Result<Self> {
        let listener = listen(addr)?;
        let addr = listener.local_addr()?;
        let record = Arc::new(Record::default());
        let counted = record.clone();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                while connections.try_join_next().is_some() {}
                let Ok((tcp, _)) = listener.accept().await else {
                    continue;
                };
                let open = counted.connection();
                connections.spawn(async move {
                    let _open = open;
                    let _ = tcp.set_nodelay(true);
                    let _ = behave(tcp, manner).await;
                });
            }
        });
        Ok(Self {
            addr,
            record,
            _task: AbortOnDropHandle::new(task),
        })
    }
}

async fn behave(mut tcp: TcpStream, manner: Manner) -> std::io::Result<()> {
    match manner {
        Manner::Echo | Manner::Sink => {
            let mut hasher = Hasher::default();
            let mut buffer = vec![0; 64 * 1024];
            loop {
                let n = tcp.read(&mut buffer).await?;
                if n == 0 {
                    break;
                }
                hasher.update(&buffer[..n]);
                if manner == Manner::Echo {
                    tcp.write_all(&buffer[..n]).await?;
                }
            }
            let len = hasher.len();
            let line = closing_line(len, &hasher.finish());
            tcp.write_all(line.as_bytes()).await?;
            tcp.shutdown().await
        }
        Manner::ClosesFirst => {
            tcp.write_all(b"banner\n").await?;
            tcp.shutdown().await
        }
        Manner::Resets => {
            tcp.write_all(b"banner\n").await?;
            // The first byte of the client shows that the tunnel stands.
            tcp.read_u8().await?;
            // Linger of zero: close() sends RST.
            socket2::SockRef::from(&tcp).set_linger(Some(Duration::ZERO))
        }
        Manner::NeverReads => {
            while !hung_up(&tcp) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Ok(())
        }
        Manner::Source(len) => {
            let mut pattern = Pattern::new(1);
            let mut left = len;
            while left > 0 {
                let piece = pattern.next_piece(left);
                left -= piece.len() as u64;
                tcp.write_all(&piece).await?;
            }
            tcp.shutdown().await?;
            tokio::io::copy(&mut tcp, &mut tokio::io::sink()).await?;
            Ok(())
        }
    }
}

/// Whether the other side has reset the connection or ended both ways; found
/// out without reading, which tokio's readiness cannot do.
fn hung_up(tcp: &TcpStream) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds = [PollFd::new(tcp, PollFlags::RDHUP)];
    let at_once = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let _ = poll(&mut fds, Some(&at_once));
    fds[0]
        .revents()
        .intersects(PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR)
}
