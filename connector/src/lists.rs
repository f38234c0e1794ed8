//! The lists in effect: what the operator wrote, and the dialers that the
//! control plane lets in beside them.
//!
//! Either source changes by itself; neither waits for the other, and what one
//! of them said last stays while it cannot be asked.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use adit_wire::EndpointId;
use tokio::sync::watch;

use crate::policy::{Allow, Policy};

/// Both sources, and what they come to.
#[derive(Debug)]
pub(crate) struct Lists {
    sources: Mutex<Sources>,
    effective: watch::Sender<Arc<Policy>>,
}

#[derive(Debug)]
struct Sources {
    configured: Policy,
    granted: BTreeSet<EndpointId>,
}

impl Lists {
    pub(crate) fn new(configured: Policy) -> Self {
        Self {
            effective: watch::Sender::new(Arc::new(configured.clone())),
            sources: Mutex::new(Sources {
                configured,
                granted: BTreeSet::new(),
            }),
        }
    }

    /// What is allowed now, and every change of it.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<Policy>> {
        self.effective.subscribe()
    }

    /// What is allowed now.
    pub(crate) fn current(&self) -> Arc<Policy> {
        self.effective.borrow().clone()
    }

    /// The operator's lists are these. Says whether that changes anything.
    pub(crate) fn configure(&self, policy: Policy) -> bool {
        self.change(|sources| sources.configured = policy)
    }

    /// The control plane lets these dialers in. Says whether that changes
    /// anything.
    pub(crate) fn grant(&self, dialers: BTreeSet<EndpointId>) -> bool {
        self.change(|sources| sources.granted = dialers)
    }

    fn change(&self, change: impl FnOnce(&mut Sources)) -> bool {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut sources);
        let new = sources.effective();
        // Sent under the lock: the last change is also the last one told.
        self.effective.send_if_modified(|current| {
            let differs = **current != new;
            if differs {
                *current = Arc::new(new);
            }
            differs
        })
    }
}

impl Sources {
    fn effective(&self) -> Policy {
        let allow = match &self.configured.allow {
            Allow::Any => Allow::Any,
            Allow::Only(keys) => Allow::Only(keys | &self.granted),
        };
        Policy {
            allow,
            targets: self.configured.targets.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Targets;

    fn policy(allow: Allow) -> Policy {
        Policy {
            allow,
            targets: Targets::default(),
        }
    }

    fn keys(bytes: &[u8]) -> BTreeSet<EndpointId> {
        let ids = bytes.iter().map(|b| EndpointId::from_bytes([*b; 32]));
        ids.collect()
    }

    #[test]
    fn a_dialer_is_let_in_by_either_source_and_out_only_by_both() {
        let lists = Lists::new(policy(Allow::Only(keys(&[1]))));
        assert!(lists.grant(keys(&[1, 2])));
        assert_eq!(lists.current().allow, Allow::Only(keys(&[1, 2])));
        assert!(!lists.configure(policy(Allow::Only(keys(&[])))));
        assert_eq!(lists.current().allow, Allow::Only(keys(&[1, 2])));
        assert!(lists.grant(keys(&[2])));
        assert_eq!(lists.current().allow, Allow::Only(keys(&[2])));
    }

    #[test]
    fn nobody_is_told_of_a_change_that_changes_nothing() {
        let lists = Lists::new(policy(Allow::Only(keys(&[1]))));
        let told = lists.subscribe();
        assert!(!lists.grant(keys(&[1])));
        assert!(!lists.configure(policy(Allow::Only(keys(&[])))));
        assert!(!told.has_changed().unwrap());
    }

    #[test]
    fn any_stays_any() {
        let lists = Lists::new(policy(Allow::Any));
        assert!(!lists.grant(keys(&[2])));
        assert_eq!(lists.current().allow, Allow::Any);
    }
}
