//! Names of objects to look at: each at most once, one worker for each, those
//! that failed later and later. Bounded by the number of names.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    future::Future,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use adit_control::Class;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

/// After a failure: the first delay and the longest. Somebody else's write at
/// the same time is no failure: it is looked at again soon, however often it
/// happens (minutes of back-off after a burst of conflicts is what makes a
/// control plane feel broken).
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));
const CONFLICT: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// The queue.
#[derive(Debug)]
pub struct Queue<T> {
    state: Mutex<State<T>>,
    wake: Notify,
}

#[derive(Debug)]
struct State<T> {
    ready: VecDeque<T>,
    /// What is in `ready`.
    queued: BTreeSet<T>,
    later: BTreeSet<(Instant, T)>,
    due: BTreeMap<T, Instant>,
    running: BTreeSet<T>,
    /// Asked for while it was being looked at.
    again: BTreeSet<T>,
    failures: BTreeMap<T, u32>,
    closed: bool,
}

/// What a look at an object came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing to do until something changes.
    Done,
    /// Something is due then, even if nothing changes.
    After(Duration),
    /// It failed.
    Failed(Class),
}

impl<T: Ord + Clone> Default for Queue<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Ord + Clone> Queue<T> {
    /// An empty one.
    pub fn new() -> Self {
        let state = State {
            ready: VecDeque::new(),
            queued: BTreeSet::new(),
            later: BTreeSet::new(),
            due: BTreeMap::new(),
            running: BTreeSet::new(),
            again: BTreeSet::new(),
            failures: BTreeMap::new(),
            closed: false,
        };
        Self {
            state: Mutex::new(state),
            wake: Notify::new(),
        }
    }

    /// To be looked at now.
    pub fn push(&self, name: T) {
        self.lock().push(name);
        self.wake.notify_one();
    }

    /// To be looked at then, if not before.
    pub fn push_after(&self, name: T, delay: Duration) {
        self.lock().push_at(name, Instant::now() + delay);
        self.wake.notify_one();
    }

    /// How many wait to be looked at now.
    pub fn waiting(&self) -> usize {
        self.lock().ready.len()
    }

    /// Nothing more is given out.
    pub fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_waiters();
        self.wake.notify_one();
    }

    /// Looks at names with up to `workers` at once until the queue is closed;
    /// then ends the looks that are under way.
    pub async fn work<F, Fut>(&self, workers: usize, look: F)
    where
        F: Fn(T) -> Fut,
        Fut: Future<Output = Outcome>,
    {
        let worker = async || {
            while let Some(name) = self.next().await {
                let outcome = look(name.clone()).await;
                self.finish(name, outcome);
            }
            // The next worker is to hear of the end too.
            self.wake.notify_one();
        };
        futures_util::future::join_all((0..workers.max(1)).map(|_| worker())).await;
    }

    async fn next(&self) -> Option<T> {
        loop {
            let wake = self.wake.notified();
            let due = {
                let mut state = self.lock();
                if state.closed {
                    return None;
                }
                state.promote(Instant::now());
                if let Some(name) = state.take() {
                    let more = !state.ready.is_empty();
                    drop(state);
                    if more {
                        self.wake.notify_one();
                    }
                    return Some(name);
                }
                state.later.first().map(|(at, _)| *at)
            };
            match due {
                Some(at) => tokio::select! { () = wake => {} () = sleep_until(at) => {} },
                None => wake.await,
            }
        }
    }

    fn finish(&self, name: T, outcome: Outcome) {
        self.lock()
            .finish(name, outcome, rand::random_range(0.8..1.2));
        self.wake.notify_one();
    }

    /// All that waits to be looked at now, taken out.
    #[cfg(test)]
    pub(super) fn drain(&self) -> Vec<T> {
        let mut state = self.lock();
        state.queued.clear();
        state.ready.drain(..).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Ord + Clone> State<T> {
    fn push(&mut self, name: T) {
        if let Some(at) = self.due.remove(&name) {
            self.later.remove(&(at, name.clone()));
        }
        if self.running.contains(&name) {
            self.again.insert(name);
        } else if self.queued.insert(name.clone()) {
            self.ready.push_back(name);
        }
    }

    fn push_at(&mut self, name: T, at: Instant) {
        if self.queued.contains(&name) {
            return;
        }
        match self.due.get(&name) {
            Some(earlier) if *earlier <= at => return,
            Some(later) => {
                self.later.remove(&(*later, name.clone()));
            }
            None => {}
        }
        self.due.insert(name.clone(), at);
        self.later.insert((at, name));
    }

    fn promote(&mut self, now: Instant) {
        while let Some((at, name)) = self.later.first().cloned() {
            if at > now {
                return;
            }
            self.push(name);
        }
    }

    fn take(&mut self) -> Option<T> {
        let name = self.ready.pop_front()?;
        self.queued.remove(&name);
        self.running.insert(name.clone());
        Some(name)
    }

    fn finish(&mut self, name: T, outcome: Outcome, jitter: f64) {
        self.running.remove(&name);
        let asked = self.again.remove(&name);
        let delay = match outcome {
            Outcome::Done => {
                self.failures.remove(&name);
                None
            }
            Outcome::After(delay) => {
                self.failures.remove(&name);
                Some(delay)
            }
            Outcome::Failed(class) => {
                let failures = self.failures.entry(name.clone()).or_default();
                *failures = failures.saturating_add(1);
                Some(backoff(class, *failures).mul_f64(jitter))
            }
        };
        if asked {
            self.push(name);
        } else if let Some(delay) = delay {
            self.push_at(name, Instant::now() + delay);
        }
    }
}

/// The delay after so many failures in a row.
fn backoff(class: Class, failures: u32) -> Duration {
    let (first, most) = match class {
        Class::Conflict => CONFLICT,
        _ => BACKOFF,
    };
    let doublings = failures.saturating_sub(1).min(16);
    (first * 2_u32.pow(doublings)).min(most)
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, sync::Arc};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_name_pushed_twice_is_looked_at_once() {
        let queue = Queue::new();
        queue.push("a");
        queue.push("b");
        queue.push("a");
        let seen = RefCell::new(Vec::new());
        queue
            .work(1, async |name| {
                seen.borrow_mut().push(name);
                if name == "b" {
                    queue.close();
                }
                Outcome::Done
            })
            .await;
        assert_eq!(*seen.borrow(), ["a", "b"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_pushed_while_it_is_looked_at_is_looked_at_again_but_never_by_two() {
        let queue = Arc::new(Queue::new());
        queue.push(1);
        let running = RefCell::new(0);
        let looks = RefCell::new(0);
        queue
            .work(4, async |name| {
                assert_eq!(running.replace(1), 0, "two workers on one name");
                *looks.borrow_mut() += 1;
                if *looks.borrow() == 1 {
                    queue.push(name);
                    tokio::time::sleep(Duration::from_secs(1)).await;
                } else {
                    queue.close();
                }
                running.replace(0);
                Outcome::Done
            })
            .await;
        assert_eq!(*looks.borrow(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_is_tried_later_and_later_and_at_least_once_a_minute() {
        let queue = Queue::new();
        queue.push(());
        let times = RefCell::new(Vec::new());
        queue
            .work(1, async |()| {
                times.borrow_mut().push(Instant::now());
                if times.borrow().len() == 12 {
                    queue.close();
                }
                Outcome::Failed(Class::Busy)
            })
            .await;
        let times = times.borrow();
        let gaps: Vec<f64> = times
            .windows(2)
            .map(|w| (w[1] - w[0]).as_secs_f64())
            .collect();
        assert!(gaps[0] >= 0.4 && gaps[0] <= 0.61, "{gaps:?}");
        assert!(gaps.iter().all(|g| *g <= 72.1), "{gaps:?}");
        assert!(gaps[10] >= 47.9, "{gaps:?}");
    }

    #[test]
    fn conflicts_never_make_anybody_wait_long() {
        assert_eq!(backoff(Class::Conflict, 1), Duration::from_millis(50));
        assert_eq!(backoff(Class::Conflict, 1000), Duration::from_secs(2));
        assert_eq!(backoff(Class::Other, u32::MAX), Duration::from_secs(60));
    }

    #[tokio::test(start_paused = true)]
    async fn a_push_makes_what_is_due_later_due_now() {
        let queue = Queue::new();
        queue.push_after("slow", Duration::from_secs(3600));
        queue.push("slow");
        let start = Instant::now();
        queue
            .work(2, async |_| {
                queue.close();
                Outcome::Done
            })
            .await;
        assert!(start.elapsed() < Duration::from_secs(1));
        assert!(queue.lock().later.is_empty());
    }
}
