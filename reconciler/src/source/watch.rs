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
    /// A change was seen and not yet reported.
    pending: bool,
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
            pending: false,
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
    /// Dropped before it returns, it loses nothing: the next call reports.
    pub async fn changed(&mut self) {
        if !self.pending {
            if time::timeout(RESCAN, self.changed.notified())
                .await
                .is_err()
            {
                // The directory itself may have been replaced, and its watch with it.
                self.watcher = None;
                let _ = self.start();
                return;
            }
            self.pending = true;
        }
        let quiet = async { while time::timeout(QUIET, self.changed.notified()).await.is_ok() {} };
        let _ = time::timeout(PATIENCE, quiet).await;
        self.pending = false;
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, future::poll_fn, pin::pin, task::Poll};

    use super::*;

    #[tokio::test]
    async fn a_change_is_reported_also_when_the_first_wait_was_given_up() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let (mut watch, error) = Watch::new(folder.path());
        assert!(error.is_none());
        fs::write(folder.path().join("x.yaml"), "a: 1").expect("written");
        let arrived = watch.changed.clone();
        arrived.notified().await;
        arrived.notify_one();
        {
            // Takes the event and is dropped while it waits for quiet.
            let mut first = pin!(watch.changed());
            poll_fn(|cx| {
                assert!(first.as_mut().poll(cx).is_pending());
                Poll::Ready(())
            })
            .await;
        }
        assert!(watch.pending);
        watch.changed().await;
        assert!(!watch.pending);
    }
}
