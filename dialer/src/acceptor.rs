//! Takes Envoy's connections and reads their prefaces, on a thread of its own:
//! neither ever waits for a shard that moves bytes, nor a shard for them.

use std::{io, sync::Arc, time::Duration};

use adit_tunnel::throttle::Throttle;
use adit_wire::preface::{self, Preface, PrefaceError};
use bytes::BytesMut;
use tokio::{
    io::Interest,
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    metrics::Metrics,
    options::Limits,
    stream::{Context, Opened, Place, serve},
};

/// Prefaces that are read at once. One takes microseconds, for the filter
/// writes it at once; whoever writes none is cut after the preface timeout.
const MAX_PENDING: usize = 1024;
/// After a failed accept, which without descriptors would fail again at once.
const PAUSE: Duration = Duration::from_millis(50);

/// Takes connections until `shutdown`.
pub async fn accept(
    listener: std::os::unix::net::UnixListener,
    ctx: Arc<Context>,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let listener = UnixListener::from_std(listener)?;
    let limits = ctx.pool.limits;
    let places = Arc::new(Semaphore::new(limits.connections));
    let pending = Arc::new(Semaphore::new(MAX_PENDING));
    let (failures, refusals) = (Throttle::bursts(10), Throttle::default());
    let (report, mut reports) = tokio::sync::mpsc::channel::<ReadError>(16);
    loop {
        // Both places first: beyond the limits clients wait in the backlog.
        let next = async {
            let place = places.clone().acquire_owned().await.ok()?;
            let reading = pending.clone().acquire_owned().await.ok()?;
            Some((listener.accept().await, place, reading))
        };
        let (accepted, place, reading) = tokio::select! {
            next = next => match next {
                Some(next) => next,
                None => return Ok(()),
            },
            Some(error) = reports.recv() => {
                if let Some(left_out) = refusals.pass() {
                    tracing::warn!(%error, left_out, "a connection to the socket was closed: is it an adit cluster's?");
                }
                continue;
            }
            () = shutdown.cancelled() => return Ok(()),
        };
        let socket = match accepted {
            Ok((socket, _)) => socket,
            Err(error) => {
                ctx.pool.metrics.accept_failed();
                if let Some(left_out) = failures.pass() {
                    tracing::error!(%error, left_out, "no connection can be accepted now; clients wait (raise the limit of open files?)");
                }
                tokio::select! {
                    () = sleep(PAUSE) => continue,
                    () = shutdown.cancelled() => return Ok(()),
                }
            }
        };
        ctx.pool.metrics.accepted();
        let (ctx, report) = (ctx.clone(), report.clone());
        tokio::spawn(async move {
            let read = read_preface(&socket, &limits, &ctx.pool.metrics).await;
            drop(reading);
            match read {
                Ok((preface, early)) => match socket.into_std() {
                    Ok(socket) => {
                        let shard = ctx.pool.shard(preface.target.connectors[0]);
                        let runtime = ctx.pool.runtime(shard).clone();
                        let at = Instant::now();
                        let place = Place::new(place, &ctx);
                        runtime.spawn(serve(
                            ctx,
                            Opened {
                                socket,
                                preface,
                                early,
                                at,
                                place,
                            },
                        ));
                    }
                    Err(error) => {
                        tracing::error!(%error, "a client's socket cannot change threads");
                    }
                },
                Err(ReadError::Left) => {}
                Err(error) => {
                    // A full channel means that enough is being said.
                    let _ = report.try_send(error);
                }
            }
        });
    }
}

/// Why a connection got no further than its preface.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Not a preface.
    #[error(transparent)]
    Preface(#[from] PrefaceError),
    /// Closed before its first byte, as a health check that only connects does.
    #[error("closed before the first byte")]
    Left,
    /// Closed within it.
    #[error("closed within the preface")]
    Cut,
    /// Too slow.
    #[error("the preface took longer than --preface-timeout")]
    Timeout,
    /// The socket failed.
    #[error("reading the preface: {0}")]
    Io(#[from] io::Error),
}

/// A preface, and what came behind it.
async fn read_preface(
    socket: &UnixStream,
    limits: &Limits,
    metrics: &Metrics,
) -> Result<(Preface, Vec<u8>), ReadError> {
    let read = async {
        let mut buf = BytesMut::with_capacity(1024);
        loop {
            socket.ready(Interest::READABLE).await?;
            // At most a full header and a little of what follows is held here.
            buf.reserve(1024);
            match socket.try_read_buf(&mut buf) {
                Ok(0) if buf.is_empty() => return Err(ReadError::Left),
                Ok(0) => return Err(ReadError::Cut),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => continue,
                Err(e) => return Err(e.into()),
            }
            debug_assert!(buf.len() <= 2 * preface::MAX_LEN + 2048);
            if let Some((preface, len)) = Preface::decode(&buf)? {
                return Ok((preface, buf[len..].to_vec()));
            }
        }
    };
    let result = timeout(limits.preface_timeout, read)
        .await
        .unwrap_or(Err(ReadError::Timeout));
    if let Err(error) = &result {
        metrics.preface_failed(match error {
            ReadError::Preface(_) => "invalid",
            ReadError::Left | ReadError::Cut => "closed",
            ReadError::Timeout => "timeout",
            ReadError::Io(_) => "io",
        });
    }
    result
}
