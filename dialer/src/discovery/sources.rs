//! What several sources say, as one state.
//!
//! Hints add up: a connector is tried at every address that anybody names. A
//! list of targets holds what any of the sources that keep one names; a source
//! that keeps none says nothing about targets.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use adit_wire::EndpointId;
use tokio::sync::watch;

use super::{Addresses, State};

/// Who says something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The state file.
    File = 0,
    /// The Kubernetes API's Connectors.
    Connectors = 1,
    /// The Kubernetes API's policies: targets only.
    Policies = 2,
}

/// Collects what they say. Clones collect together.
#[derive(Debug, Clone, Default)]
pub struct Sources(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    parts: Mutex<[Arc<State>; 3]>,
    all: watch::Sender<Arc<State>>,
}

impl Default for Inner {
    fn default() -> Self {
        Self {
            parts: Mutex::default(),
            all: watch::Sender::new(Arc::default()),
        }
    }
}

impl Sources {
    /// What all say now, and every change of it.
    pub fn subscribe(&self) -> watch::Receiver<Arc<State>> {
        self.0.all.subscribe()
    }

    /// One of them says this from now on.
    pub fn set(&self, source: Source, state: State) {
        let mut parts = self.0.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts[source as usize] = Arc::new(state);
        let all = merge(&parts);
        // Under the lock: the last change is also the last one told.
        self.0.all.send_if_modified(|old| {
            let news = **old != *all;
            *old = all;
            news
        });
    }
}

fn merge(parts: &[Arc<State>; 3]) -> Arc<State> {
    let mut speaking = parts.iter().filter(|part| ***part != State::default());
    match (speaking.next(), speaking.next()) {
        (None, _) => return Arc::default(),
        // The usual case costs nothing.
        (Some(only), None) => return only.clone(),
        _ => {}
    }
    let mut hints: HashMap<EndpointId, Addresses> = HashMap::new();
    let mut targets = None;
    for part in parts {
        for (id, addresses) in &part.hints {
            hints.entry(*id).or_default().extend(addresses.clone());
        }
        if let Some(list) = &part.targets {
            let all = targets.get_or_insert_with(std::collections::HashSet::new);
            all.extend(list.iter().cloned());
        }
    }
    Arc::new(State { hints, targets })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use iroh::TransportAddr;

    use super::*;

    const ID: EndpointId = EndpointId::from_bytes([9; 32]);

    fn target(port: u16) -> adit_wire::Target {
        adit_wire::Target {
            connectors: vec![ID],
            service: format!("a.example:{port}").parse().unwrap(),
            protocol: adit_wire::Protocol::Tcp,
            deadline: std::time::Duration::from_secs(1),
            name: String::new(),
        }
    }

    fn state(addr: Option<&str>, targets: Option<&[u16]>) -> State {
        let addr = addr.map(|a| TransportAddr::Ip(a.parse().unwrap()));
        State {
            hints: addr
                .map(|a| (ID, Addresses::from_iter([a])))
                .into_iter()
                .collect(),
            targets: targets.map(|ports| ports.iter().map(|p| target(*p)).collect()),
        }
    }

    #[test]
    fn hints_add_up_and_each_source_takes_back_only_its_own() {
        let sources = Sources::default();
        let all = sources.subscribe();
        let shown = || all.borrow().hints.get(&ID).map(ToString::to_string);
        sources.set(Source::File, state(Some("192.0.2.1:7"), None));
        sources.set(Source::Connectors, state(Some("192.0.2.2:7"), None));
        assert_eq!(shown().as_deref(), Some("192.0.2.1:7, 192.0.2.2:7"));
        sources.set(Source::File, State::default());
        assert_eq!(shown().as_deref(), Some("192.0.2.2:7"));
        sources.set(Source::Connectors, State::default());
        assert_eq!(shown(), None);
    }

    #[test]
    fn a_source_without_a_list_says_nothing_about_targets() {
        let sources = Sources::default();
        let all = sources.subscribe();
        let ports = || {
            let targets = all.borrow().targets.clone();
            targets.map(|list: HashSet<_>| {
                let mut ports: Vec<_> = list.iter().map(|t| t.service.port).collect();
                ports.sort_unstable();
                ports
            })
        };
        sources.set(Source::File, state(Some("192.0.2.1:7"), None));
        assert_eq!(ports(), None);
        sources.set(Source::Policies, state(None, Some(&[])));
        assert_eq!(ports(), Some(vec![]));
        sources.set(Source::File, state(None, Some(&[1])));
        sources.set(Source::Policies, state(None, Some(&[2])));
        assert_eq!(ports(), Some(vec![1, 2]));
        sources.set(Source::Policies, State::default());
        assert_eq!(ports(), Some(vec![1]));
    }
}
