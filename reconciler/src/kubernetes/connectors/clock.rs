//! Both clocks of this process.

use std::time::Instant;

use k8s_openapi::jiff::Timestamp;

use super::liveness::Now;

/// Since when the steady clock counts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock(Instant);

impl Clock {
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    pub(super) fn now(&self) -> Now {
        Now {
            wall: Timestamp::now(),
            steady: self.0.elapsed(),
        }
    }
}
