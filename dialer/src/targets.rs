//! Which targets are live. Envoy keeps the tunnels of a route that is removed,
//! so they are ended here: a target that leaves the list has a drain time, and
//! then its streams are closed.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use adit_wire::Target;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use crate::discovery::State;

/// The targets that have streams.
#[derive(Debug)]
pub struct Targets {
    state: watch::Receiver<Arc<State>>,
    drain: Duration,
    used: Mutex<HashMap<Target, Entry>>,
}

#[derive(Debug)]
struct Entry {
    streams: usize,
    revoked: CancellationToken,
    /// Since when it is not on the list.
    unlisted: Option<Instant>,
}

/// One stream's use of a target.
#[derive(Debug)]
pub struct Usage {
    /// Cancelled when the stream must end.
    pub revoked: CancellationToken,
    target: Target,
    targets: Arc<Targets>,
}

impl Targets {
    /// Follows the list of `state`.
    pub fn new(state: watch::Receiver<Arc<State>>, drain: Duration) -> Arc<Self> {
        Arc::new(Self {
            state,
            drain,
            used: Mutex::default(),
        })
    }

    /// A stream begins. A target that is not listed is served too, for the
    /// drain time: the list may reach us a moment after Envoy's configuration.
    pub fn enter(self: &Arc<Self>, target: &Target) -> Usage {
        let listed = listed(&self.state.borrow(), target);
        let mut used = self.lock();
        let entry = used.entry(target.clone()).or_insert_with(|| Entry {
            streams: 0,
            revoked: CancellationToken::new(),
            unlisted: (!listed).then(Instant::now),
        });
        entry.streams += 1;
        Usage {
            revoked: entry.revoked.clone(),
            target: target.clone(),
            targets: self.clone(),
        }
    }

    /// Ends the streams of targets that stay off the list, until `shutdown`.
    pub async fn enforce(self: Arc<Self>, shutdown: CancellationToken) {
        let mut state = self.state.clone();
        let period = (self.drain / 4).clamp(Duration::from_millis(10), Duration::from_millis(250));
        let mut tick = tokio::time::interval(period);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut open = true;
        loop {
            tokio::select! {
                changed = state.changed(), if open => open = changed.is_ok(),
                _ = tick.tick() => {}
                () = shutdown.cancelled() => return,
            }
            let now = state.borrow_and_update().clone();
            self.sweep(&now);
        }
    }

    fn sweep(&self, state: &State) {
        let now = Instant::now();
        self.lock().retain(|target, entry| {
            if listed(state, target) {
                entry.unlisted = None;
                return true;
            }
            let since = *entry.unlisted.get_or_insert(now);
            if now - since < self.drain {
                return true;
            }
            tracing::info!(
                target_name = target.name,
                streams = entry.streams,
                "a target is gone: its streams are closed"
            );
            entry.revoked.cancel();
            false
        });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Target, Entry>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn listed(state: &State, target: &Target) -> bool {
    state.targets.as_ref().is_none_or(|l| l.contains(target))
}

impl Drop for Usage {
    fn drop(&mut self) {
        if self.revoked.is_cancelled() {
            // The entry of that name, if any, belongs to later streams.
            return;
        }
        let mut used = self.targets.lock();
        if let Some(entry) = used.get_mut(&self.target) {
            entry.streams -= 1;
            if entry.streams == 0 {
                used.remove(&self.target);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use adit_wire::{EndpointId, Protocol};

    use super::*;

    const DRAIN: Duration = Duration::from_secs(10);

    fn target(port: u16) -> Target {
        Target {
            connectors: vec![EndpointId::from_bytes([9; 32])],
            service: format!("a.example:{port}").parse().unwrap(),
            protocol: Protocol::Tcp,
            deadline: Duration::from_secs(1),
            name: "shop".into(),
        }
    }

    fn state(targets: Option<&[u16]>) -> Arc<State> {
        Arc::new(State {
            hints: HashMap::new(),
            targets: targets.map(|ports| ports.iter().map(|p| target(*p)).collect()),
        })
    }

    #[tokio::test(start_paused = true)]
    async fn streams_of_a_target_that_left_end_after_the_drain_time() {
        let (sender, receiver) = watch::channel(state(Some(&[1, 2])));
        let targets = Targets::new(receiver, DRAIN);
        tokio::spawn(targets.clone().enforce(CancellationToken::new()));
        let (one, two) = (targets.enter(&target(1)), targets.enter(&target(2)));
        tokio::time::sleep(2 * DRAIN).await;
        assert!(!one.revoked.is_cancelled());
        let left = Instant::now();
        sender.send_replace(state(Some(&[2])));
        one.revoked.cancelled().await;
        assert!(left.elapsed() >= DRAIN);
        assert!(!two.revoked.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn a_target_that_comes_back_in_time_keeps_its_streams() {
        let (sender, receiver) = watch::channel(state(Some(&[1])));
        let targets = Targets::new(receiver, DRAIN);
        tokio::spawn(targets.clone().enforce(CancellationToken::new()));
        let one = targets.enter(&target(1));
        sender.send_replace(state(Some(&[])));
        tokio::time::sleep(DRAIN / 2).await;
        sender.send_replace(state(Some(&[1])));
        tokio::time::sleep(2 * DRAIN).await;
        assert!(!one.revoked.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_managed_list_nothing_is_revoked() {
        let (_sender, receiver) = watch::channel(state(None));
        let targets = Targets::new(receiver, DRAIN);
        tokio::spawn(targets.clone().enforce(CancellationToken::new()));
        let one = targets.enter(&target(1));
        tokio::time::sleep(3 * DRAIN).await;
        assert!(!one.revoked.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn a_target_that_was_never_listed_is_served_for_the_drain_time_only() {
        let (_sender, receiver) = watch::channel(state(Some(&[])));
        let targets = Targets::new(receiver, DRAIN);
        tokio::spawn(targets.clone().enforce(CancellationToken::new()));
        let one = targets.enter(&target(1));
        one.revoked.cancelled().await;
        drop(one);
        let again = targets.enter(&target(1));
        assert!(!again.revoked.is_cancelled());
    }

    #[test]
    fn nothing_is_kept_of_streams_that_have_ended() {
        let (_sender, receiver) = watch::channel(state(None));
        let targets = Targets::new(receiver, DRAIN);
        let (a, b) = (targets.enter(&target(1)), targets.enter(&target(1)));
        drop(a);
        assert_eq!(targets.lock().len(), 1);
        drop(b);
        assert!(targets.lock().is_empty());
    }
}
