//! A service that closes idle connections early, behind a slow path: a request
//! may set out just when the service hangs up, and nobody may send a POST twice.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use adit_tests::{
    client::http::{Client, full},
    stage::Plan,
};
use anyhow::{Context as _, Result, ensure};
use futures_util::future::join_all;
use http::Method;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    impair::{self, Weather},
    scenario::{Context, Scenario},
};

/// This part of the table.
pub const SCENARIOS: &[Scenario] = &[Scenario {
    name: "idle-race",
    fault: "a service with a keep-alive timeout of 1 s behind a path of 100 ms; POSTs with pauses of 0.6 to 1.2 s",
    promise: "no POST fails or is sent twice",
    quick: true,
    run: |context| Box::pin(idle_race(context)),
}];

/// The service's keep-alive timeout.
const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// The path's round trip.
const ROUND_TRIP: Duration = Duration::from_millis(100);
/// Services, each with a client of its own: no pool is shared. An advertisement
/// has at most 16.
const CLIENTS: u32 = 12;
/// The pauses between two POSTs. A request that leaves between 0.9 and 1.0 s
/// after the last answer came meets the service's end on its way.
const PAUSES: std::ops::Range<u32> = 600..1200;

/// HTTP/1.1 by hand: it counts what it closes, and what it got.
struct Service {
    addr: SocketAddr,
    posts: Arc<AtomicUsize>,
    closed: Arc<AtomicUsize>,
    _task: AbortOnDropHandle<()>,
}

impl Service {
    async fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let addr = listener.local_addr()?;
        let (posts, closed) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let (counted, ended) = (posts.clone(), closed.clone());
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                connections.spawn(serve(tcp, counted.clone(), ended.clone()));
            }
        });
        Ok(Self {
            addr,
            posts,
            closed,
            _task: AbortOnDropHandle::new(task),
        })
    }
}

async fn serve(
    mut tcp: TcpStream,
    posts: Arc<AtomicUsize>,
    closed: Arc<AtomicUsize>,
) -> Result<()> {
    tcp.set_nodelay(true)?;
    let mut got = Vec::new();
    loop {
        // A whole request: head, and a body of four bytes.
        let end = loop {
            if let Some(end) = got.windows(4).position(|w| w == b"\r\n\r\n")
                && got.len() >= end + 8
            {
                break end + 8;
            }
            match timeout(KEEP_ALIVE, tcp.read_buf(&mut got)).await {
                Err(_) => {
                    closed.fetch_add(1, Ordering::SeqCst);
                    return Ok(());
                }
                Ok(read) => {
                    if read? == 0 {
                        return Ok(());
                    }
                }
            }
        };
        got.drain(..end);
        posts.fetch_add(1, Ordering::SeqCst);
        tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
            .await?;
    }
}

async fn idle_race(context: &Context) -> Result<String> {
    let mut services = Vec::new();
    let mut plan = Plan::of(&context.version);
    for n in 0..CLIENTS {
        let service = Service::start().await?;
        plan = plan.service(&format!("idle-{n}"), format!("http://{}", service.addr));
        services.push(service);
    }
    let weather = Weather::default().round_trip(ROUND_TRIP);
    let (stage, _path) = impair::behind(plan, weather).await?;
    let addr = stage.addr();
    let rounds = context.scale(5, 40);
    let sent = (0..CLIENTS).map(|n| async move {
        let mut client = Client::http1(addr, &format!("idle-{n}.test")).await?;
        let mut failed = Vec::new();
        for round in 0..rounds {
            // Every pause comes once before one comes twice.
            let step = PAUSES.len() as u32 / (CLIENTS * rounds).min(PAUSES.len() as u32);
            let turn = (n + round * CLIENTS) * step.max(1) % PAUSES.len() as u32;
            let pause = Duration::from_millis((PAUSES.start + turn).into());
            let answer = client
                .send(Method::POST, "/", &[], full("post"))
                .await
                .with_context(|| format!("POST {round} of client {n}"))?;
            if answer.status != 200 {
                failed.push(format!(
                    "{} {}",
                    answer.status.as_u16(),
                    answer.text().trim()
                ));
            }
            sleep(pause).await;
        }
        anyhow::Ok(failed)
    });
    let mut failed = Vec::new();
    for result in join_all(sent).await {
        failed.extend(result?);
    }
    let sum = |of: fn(&Service) -> &AtomicUsize| -> usize {
        services.iter().map(|s| of(s).load(Ordering::SeqCst)).sum()
    };
    let (posts, closed) = (sum(|s| &s.posts), sum(|s| &s.closed));
    let asked = (CLIENTS * rounds) as usize;
    ensure!(
        failed.is_empty(),
        "{} of {asked} POSTs failed: {}; the service closed {closed} idle connections",
        failed.len(),
        failed[0]
    );
    ensure!(posts == asked, "the services got {posts} POSTs of {asked}");
    Ok(format!(
        "{asked} POSTs answered, each got once; the service closed {closed} idle connections"
    ))
}
