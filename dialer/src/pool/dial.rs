//! Making a link: one dial at a time for each connector, over all its
//! addresses at once, following it when it moves meanwhile.

use std::{sync::Arc, time::Duration};

use adit_tunnel::endpoint::EndpointConfig;
use adit_wire::connect::ALPN;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use iroh::{
    Endpoint, RelayMap, TransportAddr,
    endpoint::{ConnectError, Connection, ConnectionError},
};
use tokio::time::{Instant, timeout};

use super::{Connector, Count, Link, Pool, link};
use crate::discovery::{Addresses, Freshness};

/// How often discovery is asked again while a dial is under way.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
const FIRST_LOOK: Duration = Duration::from_millis(100);
/// Beyond the idle timeout, which ends one attempt: for attempts that start
/// again because the connector has moved.
const EXTRA_TIME: Duration = Duration::from_secs(3);
/// For streams to let go of the old link.
const LET_GO: Duration = Duration::from_millis(500);

/// Dials, and tells everybody who waits.
pub(super) async fn run(pool: Arc<Pool>, connector: Arc<Connector>, old: Option<Arc<Link>>) {
    let mut unfinished = Unfinished(Some(connector.clone()));
    let started = Instant::now();
    if let Some(old) = old {
        let_go(old).await;
    }
    let limit = pool.endpoint.max_idle + EXTRA_TIME;
    let result = match timeout(limit, connect(&pool, &connector)).await {
        Ok(result) => result,
        Err(_) => Err("no answer from any of its addresses".into()),
    };
    unfinished.0 = None;
    pool.metrics.dialled(result.is_ok(), started.elapsed());
    match result {
        Ok((connection, addresses, endpoint)) => {
            let live = Count::new(&pool.live);
            let link = Arc::new(Link::new(connection, addresses, endpoint, live));
            tracing::info!(connector = %connector.id.short(), after = ?started.elapsed(), "connected");
            connector.dialled(link.clone());
            tokio::spawn(link::watch(pool, connector, link));
        }
        Err(text) => {
            tracing::info!(connector = %connector.id.short(), reason = text, "the dial failed");
            connector.dial_failed(&text);
        }
    }
}

/// A dial that never ended (a panic) must not keep everybody waiting for ever.
struct Unfinished(Option<Arc<Connector>>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(connector) = self.0.take() {
            connector.dial_failed("the dial was given up");
        }
    }
}

/// iroh sends the packets of a new dial to the address of an open connection
/// with the same key, so the old one is closed first, and gone.
async fn let_go(old: Arc<Link>) {
    old.close(b"redial");
    let _ = timeout(LET_GO, old.connection.closed()).await;
    let weak = Arc::downgrade(&old);
    drop(old);
    let gone = async {
        while weak.strong_count() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let _ = timeout(LET_GO, gone).await;
}

type Dialled = (Connection, Addresses, Option<Endpoint>);

async fn connect(pool: &Pool, connector: &Connector) -> Result<Dialled, String> {
    let id = connector.id;
    let found = pool.discovery.resolve_soon(id).await;
    let mut addresses = found.map_err(|e| e.to_string())?;
    loop {
        // The watchdog may have replaced the endpoint: ask each time.
        let endpoint = pool.supervisor.endpoint();
        let dial = endpoint.connect(addresses.to_iroh(connector.key), ALPN);
        let error = tokio::select! {
            result = dial => match result {
                Ok(connection) => return Ok((connection, addresses, None)),
                Err(error) => error,
            },
            // Dropping the attempt ends it.
            moved = moved(pool, connector, &addresses) => {
                addresses = moved;
                continue;
            }
        };
        // A failure this quick may be the fault of an old answer of DNS.
        if let Ok(now) = pool.discovery.resolve(id, Freshness::Fresh).await
            && !addresses.contains_all(&now)
        {
            addresses = now;
            continue;
        }
        let text = format!("{} (at {addresses})", root_cause(&error));
        if somebody_else(&error)
            && let Some((connection, endpoint)) = one_by_one(pool, connector, &addresses).await
        {
            return Ok((connection, addresses, Some(endpoint)));
        }
        return Err(text);
    }
}

/// The innermost cause: iroh's own chain names its types on the way there.
fn root_cause(error: &dyn std::error::Error) -> String {
    let chain = std::iter::successors(Some(error), |e| e.source());
    chain.last().map(ToString::to_string).unwrap_or_default()
}

/// Completes when discovery knows an address that is not being tried.
async fn moved(pool: &Pool, connector: &Connector, tried: &Addresses) -> Addresses {
    let mut state = pool.discovery.subscribe();
    let mut open = true;
    // A dial that succeeds is mostly done before the first look.
    let mut pause = FIRST_LOOK;
    loop {
        tokio::select! {
            changed = state.changed(), if open => open = changed.is_ok(),
            () = tokio::time::sleep(pause) => pause = LOOK_AGAIN,
        }
        if let Ok(now) = pool.discovery.resolve(connector.id, Freshness::Fresh).await
            && !tried.contains_all(&now)
        {
            return now;
        }
    }
}

/// Whether another key, or another service, answered: one stale address is
/// enough to end a dial that would have succeeded at another.
fn somebody_else(error: &ConnectError) -> bool {
    let cause = match error {
        ConnectError::Connection { source, .. } => source,
        ConnectError::Connecting {
            source: iroh::endpoint::ConnectingError::ConnectionError { source, .. },
            ..
        } => source,
        _ => return false,
    };
    // CRYPTO_ERROR carries a TLS alert in its low byte (RFC 9001 section 4.8).
    let code = match cause {
        ConnectionError::TransportError(e) => u64::from(e.code),
        ConnectionError::ConnectionClosed(e) => u64::from(e.error_code),
        _ => return false,
    };
    (0x100..0x200).contains(&code)
}

/// Tries each direct address by itself. iroh keeps the addresses of a key in
/// one set for a minute, so each try has an endpoint of its own (same key, no
/// relay); the winner's stays with the link.
async fn one_by_one(
    pool: &Pool,
    connector: &Connector,
    addresses: &Addresses,
) -> Option<(Connection, Endpoint)> {
    // Also when there is only one: iroh may have sent to one that is no longer
    // known, and who is there was quicker.
    let direct: Vec<_> = addresses.direct().collect();
    let config = EndpointConfig {
        bind: pool
            .endpoint
            .bind
            .iter()
            .map(|a| (a.ip(), 0).into())
            .collect(),
        relays: RelayMap::empty(),
        ..pool.endpoint.clone()
    };
    let mut tries: FuturesUnordered<_> = direct
        .into_iter()
        .map(|addr| {
            let config = &config;
            async move {
                let endpoint = config.bind(&[]).await.ok()?;
                let only = Addresses::from_iter([TransportAddr::Ip(addr)]);
                match endpoint.connect(only.to_iroh(connector.key), ALPN).await {
                    Ok(connection) => Some((connection, endpoint)),
                    Err(_) => {
                        endpoint.close().await;
                        None
                    }
                }
            }
        })
        .collect();
    while let Some(result) = tries.next().await {
        if result.is_some() {
            return result;
        }
    }
    None
}
