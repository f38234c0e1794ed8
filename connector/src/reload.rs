//! The configuration file, read again when it changes.
//!
//! Only the two lists change in a running connector. A file that cannot be
//! used changes nothing: the old lists stay, and the log says which line is
//! wrong.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path, sync::Arc, time::Duration};

use tokio::{
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval},
};

use crate::{
    Shared,
    options::{Options, Watched},
    policy::{Allow, Policy},
};

/// A change is noticed at the second look that finds it the same: a file that
/// is being written in place is not read half-way.
const LOOK: Duration = Duration::from_millis(250);

/// What tells one state of a file from another. A ConfigMap's file changes by
/// its symlink, hence the inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    len: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Watches until the task is dropped.
pub(crate) async fn watch(shared: Arc<Shared>, watched: Watched, started_with: Options) {
    let mut hang_up = match signal(SignalKind::hangup()) {
        Ok(hang_up) => Some(hang_up),
        Err(error) => {
            tracing::warn!(%error, "SIGHUP cannot be used here; the file is watched all the same");
            None
        }
    };
    let mut reloader = Reloader {
        shared,
        // The file as it was read at the start may have changed since: the
        // first look reads it once more.
        applied: None,
        seen: None,
        rest: rest_of(&started_with),
        watched,
    };
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let asked = async {
            match &mut hang_up {
                Some(signal) => signal.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = look.tick() => reloader.look().await,
            Some(()) = asked => {
                tracing::info!("SIGHUP: reading the configuration file again");
                reloader.seen = Stamp::of(&reloader.watched.path);
                reloader.read().await;
            }
        }
    }
}

struct Reloader {
    shared: Arc<Shared>,
    watched: Watched,
    applied: Option<Stamp>,
    seen: Option<Stamp>,
    rest: serde_json::Value,
}

impl Reloader {
    async fn look(&mut self) {
        let now = Stamp::of(&self.watched.path);
        let stable = now == self.seen;
        if now.is_none() && self.seen.is_some() {
            tracing::warn!(
                file = %self.watched.path.display(),
                "the configuration file cannot be read; the lists stay as they are"
            );
        }
        self.seen = now;
        if stable && now.is_some() && now != self.applied {
            self.read().await;
        }
    }

    async fn read(&mut self) {
        self.applied = self.seen;
        let watched = self.watched.clone();
        // Reading a file may block, on a network file system for long.
        let read = tokio::task::spawn_blocking(move || load(&watched)).await;
        let loaded = read.unwrap_or_else(|error| Err(error.to_string()));
        match loaded {
            Ok((policy, options)) => {
                if rest_of(&options) != self.rest {
                    tracing::warn!(
                        "the file changes more than allow and targets; the rest takes effect at \
                         the next start"
                    );
                }
                if self.shared.lists.configure(policy) {
                    announce(
                        &self.shared.lists.current(),
                        options.register.control.wanted(),
                    );
                }
                self.shared.metrics.reloaded(true);
            }
            Err(error) => {
                self.shared.metrics.reloaded(false);
                tracing::error!(
                    %error,
                    "the configuration file is not used; the lists stay as they are"
                );
            }
        }
    }
}

fn load(watched: &Watched) -> Result<(Policy, Options), String> {
    let options = (watched.read)()?;
    match options.policy() {
        Ok(policy) => Ok((policy, options)),
        Err(error) => {
            let text = fs::read_to_string(&watched.path).unwrap_or_default();
            Err(error.in_file(&watched.path, &text))
        }
    }
}

/// Says what is allowed now, and warns of what is seldom meant. Who is
/// `registered` may be told later whom to let in.
pub(crate) fn announce(policy: &Policy, registered: bool) {
    let dialers = match &policy.allow {
        Allow::Any => {
            tracing::warn!(
                "allow: any: EVERYBODY who knows this connector's EndpointId may reach its \
                 targets; list the dialers' keys instead"
            );
            "any".to_owned()
        }
        Allow::Only(keys) => {
            match (keys.is_empty(), registered) {
                (true, false) => tracing::warn!("allow is empty: no dialer may connect"),
                (true, true) => tracing::info!(
                    "no dialer may connect until status.allowedDialers of the Connector names it"
                ),
                (false, _) => {}
            }
            keys.len().to_string()
        }
    };
    if policy.targets.is_empty() {
        tracing::warn!("targets is empty: nothing can be reached");
    }
    tracing::info!(
        dialers,
        targets = policy.targets.len(),
        "the lists in effect"
    );
}

/// All but the two lists.
fn rest_of(options: &Options) -> serde_json::Value {
    let mut value = serde_json::to_value(options).unwrap_or_default();
    if let Some(map) = value.as_object_mut() {
        map.remove("allow");
        map.remove("targets");
    }
    value
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let meta = fs::metadata(path).ok()?;
        Some(Self {
            device: meta.dev(),
            inode: meta.ino(),
            len: meta.len(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        })
    }
}
