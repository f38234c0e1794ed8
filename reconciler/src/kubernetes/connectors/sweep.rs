//! Claims whose Connector went while nobody looked.
//!
//! Nothing in Kubernetes remembers a Connector that is gone: no finalizer
//! holds it. The zone does: every name of ours has a claim, and a transfer of
//! the zone lists them. One that goes is removed at once by who published it;
//! what is found here went while no process ran, or while one took over from
//! another, or came back with an old copy of the zone.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{
    Connectors,
    publish::{PublishError, Publisher},
};
use crate::dns::Server;

/// Between two attempts of a sweep that failed, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(3600));

/// When to sweep next.
struct Pace {
    every: Duration,
    failed: Option<Duration>,
}

impl Pace {
    fn new(every: Duration) -> Self {
        Self {
            every,
            failed: None,
        }
    }

    fn is_failing(&self) -> bool {
        self.failed.is_some()
    }

    /// The time until the next sweep.
    fn after(&mut self, ok: bool) -> Duration {
        self.failed = match (ok, self.failed) {
            (true, _) => None,
            (false, None) => Some(RETRY.0),
            (false, Some(last)) => Some((last * 2).min(RETRY.1)),
        };
        self.failed.unwrap_or(self.every)
    }
}

impl Connectors {
    /// Sweeps now and then until `shutdown`, the first time at once.
    pub(super) async fn sweep(
        &self,
        publisher: &Publisher,
        server: &Server,
        shutdown: &CancellationToken,
    ) {
        let mut pace = Pace::new(publisher.how.sweep);
        loop {
            let sweep = self.sweep_once(publisher, server);
            let result = tokio::select! {
                result = sweep => result,
                () = shutdown.cancelled() => return,
            };
            match &result {
                Ok(0) => {}
                Ok(removed) => {
                    tracing::info!(removed, "removed DNS records of connectors that are gone");
                }
                Err(error) if !pace.is_failing() => tracing::warn!(
                    %error,
                    "cannot look for DNS records of connectors that went while this process was down; trying again (allow this key to transfer the zone)"
                ),
                Err(error) => tracing::debug!(%error, "sweep of DNS claims"),
            }
            let delay = pace.after(result.is_ok());
            tokio::select! {
                () = tokio::time::sleep(delay.mul_f64(rand::random_range(0.8..1.2))) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    async fn sweep_once(
        &self,
        publisher: &Publisher,
        server: &Server,
    ) -> Result<usize, PublishError> {
        let layout = &publisher.how.layout;
        let cluster = self.cluster(publisher).await?;
        let mut removed = 0;
        for (name, claim) in server.claims().await? {
            let Some(id) = layout
                .claimed_id(&name)
                .filter(|_| claim.cluster == cluster)
            else {
                continue;
            };
            if !self.publishes(&claim, id).await? {
                self.remove(layout, server, id, &claim).await?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_that_failed_is_tried_again_sooner_and_then_more_rarely() {
        let every = Duration::from_secs(600);
        let mut pace = Pace::new(every);
        assert_eq!(pace.after(true), every);
        assert_eq!(pace.after(false), RETRY.0);
        assert_eq!(pace.after(false), RETRY.0 * 2);
        let delays: Vec<_> = (0..20).map(|_| pace.after(false)).collect();
        assert_eq!(delays.last(), Some(&RETRY.1));
        assert!(pace.is_failing());
        assert_eq!(pace.after(true), every);
        assert_eq!(pace.after(false), RETRY.0);
    }
}
