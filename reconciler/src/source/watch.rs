//! Wakes up when a directory may have changed.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use notify::{RecursiveMode, Watcher as _};
use tokio::{sync::Notify, time};

/// How long it must be quiet after a change: an editor or `git checkout`
/// writes several files.
const QUIET: Duration = Duration::from_millis(100);
/// The longest wait for quiet.
const PATIENCE: Duration = Duration::from_secs(1);
/// A look without any event: network file systems send none, and inotify's
/// queue may overflow.
const RESCAN: Duration = Duration::from_secs(10);

/// A watch on a directory and everything below.
pub struct Watch {
    root: PathBuf,
    changed: Arc<Notify>,
    watcher: Option<notify::RecommendedWatcher>,
}

/// The directory cannot be watched; it is still looked at now and then.
#[derive(Debug, thiserror::Error)]
#[error("cannot watch {path}: {source}; it is read every {} s instead", RESCAN.as_secs())]
pub struct WatchError {
    path: PathBuf,
    source: notify::Error,
}

impl Watch {
    /// Begins to watch. With an error, changes are seen by the periodic look
    /// only.
    pub fn new(root: &Path) -> (Self, Option<WatchError>) {
        let changed = Arc::new(Notify::new());
        let mut watch = Self {
            root: root.to_owned(),
            changed,
            watcher: None,
        };
        let error = watch.start().err();
        (
            watch,
            error.map(|source| WatchError {
                path: root.to_owned(),
                source,
            }),
        )
    }

    fn start(&mut self) -> notify::Result<()> {
        let changed = Arc::clone(&self.changed);
        let mut watcher =
            notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
                // Our own reading makes access events.
                if !matches!(&event, Ok(event) if event.kind.is_access()) {
                    changed.notify_one();
                }
            })?;
        watcher.watch(&self.root, RecursiveMode::Recursive)?;
        self.watcher = Some(watcher);
        Ok(())
    }

    /// Returns when the directory may have changed, and has been quiet since.
    pub async fn changed(&mut self) {
        if time::timeout(RESCAN, self.changed.notified())
            .await
            .is_err()
        {
            // The directory itself may have been replaced, and its watch with it.
            self.watcher = None;
            let _ = self.start();
            return;
        }
        let quiet = async { while time::timeout(QUIET, self.changed.notified()).await.is_ok() {} };
        let _ = time::timeout(PATIENCE, quiet).await;
    }
}
