//! A tunnel's QUIC stream, whose ends cannot be confused.
//!
//! noq finishes a send stream that is dropped, so that an aborted splice would
//! look like a clean end to the peer. These wrappers reset instead: only
//! [`TunnelSend::finish`] ends cleanly.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use iroh::endpoint::{ReadError, RecvStream, SendStream, VarInt, WriteError};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The code of an aborted tunnel's reset and stop. `iroh-http-proxy/1` gives
/// codes no meaning; 1 says "not zero" to whoever reads a packet trace.
pub const ABORT: VarInt = VarInt::from_u32(1);

/// The sending half. Dropped before [`finish`](Self::finish), it resets.
#[derive(Debug)]
pub struct TunnelSend {
    stream: SendStream,
    finished: bool,
}

/// The receiving half. Dropped before its end, it stops the peer.
#[derive(Debug)]
pub struct TunnelRecv {
    stream: RecvStream,
    ended: bool,
}

/// Both halves as one `AsyncRead + AsyncWrite`, for TLS inside a tunnel.
#[derive(Debug)]
pub struct TunnelIo {
    send: TunnelSend,
    recv: TunnelRecv,
    /// Bytes that were read together with the answer's head.
    buffered: Bytes,
}

impl TunnelSend {
    /// Takes over a stream.
    pub fn new(stream: SendStream) -> Self {
        Self {
            stream,
            finished: false,
        }
    }

    /// Sends all of `chunk`, waiting for the peer's window. Not cancel-safe.
    ///
    /// # Errors
    /// When the peer stopped the stream or the connection is lost.
    pub async fn write(&mut self, chunk: Bytes) -> Result<(), WriteError> {
        self.stream.write_chunk(chunk).await
    }

    /// Ends this half cleanly.
    pub fn finish(&mut self) {
        // An error says that the stream is closed already: nothing to end.
        let _ = self.stream.finish();
        self.finished = true;
    }

    /// Completes when the peer wants no more bytes or the connection is lost.
    /// Borrows nothing, so it can be awaited beside a write.
    pub fn stopped(&self) -> impl Future<Output = ()> + Send + 'static {
        let stopped = self.stream.stopped();
        async move {
            let _ = stopped.await;
        }
    }
}

impl Drop for TunnelSend {
    fn drop(&mut self) {
        if !self.finished {
            let _ = self.stream.reset(ABORT);
        }
    }
}

impl TunnelRecv {
    /// Takes over a stream.
    pub fn new(stream: RecvStream) -> Self {
        Self {
            stream,
            ended: false,
        }
    }

    /// Receives what is there into `chunks` without copying, and says how many
    /// were filled; `None` at the clean end. Cancel-safe.
    ///
    /// # Errors
    /// When the peer reset the stream or the connection is lost.
    pub async fn read_chunks(&mut self, chunks: &mut [Bytes]) -> Result<Option<usize>, ReadError> {
        let read = self.stream.read_many_chunks(chunks).await?;
        self.ended |= read.is_none();
        Ok(read)
    }

    /// Receives up to `max` bytes; `None` at the clean end. Cancel-safe.
    ///
    /// # Errors
    /// As [`read_chunks`](Self::read_chunks).
    pub async fn read(&mut self, max: usize) -> Result<Option<Bytes>, ReadError> {
        let read = self.stream.read_chunk(max).await?;
        self.ended |= read.is_none();
        Ok(read)
    }
}

impl Drop for TunnelRecv {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.stream.stop(ABORT);
        }
    }
}

impl TunnelIo {
    /// Both halves, and what was received already.
    pub fn new(send: TunnelSend, recv: TunnelRecv, buffered: Bytes) -> Self {
        Self {
            send,
            recv,
            buffered,
        }
    }
}

impl AsyncRead for TunnelIo {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.buffered.is_empty() {
            let n = this.buffered.len().min(buf.remaining());
            buf.put_slice(&this.buffered.split_to(n));
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let polled = AsyncRead::poll_read(Pin::new(&mut this.recv.stream), cx, buf);
        if matches!(polled, Poll::Ready(Ok(())))
            && buf.filled().len() == before
            && buf.remaining() > 0
        {
            this.recv.ended = true;
        }
        polled
    }
}

impl AsyncWrite for TunnelIo {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(&mut self.get_mut().send.stream), cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(&mut self.get_mut().send.stream), cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().send.finish();
        Poll::Ready(Ok(()))
    }
}
