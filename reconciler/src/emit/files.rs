//! Files that Envoy watches, and the one that the dialer watches.
//!
//! ```text
//! dialer.json old ∪ new ─► cds.json old ∪ new ─► rds.json ─► lds.json ─► … ─► cds.json new ─► dialer.json new
//!                           (wait for Envoy)     (wait)      (wait)   linger
//! ```
//!
//! A route never names a cluster that is not there yet, and a cluster stays
//! for a while after its last route, for requests that chose it just before.
//! Each file is replaced whole, by rename; one whose bytes are the same is
//! not touched. So whenever Envoy dies and starts again it reads a whole
//! configuration.

use std::{
    collections::BTreeMap,
    fs,
    sync::{Arc, Mutex},
    time::Duration,
};

use adit_api::DialerState;
use serde::Serialize;
use tokio::time::{self, Instant};

use super::{
    Admin, AdminError, Emit, EmitError, FilesConfig, Resources, bootstrap,
    disk::{Kind, replace, response, write_json},
    xds::{Any, Cluster},
};

/// How long Envoy may take for one update before we go on and say so.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks at Envoy's counters.
const POLL: Duration = Duration::from_millis(20);
/// How long DNS may keep a new plain cluster from being ready.
const WARMING: Duration = Duration::from_secs(5);

/// What is emitted to a folder.
pub struct Files {
    config: FilesConfig,
    admin: Admin,
    /// What Envoy said last when it refused an update; filled by whoever
    /// reads its log.
    refusal: Arc<Mutex<Option<String>>>,
    /// In effect.
    current: Resources,
    /// In `cds.json`: those in effect and those that linger.
    clusters: BTreeMap<String, Any<Cluster>>,
    prune_at: Option<Instant>,
}

impl Files {
    /// Writes everything at once, for an Envoy that was not started yet.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn start(config: FilesConfig, resources: Resources) -> Result<Self, EmitError> {
        let mut files = Self {
            admin: Admin::new(config.admin_socket()),
            config,
            refusal: Arc::default(),
            clusters: by_name(&resources),
            current: Resources::default(),
            prune_at: None,
        };
        files.write_dialer(&resources.dialer)?;
        files.write(Kind::Clusters, &resources.clusters)?;
        files.write(Kind::Routes, &resources.routes)?;
        files.write(Kind::Listeners, &resources.listeners)?;
        let listeners = files.config.folder.join(Kind::Listeners.file());
        let clusters = files.config.folder.join(Kind::Clusters.file());
        let envoy = bootstrap(&files.config.admin_socket(), &listeners, &clusters);
        write_json(&files.config.bootstrap(), &envoy)?;
        files.current = resources;
        Ok(files)
    }

    /// Envoy's admin interface.
    pub fn admin(&self) -> Admin {
        self.admin.clone()
    }

    /// Where Envoy's words about a refused update are to be put.
    pub fn refusal(&self) -> Arc<Mutex<Option<String>>> {
        Arc::clone(&self.refusal)
    }

    /// When [`Files::prune`] has something to do.
    pub fn prune_at(&self) -> Option<Instant> {
        self.prune_at
    }

    /// Replaces the listeners for the next Envoy only, without a word to the
    /// one that runs: a port that the system chose stays the same port when
    /// Envoy starts again.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn pin(&mut self, resources: &Resources) -> Result<(), EmitError> {
        let path = self.config.folder.join(Kind::Listeners.file());
        let failed = |source| EmitError::Write {
            path: path.clone(),
            source,
        };
        let (response, _) = response(&resources.listeners).map_err(failed)?;
        // Envoy looks at a file when another is moved in its place, so this
        // one is written where it is.
        fs::write(&path, response).map_err(failed)?;
        self.current.listeners = resources.listeners.clone();
        Ok(())
    }

    /// Takes away the clusters that no route uses any more, and their targets
    /// from the dialer, which then ends their streams.
    ///
    /// # Errors
    /// As [`Emit::emit`].
    pub async fn prune(&mut self) -> Result<(), EmitError> {
        self.prune_at = None;
        let wanted = by_name(&self.current);
        if wanted != self.clusters {
            self.update(
                Kind::Clusters,
                &self.current.clusters,
                &self.clusters.values().cloned().collect::<Vec<_>>(),
            )
            .await?;
            self.clusters = wanted;
        }
        self.write_dialer(&self.current.dialer)
    }

    async fn replace(&mut self, new: &Resources) -> Result<(), EmitError> {
        let old = self.current.clone();
        self.write_dialer(&union(&old.dialer, &new.dialer))?;
        let mut clusters = self.clusters.clone();
        clusters.extend(by_name(new));
        if clusters != self.clusters {
            let list: Vec<_> = clusters.values().cloned().collect();
            let before: Vec<_> = self.clusters.values().cloned().collect();
            self.update(Kind::Clusters, &list, &before).await?;
            self.clusters = clusters;
            self.warmed().await;
        }
        self.prune_at = Some(Instant::now() + self.config.linger);
        if new.routes != old.routes {
            self.update(Kind::Routes, &new.routes, &old.routes).await?;
            self.current.routes = new.routes.clone();
        }
        if new.listeners != old.listeners {
            self.update(Kind::Listeners, &new.listeners, &old.listeners)
                .await?;
            self.current.listeners = new.listeners.clone();
        }
        self.current = new.clone();
        Ok(())
    }

    /// Writes a file and waits until Envoy has taken it. If it has not, the
    /// file gets its old content again: what is on disk is what is in effect.
    async fn update<T: Serialize>(
        &self,
        kind: Kind,
        new: &[T],
        old: &[T],
    ) -> Result<(), EmitError> {
        let before = self.counters(kind).await;
        *lock(&self.refusal) = None;
        let version = self.write(kind, new)?;
        let Ok(before) = before else {
            // No Envoy: the next one reads the files as they are.
            return Ok(());
        };
        let outcome = self.taken(kind, &version, before.refused).await;
        if outcome.is_err() {
            self.write(kind, old)?;
        }
        outcome
    }

    async fn taken(&self, kind: Kind, version: &str, refused: u64) -> Result<(), EmitError> {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            match self.counters(kind).await {
                Ok(now) if now.version == version => return Ok(()),
                Ok(now) if now.refused > refused => {
                    return Err(EmitError::Refused {
                        what: kind.what(),
                        reason: self.reason().await,
                    });
                }
                // It died meanwhile.
                Err(AdminError::Connect { .. }) => return Ok(()),
                Ok(_) | Err(_) => time::sleep(POLL).await,
            }
        }
        Err(EmitError::Slow { what: kind.what() })
    }

    /// Envoy's words come by its log, perhaps a little after its counters.
    async fn reason(&self) -> String {
        for _ in 0..25 {
            if let Some(reason) = lock(&self.refusal).take() {
                return reason;
            }
            time::sleep(POLL).await;
        }
        "see Envoy's log for the reason".into()
    }

    async fn counters(&self, kind: Kind) -> Result<Counters, AdminError> {
        let mut counters = Counters::default();
        for (name, value) in self.admin.stats(kind.stats()).await? {
            if name.ends_with("version_text") {
                counters.version = value;
            } else if name.ends_with("update_rejected") {
                counters.refused = value.parse().unwrap_or_default();
            }
        }
        Ok(counters)
    }

    /// A plain cluster's name is resolved before it serves.
    async fn warmed(&self) {
        let end = Instant::now() + WARMING;
        while Instant::now() < end {
            let Ok(stats) = self.admin.stats("cluster_manager.warming_clusters").await else {
                return;
            };
            if stats.iter().all(|(_, value)| value == "0") {
                return;
            }
            time::sleep(POLL).await;
        }
        tracing::warn!(
            "some plain backends were not resolved within {} s",
            WARMING.as_secs()
        );
    }

    /// Writes a discovery response unless it is there already; its version.
    fn write<T: Serialize>(&self, kind: Kind, resources: &[T]) -> Result<String, EmitError> {
        let path = self.config.folder.join(kind.file());
        let failed = |source| EmitError::Write {
            path: path.clone(),
            source,
        };
        let (bytes, version) = response(resources).map_err(failed)?;
        replace(&path, &bytes).map_err(failed)?;
        Ok(version)
    }

    fn write_dialer(&self, state: &DialerState) -> Result<(), EmitError> {
        write_json(&self.config.dialer_state(), state)
    }
}

impl Emit for Files {
    async fn emit(&mut self, resources: Resources) -> Result<bool, EmitError> {
        if resources == self.current {
            return Ok(false);
        }
        let before = self.current.dialer.clone();
        let outcome = self.replace(&resources).await;
        if outcome.is_err() {
            // Nothing of the new is in effect: take its clusters away again,
            // and let the dialer know both until then.
            self.write_dialer(&union(&before, &resources.dialer))?;
            self.prune_at = Some(Instant::now() + self.config.linger);
        }
        outcome.map(|()| true)
    }
}

#[derive(Debug, Default)]
struct Counters {
    version: String,
    refused: u64,
}

fn by_name(resources: &Resources) -> BTreeMap<String, Any<Cluster>> {
    let clusters = resources.clusters.iter();
    clusters
        .map(|c| (c.get().name.clone(), c.clone()))
        .collect()
}

/// Old and new together; where both know a connector, the new counts.
fn union(old: &DialerState, new: &DialerState) -> DialerState {
    let mut both = new.clone();
    for hint in &old.connectors {
        if both
            .connectors
            .iter()
            .all(|h| h.endpoint_id != hint.endpoint_id)
        {
            both.connectors.push(hint.clone());
        }
    }
    if let (Some(old), Some(both)) = (&old.targets, &mut both.targets) {
        for target in old {
            if !both.contains(target) {
                both.push(target.clone());
            }
        }
    }
    both
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
#[path = "files_tests.rs"]
mod tests;
