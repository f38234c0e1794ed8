//! Moving the bytes of one tunnel between a socket and a QUIC stream.
//!
//! Two pumps run in one task. Each ends cleanly at its reader's end of stream;
//! the tunnel is over when both have. Anything else ends both at once, as an
//! abort on both sides: a cut stream must never look like a clean end.
//!
//! Buffers are held only while bytes move: an idle tunnel owns none. Upwards
//! (socket → QUIC) the bytes read become the chunk that is sent, downwards the
//! received packets are written by one vectored write.

use std::{
    io::{self, IoSlice},
    pin::pin,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use bytes::{Buf as _, Bytes, BytesMut};
use iroh::endpoint::{ReadError, WriteError};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, Interest},
    time::{Instant, interval, sleep, timeout},
};

use crate::{
    Local,
    meter::Meter,
    stall,
    stream::{TunnelRecv, TunnelSend},
};

/// One read of the socket. Larger ones gain nothing over QUIC (measured:
/// 64 KiB against 8 KiB saves 5 to 13 % of CPU time, 256 KiB no more).
const READ_LEN: usize = 64 * 1024;
/// Reads up to this long are copied, so that a few bytes in flight do not keep
/// a whole read buffer alive until they are acknowledged.
const COPY_LEN: usize = 4 * 1024;
/// Packets written at once; IOV_MAX is 1024, and 64 of them fill READ_LEN.
const CHUNKS: usize = 64;
/// How soon a socket that hung up is noticed while its bytes wait for the
/// QUIC peer's window: nothing else would wake the pump.
const HANG_UP_CHECK: Duration = Duration::from_secs(1);
/// How long a finished tunnel waits for the peer to acknowledge its end. A
/// dead peer is noticed earlier, by the connection's idle timeout; a slow one
/// still gets its bytes as long as the connection lives.
const ACKNOWLEDGE: Duration = Duration::from_secs(60);
/// How long the reset waits when the socket was reset after it had spoken, as
/// by a server that answers 413 and closes. A QUIC reset overtakes what was
/// sent before it and discards it; TCP delivers that first.
const LAST_WORDS: Duration = Duration::from_millis(250);

/// Why a tunnel did not end cleanly.
#[derive(Debug, thiserror::Error)]
pub enum SpliceError {
    /// The socket failed.
    #[error("the socket: {0}")]
    Local(#[from] io::Error),
    /// The socket was closed without a clean end.
    #[error("the socket was closed without a clean end")]
    LocalAborted,
    /// The peer stopped reading, or the connection is lost.
    #[error("sending into the tunnel: {0}")]
    Send(#[from] WriteError),
    /// The peer wants no more bytes although we had not ended.
    #[error("the peer stopped the tunnel")]
    Stopped,
    /// The socket took nothing for a while, and so did too many others.
    #[error("the socket takes no bytes, and too many others hold up the connection likewise")]
    Stalled,
    /// The peer aborted, or the connection is lost.
    #[error("receiving from the tunnel: {0}")]
    Receive(#[from] ReadError),
    /// TLS inside the tunnel failed or was cut.
    #[error("TLS in the tunnel: {0}")]
    Tls(#[source] io::Error),
}

/// Moves bytes until both sides have ended. `buffered` was read from the
/// tunnel already and goes to the socket first.
///
/// # Errors
/// When the tunnel was cut; both sides have then been aborted.
pub async fn splice<L: Local>(
    local: L,
    mut send: TunnelSend,
    mut recv: TunnelRecv,
    buffered: Bytes,
    meter: &Meter,
) -> Result<(), SpliceError> {
    let we_shut_down = AtomicBool::new(false);
    let (broken, spoke) = (AtomicBool::new(false), AtomicBool::new(false));
    let mut stopped = pin!(send.stopped());
    let up = async {
        loop {
            tokio::select! {
                ready = local.ready(Interest::READABLE) => { ready?; }
                () = &mut stopped => return Err(SpliceError::Stopped),
            }
            let mut source = Source::new(&local);
            while let Some(read) = source.read()? {
                let Some(chunk) = read else {
                    if broken.load(Ordering::Relaxed) {
                        return Err(io::Error::from(io::ErrorKind::ConnectionReset).into());
                    }
                    return end_of(&local, &we_shut_down).map(|()| send.finish());
                };
                meter.add_sent(chunk.len());
                spoke.store(true, Ordering::Relaxed);
                let write = send.write(chunk);
                until_hang_up(&local, &we_shut_down, write).await??;
            }
        }
    };
    let write_down = async {
        write_all(&local, &mut [buffered], meter).await?;
        let mut chunks = [const { Bytes::new() }; CHUNKS];
        while let Some(n) = recv.read_chunks(&mut chunks).await? {
            write_all(&local, &mut chunks[..n], meter).await?;
        }
        Ok(())
    };
    let down = async {
        let written = write_down.await;
        match &written {
            Ok(()) => {
                we_shut_down.store(true, Ordering::Relaxed);
                local.shutdown_write();
            }
            // The socket was closed at its other end. What was said there
            // before is still in it: the other pump reads that, comes to the
            // end, and that ends the tunnel.
            Err(SpliceError::Local(_)) => {
                broken.store(true, Ordering::Relaxed);
                sleep(LAST_WORDS).await;
            }
            Err(_) => {}
        }
        written
    };
    match tokio::try_join!(up, down) {
        Ok(_) => {
            drop(local);
            acknowledged(stopped).await;
            Ok(())
        }
        Err(error) => {
            local.abort();
            if matches!(error, SpliceError::Local(_)) && spoke.into_inner() {
                sleep(LAST_WORDS).await;
            }
            Err(error)
        }
    }
}

/// As [`splice`], with TLS (or any other stream) between socket and tunnel.
/// `stopped` completes when the tunnel below wants no more bytes.
///
/// # Errors
/// As [`splice`]. A TLS stream that ends without `close_notify` was cut.
pub async fn splice_io<L: Local>(
    local: L,
    io: impl AsyncRead + AsyncWrite + Send,
    stopped: impl Future<Output = ()> + Send,
    meter: &Meter,
) -> Result<(), SpliceError> {
    let we_shut_down = AtomicBool::new(false);
    let (mut reader, mut writer) = tokio::io::split(io);
    let mut stopped = pin!(stopped);
    let up = async {
        loop {
            tokio::select! {
                ready = local.ready(Interest::READABLE) => { ready?; }
                () = &mut stopped => return Err(SpliceError::Stopped),
            }
            let mut source = Source::new(&local);
            while let Some(read) = source.read()? {
                let Some(chunk) = read else {
                    end_of(&local, &we_shut_down)?;
                    return writer.shutdown().await.map_err(SpliceError::Tls);
                };
                meter.add_sent(chunk.len());
                let write = async {
                    writer.write_all(&chunk).await?;
                    writer.flush().await
                };
                until_hang_up(&local, &we_shut_down, write)
                    .await?
                    .map_err(SpliceError::Tls)?;
            }
        }
    };
    let down = async {
        let mut buf = BytesMut::new();
        loop {
            // The large buffer is taken when bytes have come, and given back.
            let n = {
                let mut first = [0u8; 2048];
                let n = reader.read(&mut first).await.map_err(SpliceError::Tls)?;
                buf.extend_from_slice(&first[..n]);
                n
            };
            if n == 0 {
                break;
            }
            // One TLS record holds up to 16 KiB.
            buf.reserve(16 * 1024);
            while let Some(read) = now_or_none(reader.read_buf(&mut buf)).await {
                buf.reserve(16 * 1024);
                if read.map_err(SpliceError::Tls)? == 0 || buf.len() >= READ_LEN {
                    break;
                }
            }
            write_all(&local, &mut [std::mem::take(&mut buf).freeze()], meter).await?;
        }
        we_shut_down.store(true, Ordering::Relaxed);
        local.shutdown_write();
        Ok(())
    };
    match tokio::try_join!(up, down) {
        Ok(_) => {
            drop(local);
            acknowledged(stopped).await;
            Ok(())
        }
        Err(error) => {
            local.abort();
            Err(error)
        }
    }
}

/// Waits until the peer has all bytes of a stream that was finished. Whoever
/// closes the connection after its tunnels are over must not cut their tails.
async fn acknowledged(stopped: impl Future<Output = ()>) {
    let _ = timeout(ACKNOWLEDGE, stopped).await;
}

/// What a socket has to say while it has something: buffers live as long as
/// this value does.
struct Source<'a, L> {
    local: &'a L,
    buf: BytesMut,
}

impl<'a, L: Local> Source<'a, L> {
    fn new(local: &'a L) -> Self {
        Self {
            local,
            buf: BytesMut::new(),
        }
    }

    /// `None`: nothing there now. `Some(None)`: the end. Else some bytes.
    fn read(&mut self) -> io::Result<Option<Option<Bytes>>> {
        self.buf.reserve(READ_LEN);
        match self.local.try_read(&mut self.buf) {
            Ok(0) => Ok(Some(None)),
            Ok(n) if n <= COPY_LEN => {
                let chunk = Bytes::copy_from_slice(&self.buf);
                self.buf.clear();
                Ok(Some(Some(chunk)))
            }
            Ok(_) => Ok(Some(Some(self.buf.split().freeze()))),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(None),
            Err(e) => Err(e),
        }
    }
}

/// Whether the socket's end of stream is a clean one.
fn end_of(local: &impl Local, we_shut_down: &AtomicBool) -> Result<(), SpliceError> {
    // After our own shutdown a clean close looks the same as an abort; the
    // service had said all it had to say by then.
    if !we_shut_down.load(Ordering::Relaxed) && local.hung_up() {
        return Err(SpliceError::LocalAborted);
    }
    Ok(())
}

/// Runs `write`, unless the socket hangs up meanwhile.
async fn until_hang_up<T>(
    local: &impl Local,
    we_shut_down: &AtomicBool,
    write: impl Future<Output = T>,
) -> Result<T, SpliceError> {
    let mut write = pin!(write);
    // Most writes are done at once: no timer for them.
    if let Some(done) = now_or_none(&mut write).await {
        return Ok(done);
    }
    let mut check = interval(HANG_UP_CHECK);
    loop {
        tokio::select! {
            done = &mut write => return Ok(done),
            _ = check.tick() => end_of(local, we_shut_down)?,
        }
    }
}

/// Polls once.
async fn now_or_none<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    std::future::poll_fn(|cx| {
        std::task::Poll::Ready(match future.as_mut().poll(cx) {
            std::task::Poll::Ready(value) => Some(value),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

/// Writes all chunks to the socket, and lets go of each as it is written.
async fn write_all(
    local: &impl Local,
    mut chunks: &mut [Bytes],
    meter: &Meter,
) -> Result<(), SpliceError> {
    loop {
        while let Some(first) = chunks.first()
            && first.is_empty()
        {
            chunks = &mut chunks[1..];
        }
        if chunks.is_empty() {
            return Ok(());
        }
        let slices: [IoSlice<'_>; CHUNKS] =
            std::array::from_fn(|i| IoSlice::new(chunks.get(i).map_or(&[], |chunk| chunk)));
        match local.try_write(&slices[..chunks.len().min(CHUNKS)]) {
            Ok(mut n) => {
                meter.add_received(n);
                for chunk in chunks.iter_mut() {
                    let taken = n.min(chunk.len());
                    chunk.advance(taken);
                    n -= taken;
                    if chunk.is_empty() {
                        *chunk = Bytes::new();
                    }
                    if n == 0 {
                        break;
                    }
                }
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => writable(local, meter).await?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// Waits until the socket takes bytes, unless too many of them do not.
async fn writable(local: &impl Local, meter: &Meter) -> Result<(), SpliceError> {
    let mut ready = pin!(local.ready(Interest::WRITABLE));
    if let Ok(ready) = timeout(stall::LOOK, &mut ready).await {
        return Ok(ready.map(drop)?);
    }
    let begun = Instant::now() - stall::LOOK;
    let mut waiting = meter.stalls.begin();
    let mut look = interval(stall::LOOK);
    loop {
        tokio::select! {
            ready = &mut ready => return Ok(ready.map(drop)?),
            _ = look.tick() => if waiting.must_go(begun.elapsed()) {
                return Err(SpliceError::Stalled);
            },
        }
    }
}
