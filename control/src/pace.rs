//! Pauses between attempts that concern one process only.

use std::time::Duration;

use kube::runtime::utils::Backoff;

/// A person waits for an API server that comes back; thousands of agents must
/// not trample it: hence the cap and the jitter.
const LEAST: Duration = Duration::from_millis(500);
const MOST: Duration = Duration::from_secs(10);

/// How long one request may take. kube's own limits allow for watches.
pub const REQUEST: Duration = Duration::from_secs(8);

/// For a watch of a single process: [`retry_pause`] after each failure.
#[derive(Debug, Default)]
pub struct WatchBackoff(u32);

impl Iterator for WatchBackoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = retry_pause(self.0);
        self.0 = self.0.saturating_add(1);
        Some(pause)
    }
}

impl Backoff for WatchBackoff {
    fn reset(&mut self) {
        self.0 = 0;
    }
}

/// The pause after so many failures of a step in a row.
pub fn retry_pause(failures: u32) -> Duration {
    let pause = LEAST * (1 << failures.min(6));
    pause.min(MOST).mul_f64(0.75 + 0.25 * rand::random::<f64>())
}

/// A request within its time.
///
/// # Errors
/// What the API server or the way to it says, in time or not at all.
pub async fn request<T>(
    limit: Duration,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, crate::Failure> {
    match tokio::time::timeout(limit, request).await {
        Ok(answer) => answer.map_err(crate::Failure::from),
        Err(_) => Err(crate::Failure::timed_out(limit)),
    }
}
