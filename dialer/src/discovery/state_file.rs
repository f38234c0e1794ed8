//! The file in which the reconciler tells addresses and live targets.
//!
//! It is replaced whole, and read again when its identity, size or time of
//! change says so: polling costs one `stat` and misses no replacement, while a
//! watch on a file loses it with the first rename.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    io::Read as _,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use adit_api::DialerState;
use adit_wire::{EndpointId, Target};
use iroh::TransportAddr;
use tokio::time::MissedTickBehavior;

use super::{Addresses, Source, Sources, relay_url};

/// How soon a change is seen.
const POLL: Duration = Duration::from_millis(150);
/// A hundred thousand connectors with eight addresses each are below this.
const MAX_LEN: u64 = 64 * 1024 * 1024;

/// What the file says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Where connectors are.
    pub hints: HashMap<EndpointId, Addresses>,
    /// The targets that are live; `None` when nobody manages them.
    pub targets: Option<HashSet<Target>>,
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateFileError {
    /// It cannot be read.
    #[error("reading the state file {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Larger than any real one.
    #[error("the state file {path} is longer than {MAX_LEN} bytes")]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// Not a state.
    #[error("the state file {path}: {source}")]
    Json {
        /// The file.
        path: PathBuf,
        /// What and where.
        source: serde_json::Error,
    },
}

/// Follows the file. Clones follow the same one.
#[derive(Debug, Clone)]
pub struct StateFile(Arc<Mutex<Follower>>);

#[derive(Debug)]
struct Follower {
    path: PathBuf,
    seen: Option<Version>,
    to: Sources,
}

/// What changes when a file is replaced or rewritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Version {
    dev: u64,
    ino: u64,
    len: u64,
    changed: (i64, i64),
}

impl From<DialerState> for State {
    fn from(state: DialerState) -> Self {
        let mut hints: HashMap<EndpointId, Addresses> = HashMap::new();
        for hint in state.connectors {
            let known = hints.entry(hint.endpoint_id).or_default();
            if let Some(text) = &hint.relay {
                match relay_url(text) {
                    Some(url) => known.add(TransportAddr::Relay(url)),
                    None => tracing::warn!(
                        connector = %hint.endpoint_id.short(),
                        "a relay in the state file is no http(s) URL and is ignored"
                    ),
                }
            }
            for addr in hint.addresses {
                known.add(TransportAddr::Ip(addr));
            }
        }
        Self {
            hints,
            targets: state.targets.map(|list| list.into_iter().collect()),
        }
    }
}

impl StateFile {
    /// Reads the file for the first time. One that is missing or broken is
    /// waited for: connectors may still be found in DNS.
    pub fn open(path: PathBuf, to: Sources) -> Self {
        if version(&path).is_none() {
            tracing::warn!(path = %path.display(), "there is no state file yet; waiting for it");
        }
        let file = Self(Arc::new(Mutex::new(Follower {
            path,
            seen: None,
            to,
        })));
        file.check();
        file
    }

    /// Reads the file again whenever it has changed, for ever.
    pub async fn follow(self) {
        let mut tick = tokio::time::interval(POLL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.refresh().await;
        }
    }

    /// Reads the file again now, if it has changed: what it says is as new as
    /// this call.
    pub async fn refresh(&self) {
        let file = self.clone();
        // Reading must not hold up a thread that moves bytes.
        let _ = tokio::task::spawn_blocking(move || file.check()).await;
    }

    fn check(&self) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .check();
    }
}

impl Follower {
    /// A file that has gone or cannot be read changes nothing: what was known
    /// stays known.
    fn check(&mut self) {
        let now = version(&self.path);
        if now.is_none() || now == self.seen {
            return;
        }
        self.seen = now;
        match read(&self.path) {
            Ok(state) => {
                let (connectors, targets) =
                    (state.hints.len(), state.targets.as_ref().map(HashSet::len));
                tracing::debug!(connectors, ?targets, "the state file was read");
                self.to.set(Source::File, state);
            }
            Err(error) => {
                tracing::error!(%error, "the state file is not used; what was known before stays");
            }
        }
    }
}

fn version(path: &Path) -> Option<Version> {
    let metadata = fs::metadata(path).ok()?;
    Some(Version {
        dev: metadata.dev(),
        ino: metadata.ino(),
        len: metadata.len(),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    })
}

fn read(path: &Path) -> Result<State, StateFileError> {
    let io = |source| StateFileError::Io {
        path: path.into(),
        source,
    };
    let file = fs::File::open(path).map_err(io)?;
    let mut bytes = Vec::new();
    file.take(MAX_LEN + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > MAX_LEN {
        return Err(StateFileError::TooLong { path: path.into() });
    }
    parse(&bytes).map_err(|source| StateFileError::Json {
        path: path.into(),
        source,
    })
}

fn parse(bytes: &[u8]) -> Result<State, serde_json::Error> {
    // serde would take an empty array for an object whose fields are optional.
    if !bytes.trim_ascii_start().starts_with(b"{") {
        return Err(serde::de::Error::custom("not a JSON object"));
    }
    serde_json::from_slice::<DialerState>(bytes).map(State::from)
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch;

    use super::*;

    fn open(path: PathBuf) -> (StateFile, watch::Receiver<Arc<State>>) {
        let sources = Sources::default();
        let receiver = sources.subscribe();
        (StateFile::open(path, sources), receiver)
    }

    fn state(port: u16) -> String {
        let id = EndpointId::from_bytes([9; 32]);
        format!(
            r#"{{"connectors":[{{"endpointId":"{id}","relay":"https://r.example","addresses":["192.0.2.1:{port}"]}}]}}"#
        )
    }

    fn ports(receiver: &watch::Receiver<Arc<State>>) -> Vec<u16> {
        let state = receiver.borrow();
        state
            .hints
            .values()
            .flat_map(Addresses::direct)
            .map(|a| a.port())
            .collect()
    }

    #[test]
    fn a_replaced_file_is_read_again_and_a_broken_one_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        let replace = |text: &str| {
            let new = dir.path().join("new");
            fs::write(&new, text).unwrap();
            fs::rename(&new, &path).unwrap();
        };
        let (file, receiver) = open(path.clone());
        assert!(ports(&receiver).is_empty(), "a missing file is waited for");
        replace(&state(1));
        file.check();
        assert_eq!(ports(&receiver), [1]);
        for broken in ["{", "[]", r#"{"connectors":[{}]}"#, r#"{"unknown":1}"#] {
            replace(broken);
            file.check();
            assert_eq!(ports(&receiver), [1], "{broken}");
        }
        replace(&state(2));
        file.check();
        assert_eq!(ports(&receiver), [2]);
        fs::remove_file(&path).unwrap();
        file.check();
        assert_eq!(ports(&receiver), [2], "a removed file changes nothing");
    }

    #[test]
    fn nobody_is_told_of_a_file_that_says_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        fs::write(&path, state(1)).unwrap();
        let (file, mut receiver) = open(path.clone());
        receiver.mark_unchanged();
        fs::write(&path, format!("{} ", state(1))).unwrap();
        file.check();
        assert!(!receiver.has_changed().unwrap());
    }

    #[test]
    fn a_relay_that_is_no_url_does_not_cost_the_addresses() {
        let text = state(1).replace("https://r.example", "nonsense");
        let parsed = State::from(serde_json::from_str::<DialerState>(&text).unwrap());
        let addresses = parsed.hints.values().next().unwrap();
        assert_eq!(addresses.to_string(), "192.0.2.1:1");
    }
}
