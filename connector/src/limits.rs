//! Places for streams: so many at once, so many waiting, for so long.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// The connector's places, shared by all dialers.
#[derive(Debug)]
pub(crate) struct Places {
    total: Arc<Semaphore>,
    max_total: usize,
    queue: Semaphore,
    max_queue: usize,
    per_dialer: usize,
    patience: Duration,
}

/// One dialer's share of them.
#[derive(Debug)]
pub(crate) struct Share {
    places: Arc<Places>,
    own: Arc<Semaphore>,
}

/// One stream's place: given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    _own: OwnedSemaphorePermit,
    _total: OwnedSemaphorePermit,
}

/// Why there is no place.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoPlace {
    #[error("the queue of waiting streams is full (max-queue)")]
    QueueFull,
    #[error("no stream ended in time to make room (max-streams, max-streams-per-dialer)")]
    Timeout,
}

/// File descriptors that are not for services: UDP sockets, netlink, the admin
/// server and its clients, files while they are read.
const RESERVED_FILES: u64 = 64;

/// How many streams the process has descriptors for, `wanted` at most.
pub(crate) fn fit_open_files(wanted: usize) -> usize {
    fit(wanted, adit_tunnel::open_files::raise())
}

fn fit(wanted: usize, soft: Option<u64>) -> usize {
    let Some(soft) = soft else { return wanted };
    let room = soft.saturating_sub(RESERVED_FILES).max(soft / 4).max(1);
    wanted.min(usize::try_from(room).unwrap_or(usize::MAX))
}

impl Places {
    pub(crate) fn new(
        max_streams: usize,
        per_dialer: usize,
        max_queue: usize,
        patience: Duration,
    ) -> Arc<Self> {
        Arc::new(Self {
            total: Arc::new(Semaphore::new(max_streams)),
            max_total: max_streams,
            queue: Semaphore::new(max_queue),
            max_queue,
            per_dialer,
            patience,
        })
    }

    /// Streams that hold a place.
    pub(crate) fn taken(&self) -> usize {
        self.max_total - self.total.available_permits()
    }

    /// Streams that wait for one.
    pub(crate) fn waiting(&self) -> usize {
        self.max_queue - self.queue.available_permits()
    }

    pub(crate) fn share(self: &Arc<Self>) -> Share {
        Share {
            places: self.clone(),
            own: Arc::new(Semaphore::new(self.per_dialer)),
        }
    }
}

impl Share {
    /// A place, after waiting in line where none is free. Both lines are
    /// first come, first served; a stream joins the common one only when its
    /// dialer has room, so that one busy dialer does not hold up the others.
    pub(crate) async fn place(&self) -> Result<Place, NoPlace> {
        let own = || self.own.clone().try_acquire_owned();
        let total = || self.places.total.clone().try_acquire_owned();
        if let Ok(own) = own()
            && let Ok(total) = total()
        {
            return Ok(Place {
                _own: own,
                _total: total,
            });
        }
        let _in_line = self.places.queue.try_acquire();
        if _in_line.is_err() {
            return Err(NoPlace::QueueFull);
        }
        timeout(self.places.patience, async {
            let own = self.own.clone().acquire_owned().await;
            let total = self.places.total.clone().acquire_owned().await;
            // Nobody closes these semaphores.
            Ok(Place {
                _own: own.map_err(|_| NoPlace::QueueFull)?,
                _total: total.map_err(|_| NoPlace::QueueFull)?,
            })
        })
        .await
        .unwrap_or(Err(NoPlace::Timeout))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn a_stream_over_the_limit_waits_until_another_ends() {
        let places = Places::new(1, 1, 1, LONG);
        let share = Arc::new(places.share());
        let first = share.place().await.expect("free");
        let waiting = tokio::spawn({
            let share = share.clone();
            async move { share.place().await.map(drop) }
        });
        while places.waiting() == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(share.place().await.err(), Some(NoPlace::QueueFull));
        drop(first);
        assert_eq!(waiting.await.expect("no panic"), Ok(()));
        assert_eq!((places.taken(), places.waiting()), (0, 0));
    }

    #[test]
    fn streams_fit_into_the_open_files_limit() {
        assert_eq!(fit(8192, None), 8192);
        assert_eq!(fit(8192, Some(1_048_576)), 8192);
        assert_eq!(fit(8192, Some(256)), 192);
        assert_eq!(fit(8192, Some(40)), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever() {
        let places = Places::new(1, 1, 8, LONG);
        let share = places.share();
        let _held = share.place().await.expect("free");
        assert_eq!(share.place().await.err(), Some(NoPlace::Timeout));
        assert_eq!(places.waiting(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dialer_at_its_own_limit_leaves_room_for_the_others() {
        let places = Places::new(2, 1, 8, LONG);
        let (busy, other) = (places.share(), places.share());
        let _held = busy.place().await.expect("free");
        let over = busy.place();
        tokio::pin!(over);
        assert!(futures_util::poll!(&mut over).is_pending());
        assert!(other.place().await.is_ok());
    }
}
