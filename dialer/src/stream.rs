//! One stream's life: choose a connector, open a tunnel, answer, move bytes.

use std::{
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use adit_tunnel::{
    splice::{SpliceError, splice, splice_io},
    status::selected_path,
    throttle::Throttle,
};
use adit_wire::{
    Connected, ErrorClass, Path, Protocol, Refusal, Target, Verdict, preface::Preface,
};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::{
    io::AsyncWriteExt as _,
    net::UnixStream,
    sync::OwnedSemaphorePermit,
    time::{Instant, sleep_until, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{
    client::Client,
    open::{OpenError, Tunnel, TunnelBytes, open},
    pool::{
        Connector, Count, Link, Pool,
        choice::{Choice, Step},
    },
    targets::{Targets, Usage},
    tls::TlsClient,
};

/// How often one stream tries a connector whose link broke before the answer.
const MAX_TRIES: u32 = 3;

/// What every stream shares.
pub struct Context {
    /// Links.
    pub pool: Arc<Pool>,
    /// TLS to services.
    pub tls: TlsClient,
    /// Live targets.
    pub targets: Arc<Targets>,
    /// Streams whose preface was read and that have not ended.
    pub serving: Arc<AtomicUsize>,
    /// Of the lines that say why a stream was refused.
    pub refusals: Throttle,
    /// Ends every stream at once.
    pub abort: CancellationToken,
}

/// A stream whose preface was read.
pub struct Opened {
    /// Envoy's socket, without a runtime.
    pub socket: std::os::unix::net::UnixStream,
    /// What it asked for.
    pub preface: Preface,
    /// What it sent behind that.
    pub early: Vec<u8>,
    /// When the preface was complete.
    pub at: Instant,
    /// Its place.
    pub place: Place,
}

/// A stream's place among the open sockets, and among those that a shutdown
/// waits for.
pub struct Place {
    _socket: OwnedSemaphorePermit,
    _serving: Count,
}

impl Place {
    /// Takes the place of a socket whose preface was read.
    pub fn new(socket: OwnedSemaphorePermit, ctx: &Context) -> Self {
        Self {
            _socket: socket,
            _serving: Count::new(&ctx.serving),
        }
    }
}

/// Serves a stream to its end. Runs on the shard of its first connector.
pub async fn serve(ctx: Arc<Context>, opened: Opened) {
    let Opened {
        socket,
        preface,
        mut early,
        at,
        place,
    } = opened;
    let Preface {
        target,
        wants_verdict,
    } = preface;
    let socket = match UnixStream::from_std(socket) {
        Ok(socket) => socket,
        Err(error) => {
            tracing::error!(%error, "a client's socket cannot be watched");
            return;
        }
    };
    let usage = ctx.targets.enter(&target);
    // A client that waits for no verdict has sent its first bytes already, and
    // they may travel with the request; inside TLS they may not.
    let with_request = if wants_verdict || target.protocol != Protocol::Tcp {
        Bytes::new()
    } else {
        std::mem::take(&mut early).into()
    };
    let mut client = Client::new(socket, &early);
    let outcome = tokio::select! {
        outcome = establish(&ctx, &target, with_request, at + target.deadline) => outcome,
        () = client.left() => {
            ctx.pool.metrics.left();
            tracing::debug!(target_name = target.name, "the client left before the verdict");
            return;
        }
        () = usage.revoked.cancelled() => Err(refusal(ErrorClass::Denied, "the target is gone")),
        () = ctx.abort.cancelled() => Err(refusal(ErrorClass::Internal, "the dialer is shutting down")),
    };
    let waited = at.elapsed();
    let verdict = match &outcome {
        Ok(tunnel) => {
            ctx.pool.metrics.verdict(None, waited);
            let (path, rtt) = path(tunnel);
            Verdict::Connected(Connected {
                connector: tunnel.connector.id,
                path,
                rtt,
            })
        }
        Err(refusal) => {
            ctx.pool.metrics.verdict(Some(refusal.class), waited);
            if let Some(left_out) = ctx.refusals.pass() {
                tracing::info!(
                    target_name = target.name,
                    service = %target.service,
                    class = %refusal.class,
                    reason = refusal.text,
                    left_out,
                    "refused"
                );
            }
            Verdict::Refused(refusal.clone())
        }
    };
    if wants_verdict && client.answer(&verdict.encode()).await.is_err() {
        return;
    }
    let Ok(tunnel) = outcome else { return };
    tunnel.connector.served(&target.name);
    let (socket, early) = client.into_parts();
    let shard = tunnel.connector.shard;
    let carry = Carry {
        tunnel,
        early,
        usage,
        _place: place,
    };
    if shard == ctx.pool.shard(target.connectors[0]) {
        carry.run(&ctx, socket, &target).await;
        return;
    }
    // Another connector than the first has won: its shard moves the bytes.
    match socket.into_std() {
        Ok(socket) => {
            let runtime = ctx.pool.runtime(shard).clone();
            runtime.spawn(async move {
                match UnixStream::from_std(socket) {
                    Ok(socket) => carry.run(&ctx, socket, &target).await,
                    Err(error) => tracing::error!(%error, "a client's socket cannot be watched"),
                }
            });
        }
        Err(error) => tracing::error!(%error, "a client's socket cannot change threads"),
    }
}

/// A tunnel with all it holds on to while bytes move.
struct Carry {
    tunnel: Tunnel,
    early: Bytes,
    usage: Usage,
    _place: Place,
}

impl Carry {
    async fn run(self, ctx: &Context, socket: UnixStream, target: &Target) {
        let Tunnel {
            connector,
            link,
            bytes,
            admission: _admission,
        } = self.tunnel;
        let meter = &connector.meter;
        let early = self.early;
        let bytes = async {
            match bytes {
                TunnelBytes::Plain(mut send, recv, buffered) => {
                    if !early.is_empty() {
                        meter.add_sent(early.len());
                        send.write(early).await?;
                    }
                    splice(socket, send, recv, buffered, meter).await
                }
                TunnelBytes::Tls(mut stream, stopped) => {
                    if !early.is_empty() {
                        meter.add_sent(early.len());
                        let sent = stream.write_all(&early).await;
                        sent.map_err(SpliceError::Tls)?;
                    }
                    splice_io(socket, stream, stopped, meter).await
                }
            }
        };
        // Dropping the splice aborts both sides.
        let result = tokio::select! {
            result = bytes => result.map_err(|e| e.to_string()),
            () = link.lost.cancelled() => Err("the connection to the connector was lost".into()),
            () = self.usage.revoked.cancelled() => Err("the target is gone".into()),
            () = ctx.abort.cancelled() => Err("the dialer is shutting down".into()),
        };
        ctx.pool.metrics.ended(result.is_ok());
        if let Err(reason) = result {
            tracing::debug!(
                target_name = target.name,
                connector = %connector.id.short(),
                reason,
                "a tunnel was cut"
            );
        }
    }
}

/// Finds a connector and opens a tunnel through it. A refusal is one that any
/// other stream of the target would get as well: Envoy fails them all with it.
async fn establish(
    ctx: &Arc<Context>,
    target: &Target,
    early: Bytes,
    deadline: Instant,
) -> Result<Tunnel, Refusal> {
    let pool = &ctx.pool;
    let connectors = target
        .connectors
        .iter()
        .map(|id| pool.connector(*id))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| refusal(ErrorClass::Misconfigured, &e.to_string()))?;
    let mut choice = Choice::new(connectors.iter().map(|c| c.is_live()));
    let mut tries = vec![0; connectors.len()];
    let mut dials = FuturesUnordered::new();
    let mut reasons: Vec<String> = Vec::new();
    loop {
        let until = match choice.step(std::time::Instant::now()) {
            Step::Start(i) => {
                let connector = connectors[i].clone();
                tries[i] += 1;
                dials.push(async move { (i, wait_for_link(pool, connector).await) });
                continue;
            }
            Step::Refuse(class) => return Err(refusal(class, &reasons.join("; "))),
            Step::Wait(until) => until.map_or(deadline, |at| deadline.min(at.into())),
        };
        let (i, link) = tokio::select! {
            Some(done) = dials.next() => done,
            () = sleep_until(until) => {
                if Instant::now() >= deadline {
                    reasons.push("no connector answered in time".into());
                    return Err(refusal(ErrorClass::Timeout, &reasons.join("; ")));
                }
                continue;
            }
        };
        let (queued, link) = match link {
            Ok(ready) => ready,
            Err((class, text)) => {
                reasons.push(text);
                choice.failed(i, class);
                continue;
            }
        };
        let connector = &connectors[i];
        // Each candidate that is left gets a fair share of what is left.
        let left = deadline.saturating_duration_since(Instant::now());
        let until = Instant::now() + left / u32::try_from(choice.left().max(1)).unwrap_or(1);
        let opening = open(
            pool,
            &ctx.tls,
            connector.clone(),
            link.clone(),
            target,
            early.clone(),
            until,
        );
        let error = match timeout_at(deadline, opening).await {
            Ok(Ok(tunnel)) => return Ok(tunnel),
            Ok(Err(error)) => error,
            Err(_) => OpenError::Timeout("opening the tunnel"),
        };
        drop(queued);
        let (class, text) = (error.class(), error.to_string());
        connector.note(class, &text);
        reasons.push(format!("connector {}: {text}", connector.id.short()));
        let lost = matches!(error, OpenError::Lost(_));
        if lost {
            connector.lost(&link, class, &text);
        }
        // Bytes of the client may have reached the service: not a second time.
        if !early.is_empty() {
            return Err(refusal(class, &reasons.join("; ")));
        }
        if lost && class == ErrorClass::Offline && tries[i] < MAX_TRIES {
            choice.again(i);
        } else {
            choice.failed(i, class);
        }
    }
}

/// A link, and the place in the queue for it.
type Ready = (Count, Arc<Link>);

/// Waits for a connector's link in its queue.
async fn wait_for_link(
    pool: &Arc<Pool>,
    connector: Arc<Connector>,
) -> Result<Ready, (ErrorClass, String)> {
    let queued = connector.enqueue(pool).map_err(|_| {
        let error = OpenError::QueueFull;
        (error.class(), error.to_string())
    })?;
    match connector.link(pool).await {
        Ok(link) => Ok((queued, link)),
        Err(failure) => Err((failure.class, failure.to_string())),
    }
}

fn path(tunnel: &Tunnel) -> (Path, Duration) {
    selected_path(&tunnel.link.connection)
        .map_or((Path::Direct, Duration::ZERO), |(path, _, rtt)| (path, rtt))
}

fn refusal(class: ErrorClass, text: &str) -> Refusal {
    Refusal {
        class,
        text: text.into(),
    }
}
