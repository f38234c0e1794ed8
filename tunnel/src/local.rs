//! The socket at a tunnel's near end: Envoy's Unix socket at the dialer, the
//! service's TCP or Unix socket at the connector.

use std::{io, os::fd::AsFd};

use rustix::event::{PollFd, PollFlags, poll};
use tokio::{
    io::{Interest, Ready},
    net::{TcpStream, UnixStream},
};

/// A stream socket that can be half-closed and aborted.
pub trait Local: AsFd + Send + Sync + 'static {
    /// Waits until one of `interest` may succeed.
    fn ready(&self, interest: Interest) -> impl Future<Output = io::Result<Ready>> + Send;

    /// Reads what is there into the spare room of `buf`; 0 at the end.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there.
    fn try_read(&self, buf: &mut bytes::BytesMut) -> io::Result<usize>;

    /// Writes what fits.
    ///
    /// # Errors
    /// `WouldBlock` when nothing fits.
    fn try_write(&self, bufs: &[io::IoSlice<'_>]) -> io::Result<usize>;

    /// Ends our half cleanly; the other half goes on.
    fn shutdown_write(&self) {
        // The peer may be gone already; then there is nothing to end.
        let _ = rustix::net::shutdown(self.as_fd(), rustix::net::Shutdown::Write);
    }

    /// Whether the peer has closed both directions, or reset. While we have
    /// not shut down our half, that is an abort (a Unix socket has no RST:
    /// `close()` shows as POLLHUP, `shutdown(WR)` as POLLRDHUP only).
    fn hung_up(&self) -> bool {
        let fd = self.as_fd();
        let mut fds = [PollFd::new(&fd, PollFlags::RDHUP)];
        let now = rustix::event::Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        match poll(&mut fds, Some(&now)) {
            Ok(0) => false,
            Ok(_) => fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR),
            Err(_) => false,
        }
    }

    /// Closes so that the peer cannot take it for a clean end.
    fn abort(self);
}

impl Local for UnixStream {
    async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        UnixStream::ready(self, interest).await
    }

    fn try_read(&self, buf: &mut bytes::BytesMut) -> io::Result<usize> {
        self.try_read_buf(buf)
    }

    fn try_write(&self, bufs: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.try_write_vectored(bufs)
    }

    /// A close without a shutdown is the abort.
    fn abort(self) {}
}

impl Local for TcpStream {
    async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        TcpStream::ready(self, interest).await
    }

    fn try_read(&self, buf: &mut bytes::BytesMut) -> io::Result<usize> {
        self.try_read_buf(buf)
    }

    fn try_write(&self, bufs: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.try_write_vectored(bufs)
    }

    /// A zero linger time makes the close a RST.
    fn abort(self) {
        let _ = socket2::SockRef::from(&self).set_linger(Some(std::time::Duration::ZERO));
    }
}
