//! One stream's life: read its head, ask the lists, wait for a place, reach
//! the service, answer, move the bytes.

use std::{net::SocketAddr, pin::pin, sync::Arc};

use adit_tunnel::{
    Local as _,
    splice::{SpliceError, splice},
    stream::{TunnelRecv, TunnelSend},
};
use adit_wire::{
    ErrorClass, HostPort,
    connect::{HeadError, MAX_HEAD, decode_request, encode_answer},
};
use bytes::{Buf as _, Bytes, BytesMut};
use iroh::endpoint::{ReadError, RecvStream, SendStream};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use crate::{
    Shared,
    dialers::Dialer,
    limits::{NoPlace, Place},
    metrics::End,
    policy::{Grant, Policy},
    service::{ReachError, Socket, reach},
};

/// Serves one stream to its end.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    dialer: Arc<Dialer>,
    send: SendStream,
    recv: RecvStream,
) {
    let _open = dialer.open();
    let stream = Stream {
        shared: &shared,
        dialer: &dialer,
        policy: shared.lists.subscribe(),
        send: TunnelSend::new(send),
        recv: TunnelRecv::new(recv),
    };
    let end = stream.run().await;
    shared.metrics.ended(end);
}

struct Stream<'a> {
    shared: &'a Shared,
    dialer: &'a Dialer,
    policy: watch::Receiver<Arc<Policy>>,
    send: TunnelSend,
    recv: TunnelRecv,
}

#[derive(Debug, thiserror::Error)]
enum BadHead {
    #[error("the head did not come in time")]
    Late,
    #[error("the stream ended within its head")]
    Cut,
    #[error("the stream was cut within its head: {0}")]
    Read(#[from] ReadError),
    #[error(transparent)]
    Head(#[from] HeadError),
}

/// What became of a request before its answer.
enum Reached {
    Service(Place, Socket, Option<SocketAddr>),
    Failed(ErrorClass, String),
    Left,
    Revoked,
    Shutdown,
}

impl Stream<'_> {
    async fn run(mut self) -> End {
        let head = timeout(self.shared.times.head, read_head(&mut self.recv)).await;
        let (request, early) = match head.unwrap_or(Err(BadHead::Late)) {
            Ok(read) => read,
            Err(error) => {
                self.dialer.failed(error.to_string());
                tracing::debug!(dialer = %self.dialer.id.short(), %error, "a stream without a request");
                return match error {
                    // Whoever speaks HTTP is told; the others are cut.
                    BadHead::Head(_) => self.refuse(ErrorClass::Misconfigured).await,
                    BadHead::Late => self.refuse(ErrorClass::Timeout).await,
                    BadHead::Cut | BadHead::Read(_) => End::BadHead,
                };
            }
        };
        if self.shared.draining.is_cancelled() {
            return self.refuse(ErrorClass::Offline).await;
        }
        let policy = self.policy.borrow_and_update().clone();
        let Some(grant) = policy.targets.grant(&request) else {
            return self.deny(&request, "it is not advertised").await;
        };
        let (place, socket, addr) = match self.reach(&policy, &request, &grant).await {
            Reached::Service(place, socket, addr) => (place, socket, addr),
            Reached::Failed(ErrorClass::Denied, why) => return self.deny(&request, &why).await,
            Reached::Failed(class, why) => {
                self.dialer.failed(why.clone());
                if let Some(left_out) = self.shared.failed_log.pass() {
                    tracing::warn!(
                        dialer = %self.dialer.id.short(), %request, %class, error = why, left_out,
                        "a service was not reached"
                    );
                }
                return self.refuse(class).await;
            }
            Reached::Left => return End::Left,
            Reached::Revoked => return self.deny(&request, "it is no longer advertised").await,
            Reached::Shutdown => return End::Shutdown,
        };
        // The lists may have changed while the address was not known yet.
        let now = self.policy.borrow_and_update().clone();
        if !holds(&now, &request, &grant, addr) {
            return self.deny(&request, "it is no longer advertised").await;
        }
        let end = self.carry(&request, &grant, socket, addr, early).await;
        drop(place);
        end
    }

    /// From a grant to a connected service, unless something ends the wait.
    async fn reach(&mut self, policy: &Policy, request: &HostPort, grant: &Grant) -> Reached {
        let shared = self.shared;
        let share = &self.dialer.share;
        let attempt = async {
            let place = match share.place().await {
                Ok(place) => place,
                Err(why) => {
                    let class = match why {
                        NoPlace::QueueFull => ErrorClass::Overloaded,
                        NoPlace::Timeout => ErrorClass::Timeout,
                    };
                    return Reached::Failed(class, why.to_string());
                }
            };
            let start = Instant::now();
            let deadline = start + shared.times.connect;
            let reached = reach(grant, &policy.targets, &shared.resolver, deadline).await;
            shared.metrics.reached(start.elapsed().as_secs_f64());
            match reached {
                Ok((socket, addr)) => Reached::Service(place, socket, addr),
                Err(error) => Reached::Failed(ReachError::class(&error), error.to_string()),
            }
        };
        tokio::select! {
            reached = attempt => reached,
            () = self.send.stopped() => Reached::Left,
            () = revoked(&mut self.policy, request, grant, None) => Reached::Revoked,
            () = shared.cut.cancelled() => Reached::Shutdown,
        }
    }

    /// Says yes and moves the bytes.
    async fn carry(
        mut self,
        request: &HostPort,
        grant: &Grant,
        socket: Socket,
        addr: Option<SocketAddr>,
        early: Bytes,
    ) -> End {
        tracing::debug!(dialer = %self.dialer.id.short(), %request, service = %grant.service, "a tunnel stands");
        let meter = &self.dialer.meter;
        let (mut send, recv) = (self.send, self.recv);
        let cutter = socket.cutter();
        let bytes = async move {
            // Sent before the service's first bytes are read, so that both
            // leave in one packet where they come together.
            let yes = Bytes::from(encode_answer(Ok(())));
            if let Err(error) = send.write(yes).await {
                socket.abort();
                return Err(error.into());
            }
            splice(socket, send, recv, early, meter).await
        };
        let mut bytes = pin!(bytes);
        let end = tokio::select! {
            result = &mut bytes => match result {
                Ok(()) => return End::Clean,
                Err(error) => {
                    tracing::debug!(dialer = %self.dialer.id.short(), %request, %error, "a tunnel was cut");
                    // A client that leaves is no fault of the dialer's or the
                    // service's: it does not cover the last one that was.
                    if !matches!(error, SpliceError::Stopped | SpliceError::Receive(_)) {
                        self.dialer.failed(format!("{request}: {error}"));
                    }
                    return End::Aborted;
                }
            },
            () = revoked(&mut self.policy, request, grant, addr) => End::Revoked,
            () = self.shared.cut.cancelled() => End::Shutdown,
        };
        // What follows drops the splice: that resets the stream, and now the
        // service sees an abort as well.
        cutter.cut();
        if end == End::Revoked {
            tracing::info!(
                dialer = %self.dialer.id.short(), %request,
                "a tunnel was cut: its target is no longer advertised"
            );
        }
        end
    }

    async fn deny(self, request: &HostPort, why: &str) -> End {
        let text = format!("{request} was denied: {why}");
        if let Some(left_out) = self.shared.denied_log.pass() {
            tracing::warn!(dialer = %self.dialer.id.short(), left_out, "{text}");
        }
        self.dialer.failed(text);
        self.refuse(ErrorClass::Denied).await
    }

    /// Says no. The dialer reads the answer although its own bytes are no
    /// longer wanted: dropping `recv` stops only them.
    async fn refuse(mut self, class: ErrorClass) -> End {
        let no = Bytes::from(encode_answer(Err(class)));
        // The answer is far below a stream's first window: it waits for
        // nothing but a lost connection.
        if let Ok(Ok(())) = timeout(self.shared.times.head, self.send.write(no)).await {
            self.send.finish();
        }
        End::Failed(class)
    }
}

/// Completes when the lists no longer allow what they granted.
async fn revoked(
    policy: &mut watch::Receiver<Arc<Policy>>,
    request: &HostPort,
    granted: &Grant,
    addr: Option<SocketAddr>,
) {
    loop {
        if policy.changed().await.is_err() {
            // The connector is going away, which `cut` tells.
            return std::future::pending().await;
        }
        if !holds(&policy.borrow_and_update(), request, granted, addr) {
            return;
        }
    }
}

/// Whether a grant is still what the lists say: its target is there, leads to
/// the same service, and has not become a wildcard that does not reach `addr`.
fn holds(policy: &Policy, request: &HostPort, granted: &Grant, addr: Option<SocketAddr>) -> bool {
    policy.targets.grant(request).is_some_and(|now| {
        let reaches = addr.is_none_or(|addr| policy.targets.reaches(addr));
        now.service == granted.service && (!now.screened || reaches)
    })
}

/// Reads a request, and what came with it.
async fn read_head(recv: &mut TunnelRecv) -> Result<(HostPort, Bytes), BadHead> {
    let mut head = BytesMut::new();
    loop {
        let chunk = recv.read(MAX_HEAD).await?.ok_or(BadHead::Cut)?;
        // Nearly always the whole head is one chunk: nothing is copied then.
        let mut seen = match head.is_empty() {
            true => chunk,
            false => {
                head.extend_from_slice(&chunk);
                head.split().freeze()
            }
        };
        match decode_request(&seen)? {
            Some((request, len)) => {
                seen.advance(len);
                return Ok((request, seen));
            }
            None => head = BytesMut::from(seen),
        }
    }
}
