//! The iroh endpoint, and the watchdog that replaces it.
//!
//! An endpoint whose home relay stays out of reach may be wedged for hours
//! although the relay is back (n0-computer/iroh#4476). The watchdog then binds
//! a second endpoint with the same key and hands it to everybody who asks from
//! now on; the old one stays until its connections have ended.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use iroh::{
    Endpoint, RelayMap, RelayMode, SecretKey, Watcher as _,
    dns::DnsResolver,
    endpoint::{IdleTimeout, PortmapperConfig, QuicTransportConfig, VarInt, presets},
    tls::CaTlsConfig,
};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::status;

/// A replaced endpoint is closed after this long even if connections are left:
/// they run over an endpoint that nobody can reach through a relay.
const RETIRE_AFTER: Duration = Duration::from_secs(600);
/// The longest pause between two attempts to rebuild.
const MAX_REBUILD_PAUSE: Duration = Duration::from_secs(300);
/// What one connection may hold unread in all; one stream holds at most 1.25 MB
/// (noq's default window; larger ones overrun its reassembly buffer and abort
/// the connection, measured), so that 200 stalled streams do not stall their
/// siblings. There are never so many for long: see `stall`.
const RECEIVE_WINDOW: u32 = 256 * 1024 * 1024;

/// A checked configuration.
#[derive(Debug, Clone)]
pub struct EndpointConfig {
    /// The identity.
    pub secret_key: SecretKey,
    /// UDP addresses; empty for all addresses and any port.
    pub bind: Vec<SocketAddr>,
    /// The relays this endpoint is reachable through; may be empty.
    pub relays: RelayMap,
    /// What relays' certificates are verified against.
    pub relay_ca: CaTlsConfig,
    /// How long the home relay may be out of reach.
    pub relay_watchdog: Duration,
    /// A peer that is silent for this long is gone.
    pub max_idle: Duration,
    /// How often a connection without traffic sends a packet.
    pub keep_alive: Duration,
    /// Whether to ask the router for a port mapping.
    pub port_mapping: bool,
    /// Bidirectional streams that a peer may have open on one connection.
    pub max_streams: u32,
}

/// Why no endpoint could be made.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// An address that cannot be bound as written.
    #[error("--bind {addr}: {reason}")]
    Address {
        /// The address.
        addr: SocketAddr,
        /// What is wrong.
        reason: String,
    },
    /// The sockets.
    #[error("binding the iroh endpoint: {0}")]
    Bind(String),
}

/// Holds the current endpoint.
#[derive(Debug)]
pub struct Supervisor {
    current: watch::Receiver<Endpoint>,
    relays_configured: bool,
    rebuilds: Arc<AtomicU64>,
    shutdown: CancellationToken,
}

impl EndpointConfig {
    /// Binds an endpoint of this configuration that nobody watches.
    ///
    /// # Errors
    /// When the sockets cannot be bound.
    pub async fn bind(&self, alpns: &[&[u8]]) -> Result<Endpoint, EndpointError> {
        let idle =
            IdleTimeout::try_from(self.max_idle).map_err(|e| EndpointError::Bind(e.to_string()))?;
        let transport = QuicTransportConfig::builder()
            .max_idle_timeout(Some(idle))
            .keep_alive_interval(self.keep_alive)
            .default_path_keep_alive_interval(self.keep_alive.min(Duration::from_secs(5)))
            .default_path_max_idle_timeout(self.max_idle.min(Duration::from_secs(15)))
            .max_concurrent_bidi_streams(VarInt::from_u32(self.max_streams))
            // Only tunnels, which are bidirectional.
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .receive_window(VarInt::from_u32(RECEIVE_WINDOW))
            .build();
        let mut builder = Endpoint::builder(presets::Minimal)
            .secret_key(self.secret_key.clone())
            .alpns(alpns.iter().map(|a| a.to_vec()).collect())
            .transport_config(transport)
            // With an empty map there is no home relay, but a peer's relay can
            // still be dialled when its address names one.
            .relay_mode(RelayMode::Custom(self.relays.clone()))
            .ca_tls_config(self.relay_ca.clone())
            // Resolves relays' host names only. The default would ask public
            // resolvers when the system's fails.
            .dns_resolver(
                DnsResolver::builder()
                    .with_system_defaults()
                    .disable_fallback()
                    .build(),
            );
        if !self.port_mapping {
            builder = builder.portmapper_config(PortmapperConfig::Disabled);
        }
        if !self.bind.is_empty() {
            builder = builder.clear_ip_transports();
        }
        for addr in &self.bind {
            builder = builder
                .bind_addr(*addr)
                .map_err(|e| EndpointError::Address {
                    addr: *addr,
                    reason: e.to_string(),
                })?;
        }
        builder
            .bind()
            .await
            .map_err(|e| EndpointError::Bind(format!("{e:#}")))
    }
}

impl Supervisor {
    /// Binds the endpoint and starts the watchdog, which ends with `shutdown`.
    /// `live` is the number of connections that are open now.
    ///
    /// # Errors
    /// When the sockets cannot be bound.
    pub async fn start(
        config: EndpointConfig,
        alpns: &'static [&'static [u8]],
        live: Arc<AtomicUsize>,
        shutdown: CancellationToken,
    ) -> Result<Self, EndpointError> {
        let endpoint = config.bind(alpns).await?;
        let (sender, current) = watch::channel(endpoint);
        let rebuilds = Arc::new(AtomicU64::new(0));
        let relays_configured = !config.relays.is_empty();
        if relays_configured {
            let watchdog = Watchdog {
                config,
                alpns,
                live,
                sender,
                rebuilds: rebuilds.clone(),
            };
            let stop = shutdown.clone();
            tokio::spawn(async move {
                tokio::select! {
                    () = watchdog.run() => {}
                    () = stop.cancelled() => {}
                }
            });
        } else {
            // Nobody replaces the endpoint, but receivers must not see a
            // closed channel.
            let stop = shutdown.clone();
            tokio::spawn(async move {
                stop.cancelled().await;
                drop(sender);
            });
        }
        Ok(Self {
            current,
            relays_configured,
            rebuilds,
            shutdown,
        })
    }

    /// The endpoint to use now. Ask again for each dial.
    pub fn endpoint(&self) -> Endpoint {
        self.current.borrow().clone()
    }

    /// The current endpoint and every later one. Accept on all of them.
    pub fn subscribe(&self) -> watch::Receiver<Endpoint> {
        self.current.clone()
    }

    /// The home relay's state; `None` without configured relays.
    pub fn relay(&self) -> Option<status::Relay> {
        self.relays_configured.then(|| {
            let states = self.endpoint().home_relay_status().get();
            let state = states.first();
            status::Relay {
                url: state.map(|s| s.url().to_string()).unwrap_or_default(),
                connected: states.iter().any(|s| s.is_connected()),
                last_error: state.filter(|s| !s.is_connected()).and_then(|s| {
                    let denied = s.auth_denied_reason().map(|r| format!("denied: {r}"));
                    denied.or_else(|| s.last_error().map(|e| format!("{e:#}")))
                }),
                rebuilds: self.rebuilds.load(Ordering::Relaxed),
            }
        })
    }

    /// Closes the endpoint, waiting at most `grace` for peers to learn of it.
    pub async fn close(&self, grace: Duration) {
        self.shutdown.cancel();
        let endpoint = self.endpoint();
        // iroh's own wait depends on the peers' answers.
        let _ = timeout(grace, endpoint.close()).await;
    }
}

struct Watchdog {
    config: EndpointConfig,
    alpns: &'static [&'static [u8]],
    live: Arc<AtomicUsize>,
    sender: watch::Sender<Endpoint>,
    rebuilds: Arc<AtomicU64>,
}

impl Watchdog {
    async fn run(self) {
        let mut patience = self.config.relay_watchdog;
        let mut unreachable_since = None;
        let mut tick = interval(self.config.relay_watchdog.min(Duration::from_secs(2)) / 2);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let endpoint = self.sender.borrow().clone();
            if endpoint
                .home_relay_status()
                .get()
                .iter()
                .any(|s| s.is_connected())
            {
                unreachable_since = None;
                patience = self.config.relay_watchdog;
                continue;
            }
            let since = *unreachable_since.get_or_insert_with(Instant::now);
            if since.elapsed() < patience {
                continue;
            }
            tracing::warn!(after = ?patience, "the home relay is out of reach: rebuilding the iroh endpoint");
            match self.rebuild(endpoint).await {
                Ok(()) => {
                    self.rebuilds.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => tracing::warn!(%error, "the iroh endpoint could not be rebuilt yet"),
            }
            // The relay itself may be down: each attempt waits longer.
            unreachable_since = None;
            patience = (patience * 2).min(MAX_REBUILD_PAUSE.max(self.config.relay_watchdog));
        }
    }

    async fn rebuild(&self, old: Endpoint) -> Result<(), EndpointError> {
        let fixed_port = self.config.bind.iter().any(|a| a.port() != 0);
        if fixed_port {
            // Two sockets cannot share the port: the old one must go first,
            // and only when nothing runs over it.
            if self.live.load(Ordering::Relaxed) > 0 {
                return Err(EndpointError::Bind(
                    "its port is fixed and tunnels are open; waiting for them to end".into(),
                ));
            }
            let _ = timeout(Duration::from_secs(3), old.close()).await;
        }
        let new = self.config.bind(self.alpns).await?;
        self.sender.send_replace(new);
        if !fixed_port {
            tokio::spawn(retire(old, self.live.clone()));
        }
        Ok(())
    }
}

/// Keeps a replaced endpoint until its connections have ended.
async fn retire(old: Endpoint, live: Arc<AtomicUsize>) {
    let deadline = Instant::now() + RETIRE_AFTER;
    while live.load(Ordering::Relaxed) > 0 && Instant::now() < deadline {
        sleep(Duration::from_secs(1)).await;
    }
    let _ = timeout(Duration::from_secs(3), old.close()).await;
}
