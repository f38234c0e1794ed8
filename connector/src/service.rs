//! Reaching the service: resolve once, screen, connect to what was resolved.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    time::Duration,
};

use adit_tunnel::Local;
use adit_wire::{ErrorClass, Host, HostPort};
use bytes::BytesMut;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::{
    io::{Interest, Ready},
    net::{TcpStream, UnixStream},
    time::{Instant, sleep, timeout_at},
};

use crate::{
    policy::{Grant, Service, Targets},
    resolve::Resolver,
};

/// The head start of one address over the next (RFC 8305 recommends 250 ms
/// and allows no less than 100; a service beside us answers sooner).
const HEAD_START: Duration = Duration::from_millis(150);
/// How long to wait before trying again what failed only for want of room: a
/// full backlog of a Unix socket, or no free file descriptor.
const NO_ROOM_WAIT: Duration = Duration::from_millis(20);
/// Dead services are noticed although nothing is sent: Linux's default is two
/// hours, longer than most middleboxes remember a connection.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// A connection to a service.
#[derive(Debug)]
pub(crate) struct Socket(Arc<Kind>);

/// Cuts a [`Socket`] that a splice owns, as long as it is open.
#[derive(Debug)]
pub(crate) struct Cutter(Weak<Kind>);

#[derive(Debug)]
enum Kind {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Why a service was not reached. The text is for the log of this machine.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReachError {
    #[error("{0} has no address")]
    NoAddress(HostPort),
    #[error("looking up {0}: {1}")]
    Lookup(HostPort, #[source] io::Error),
    #[error("a wildcard allows {0}, but it is at {1}, which a wildcard never reaches")]
    Screened(HostPort, SocketAddr),
    #[error("connecting to {0}: {1}")]
    Connect(Service, #[source] io::Error),
    #[error("no file descriptor is free for {0}; raise `ulimit -n` or lower max-streams")]
    NoRoom(Service),
    #[error("{0} was not reached in time")]
    Timeout(Service),
}

impl ReachError {
    /// What the dialer is told.
    pub(crate) fn class(&self) -> ErrorClass {
        match self {
            Self::Screened(..) => ErrorClass::Denied,
            Self::NoAddress(_) | Self::Lookup(..) | Self::Connect(..) => ErrorClass::Refused,
            Self::NoRoom(_) => ErrorClass::Overloaded,
            Self::Timeout(_) => ErrorClass::Timeout,
        }
    }
}

/// Connects to what a grant names; says also at which address, to check it
/// again when the lists change.
pub(crate) async fn reach(
    grant: &Grant,
    targets: &Targets,
    resolver: &Resolver,
    deadline: Instant,
) -> Result<(Socket, Option<SocketAddr>), ReachError> {
    reach_by(connect_tcp, grant, targets, resolver, deadline).await
}

/// As [`reach`], by another `connect`: tests record where it would go.
async fn reach_by<F>(
    connect: impl Fn(SocketAddr) -> F,
    grant: &Grant,
    targets: &Targets,
    resolver: &Resolver,
    deadline: Instant,
) -> Result<(Socket, Option<SocketAddr>), ReachError>
where
    F: Future<Output = io::Result<(TcpStream, SocketAddr)>>,
{
    match &grant.service {
        Service::Unix(path) => {
            let stream = until(&grant.service, deadline, || connect_unix(path)).await?;
            Ok((Socket(Arc::new(Kind::Unix(stream))), None))
        }
        Service::Tcp(at) => {
            let found = timeout_at(deadline, addresses(at, resolver)).await;
            let mut found = found.map_err(|_| ReachError::Timeout(grant.service.clone()))??;
            let first = *found
                .first()
                .ok_or_else(|| ReachError::NoAddress(at.clone()))?;
            if grant.screened {
                found.retain(|addr| targets.reaches(*addr));
                if found.is_empty() {
                    return Err(ReachError::Screened(at.clone(), first));
                }
            }
            interleave(&mut found);
            let (stream, addr) = until(&grant.service, deadline, || race(&connect, &found)).await?;
            Ok((Socket(Arc::new(Kind::Tcp(stream))), Some(addr)))
        }
    }
}

async fn addresses(at: &HostPort, resolver: &Resolver) -> Result<Vec<SocketAddr>, ReachError> {
    match &at.host {
        Host::Ip(ip) => Ok(vec![SocketAddr::new(*ip, at.port)]),
        Host::Name(name) => resolver
            .lookup(name, at.port)
            .await
            .map_err(|error| ReachError::Lookup(at.clone(), error)),
    }
}

/// Tries until `deadline`; again, where only room was missing.
async fn until<T, F>(
    service: &Service,
    deadline: Instant,
    attempt: impl Fn() -> F,
) -> Result<T, ReachError>
where
    F: Future<Output = io::Result<T>>,
{
    loop {
        let no_room = match timeout_at(deadline, attempt()).await {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(error)) if is_no_room(&error) => true,
            // Linux: connect() to a Unix socket whose backlog is full
            // (unix(7)). The service is there and busy.
            Ok(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => false,
            Ok(Err(error)) if error.kind() == io::ErrorKind::TimedOut => {
                return Err(ReachError::Timeout(service.clone()));
            }
            Ok(Err(error)) => return Err(ReachError::Connect(service.clone(), error)),
            Err(_) => return Err(ReachError::Timeout(service.clone())),
        };
        if timeout_at(deadline, sleep(NO_ROOM_WAIT)).await.is_err() {
            return Err(match no_room {
                true => ReachError::NoRoom(service.clone()),
                false => ReachError::Timeout(service.clone()),
            });
        }
    }
}

fn is_no_room(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// The first address that answers, each with a head start over the next; a
/// refusal starts the next at once (RFC 8305, section 5).
async fn race<F>(
    connect: impl Fn(SocketAddr) -> F,
    addrs: &[SocketAddr],
) -> io::Result<(TcpStream, SocketAddr)>
where
    F: Future<Output = io::Result<(TcpStream, SocketAddr)>>,
{
    let mut rest = addrs.iter().copied();
    let mut running = FuturesUnordered::new();
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    loop {
        match rest.next() {
            Some(addr) => running.push(connect(addr)),
            None if running.is_empty() => return Err(last),
            None => {}
        }
        let more = rest.len() > 0;
        tokio::select! {
            Some(result) = running.next() => match result {
                Ok(done) => return Ok(done),
                Err(error) => last = error,
            },
            () = sleep(HEAD_START), if more => {}
        }
    }
}

async fn connect_tcp(addr: SocketAddr) -> io::Result<(TcpStream, SocketAddr)> {
    let stream = TcpStream::connect(addr).await?;
    // The bytes were batched by QUIC already; Nagle would only hold them back.
    stream.set_nodelay(true)?;
    let keep_alive = socket2::TcpKeepalive::new()
        .with_time(KEEP_ALIVE)
        .with_interval(KEEP_ALIVE_INTERVAL);
    socket2::SockRef::from(&stream).set_tcp_keepalive(&keep_alive)?;
    Ok((stream, addr))
}

async fn connect_unix(path: &Path) -> io::Result<UnixStream> {
    match path.to_str().and_then(|text| text.strip_prefix('@')) {
        // tokio takes a leading zero byte for Linux's abstract names.
        Some(name) => UnixStream::connect(PathBuf::from(format!("\0{name}"))).await,
        None => UnixStream::connect(path).await,
    }
}

/// IPv6 and IPv4 by turns, in the resolver's order otherwise (RFC 8305,
/// section 4): one broken family delays a connection by one head start only.
fn interleave(addrs: &mut Vec<SocketAddr>) {
    let Some(first_is_v6) = addrs.first().map(SocketAddr::is_ipv6) else {
        return;
    };
    let (first, second): (Vec<_>, Vec<_>) = addrs
        .drain(..)
        .partition(|addr| addr.is_ipv6() == first_is_v6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    loop {
        match (first.next(), second.next()) {
            (None, None) => return,
            (a, b) => addrs.extend(a.into_iter().chain(b)),
        }
    }
}

impl Socket {
    pub(crate) fn cutter(&self) -> Cutter {
        Cutter(Arc::downgrade(&self.0))
    }
}

impl Cutter {
    /// Makes the close to come an abort.
    pub(crate) fn cut(&self) {
        if let Some(socket) = self.0.upgrade() {
            socket.cut();
        }
    }
}

impl Kind {
    fn cut(&self) {
        match self {
            Self::Tcp(stream) => {
                let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
            }
            // A close without a shutdown is the abort.
            Self::Unix(_) => {}
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &*self.0 {
            Kind::Tcp(stream) => stream.as_fd(),
            Kind::Unix(stream) => stream.as_fd(),
        }
    }
}

impl Local for Socket {
    async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        match &*self.0 {
            Kind::Tcp(stream) => stream.ready(interest).await,
            Kind::Unix(stream) => stream.ready(interest).await,
        }
    }

    fn try_read(&self, buf: &mut BytesMut) -> io::Result<usize> {
        match &*self.0 {
            Kind::Tcp(stream) => stream.try_read_buf(buf),
            Kind::Unix(stream) => stream.try_read_buf(buf),
        }
    }

    fn try_write(&self, bufs: &[io::IoSlice<'_>]) -> io::Result<usize> {
        match &*self.0 {
            Kind::Tcp(stream) => stream.try_write_vectored(bufs),
            Kind::Unix(stream) => stream.try_write_vectored(bufs),
        }
    }

    /// A service's close is its end, as `close()` is for most programs, over
    /// TCP and over a Unix socket alike; the handoff's rule that it is an abort
    /// binds only Adit's own parts. What a service did not read makes its
    /// close a reset, and that is an error on the socket.
    fn hung_up(&self) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut fds = [PollFd::new(self, PollFlags::empty())];
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        matches!(poll(&mut fds, Some(&now)), Ok(n) if n > 0)
            && fds[0].revents().contains(PollFlags::ERR)
    }

    fn abort(self) {
        self.0.cut();
    }
}

#[cfg(test)]
mod tests;
