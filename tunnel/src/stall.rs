//! Sockets that take no bytes although bytes are there for them.
//!
//! What a stream has received and its socket does not take stays in the QUIC
//! connection, up to a stream's window, and the connection has a window too: when
//! stalled streams fill it, no other stream of the connection receives anything.
//! Some stalled streams are usual (a video that waits for its viewer); too many
//! are cut, so that the others go on.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

/// How many streams of one connection may be stalled for longer than
/// [`PATIENCE`]. Each holds up to 1.25 MB (noq's stream window): together 160 MB,
/// which leaves 100 MB of the connection's window to the others and to those that
/// are about to be cut, see `RECEIVE_WINDOW` in `endpoint.rs`.
const MOST: usize = 128;
/// With so many the connection's window is all but full, and everybody waits for
/// the next cut: from then on nobody gets the whole [`PATIENCE`] until only
/// [`MOST`] are left. Of 500 that stall at once, five rounds have to be cut.
const FULL: usize = 192;
/// A socket that took nothing for this long is stalled. Requests of others may
/// wait for as long: much less than a usual deadline.
const PATIENCE: Duration = Duration::from_secs(1);
/// After how long a socket counts as waiting, and how often it looks whether
/// there are too many.
pub(crate) const LOOK: Duration = Duration::from_millis(250);

/// How many streams take nothing now.
#[derive(Debug, Default)]
pub(crate) struct Stalls {
    /// For [`LOOK`] at least.
    waiting: AtomicUsize,
    /// Those of them that have done so for [`PATIENCE`].
    stalled: AtomicUsize,
    /// Too many wait for patience, see [`FULL`].
    crowded: AtomicBool,
}

/// One stream that has waited for [`LOOK`], counted while it lives.
#[derive(Debug)]
pub(crate) struct Waiting<'a> {
    all: &'a Stalls,
    counted: bool,
    stalled: bool,
}

impl Stalls {
    pub(crate) fn begin(&self) -> Waiting<'_> {
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= FULL {
            self.crowded.store(true, Ordering::Relaxed);
        }
        Waiting {
            all: self,
            counted: true,
            stalled: false,
        }
    }

    fn left(&self, before: usize) {
        if before <= MOST + 1 {
            self.crowded.store(false, Ordering::Relaxed);
        }
    }
}

impl Waiting<'_> {
    /// Whether this one, which has waited for so long, has to go. It is not
    /// counted from then on, so that no more are cut than there are too many.
    pub(crate) fn must_go(&mut self, waited: Duration) -> bool {
        if waited >= PATIENCE && !self.stalled {
            self.stalled = true;
            self.all.stalled.fetch_add(1, Ordering::Relaxed);
        }
        if self.stalled && one_too_many(&self.all.stalled).is_some() {
            self.all
                .left(self.all.waiting.fetch_sub(1, Ordering::Relaxed));
            self.counted = false;
        } else if self.all.crowded.load(Ordering::Relaxed)
            && let Some(before) = one_too_many(&self.all.waiting)
        {
            self.all.left(before);
            if self.stalled {
                self.all.stalled.fetch_sub(1, Ordering::Relaxed);
            }
            self.counted = false;
        }
        !self.counted
    }
}

/// Takes one away if there are too many; how many there were.
fn one_too_many(count: &AtomicUsize) -> Option<usize> {
    let fewer = |n: usize| (n > MOST).then(|| n - 1);
    count
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer)
        .ok()
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.counted {
            self.all
                .left(self.all.waiting.fetch_sub(1, Ordering::Relaxed));
            if self.stalled {
                self.all.stalled.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cuts those that must go, and says how many.
    fn cut(all: &mut Vec<Waiting<'_>>, waited: Duration) -> usize {
        let before = all.len();
        all.retain_mut(|one| !one.must_go(waited));
        before - all.len()
    }

    #[test]
    fn no_more_are_cut_than_there_are_too_many() {
        let stalls = Stalls::default();
        let mut all: Vec<_> = (0..MOST + 3).map(|_| stalls.begin()).collect();
        assert_eq!(cut(&mut all, PATIENCE - LOOK), 0, "patience");
        assert_eq!(cut(&mut all, PATIENCE), 3);
        drop(all);
        for count in [&stalls.waiting, &stalls.stalled] {
            assert_eq!(count.load(Ordering::Relaxed), 0);
        }
        assert!(!stalls.begin().must_go(PATIENCE), "a single one stays");
    }

    #[test]
    fn a_crowd_is_cut_without_patience_until_it_is_none() {
        let stalls = Stalls::default();
        let mut all: Vec<_> = (0..=FULL).map(|_| stalls.begin()).collect();
        assert_eq!(cut(&mut all, LOOK), FULL + 1 - MOST);
        let mut more: Vec<_> = (0..10).map(|_| stalls.begin()).collect();
        assert_eq!(cut(&mut more, LOOK), 0, "patience again");
        assert_eq!(cut(&mut all, PATIENCE), 0, "as many may be stalled");
        assert_eq!(cut(&mut more, PATIENCE), 10);
        drop((all, more));
        let mut all: Vec<_> = (0..=FULL).map(|_| stalls.begin()).collect();
        all.truncate(MOST);
        all.push(stalls.begin());
        assert_eq!(cut(&mut all, LOOK), 0, "the crowd went by itself");
    }
}
