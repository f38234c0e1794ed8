//! What the admin server says of a reconciler: `/livez`, `/readyz`, `/metrics`.
//!
//! It is ready when it has seen every object once. One that does not lead is
//! ready too: it can take over at once.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use adit_tunnel::{
    admin::{self, AdminAddr, AdminError, Health},
    log::LogHandle,
};
use tokio_util::sync::CancellationToken;

/// Whether the process is ready; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Ready(Arc<AtomicBool>);

impl Ready {
    /// From now on it is, or is not.
    pub fn set(&self, ready: bool) {
        self.0.store(ready, Ordering::Relaxed);
    }

    /// Whether it is.
    pub fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Serves until `stop`; returns the address that was bound. `stop` comes after
/// all else has ended, so that whoever asks meanwhile hears "not ready" and
/// not silence.
///
/// # Errors
/// When the address cannot be bound.
pub async fn serve(
    addr: AdminAddr,
    ready: Ready,
    metrics: impl Fn() -> String + Send + Sync + 'static,
    log: Option<LogHandle>,
    stop: CancellationToken,
) -> Result<AdminAddr, AdminError> {
    let health = Health {
        ready: Arc::new(move || ready.get()),
        metrics: Arc::new(metrics),
        log,
    };
    admin::serve_health(addr, health, stop).await
}
