//! Claims whose Connector went while nobody looked.
//!
//! Nothing in Kubernetes remembers a Connector that is gone: no finalizer
//! holds it. The zone does: every name of ours has a claim, and a transfer of
//! the zone lists them.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{
    Connectors,
    publish::{PublishError, Publisher},
};
use crate::dns::Server;

/// Between two attempts of a sweep that failed, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(3600));

impl Connectors {
    /// Sweeps once, as soon as that is possible.
    pub(super) async fn sweep(
        &self,
        publisher: &Publisher,
        server: &Server,
        shutdown: &CancellationToken,
    ) {
        let mut delay = RETRY.0;
        let mut said = false;
        loop {
            let sweep = self.sweep_once(publisher, server);
            let result = tokio::select! {
                result = sweep => result,
                () = shutdown.cancelled() => return,
            };
            match result {
                Ok(0) => return,
                Ok(removed) => {
                    tracing::info!(removed, "removed DNS records of connectors that are gone");
                    return;
                }
                Err(error) if !said => {
                    said = true;
                    tracing::warn!(
                        %error,
                        "cannot look for DNS records of connectors that went while this process was down; trying again (allow this key to transfer the zone)"
                    );
                }
                Err(error) => tracing::debug!(%error, "sweep of DNS claims"),
            }
            tokio::select! {
                () = tokio::time::sleep(delay.mul_f64(rand::random_range(0.8..1.2))) => {}
                () = shutdown.cancelled() => return,
            }
            delay = (delay * 2).min(RETRY.1);
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
