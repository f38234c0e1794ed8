//! What tunnels share: one meter for a connector, one in all.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::stall::Stalls;

/// Totals in bytes, payload only; and how many tunnels are stalled now.
#[derive(Debug, Default)]
pub struct Meter {
    sent: AtomicU64,
    received: AtomicU64,
    pub(crate) stalls: Stalls,
}

impl Meter {
    /// Counts bytes that went into tunnels.
    pub fn add_sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Counts bytes that came out of tunnels.
    pub fn add_received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes that went into tunnels.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Bytes that came out of tunnels.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}
