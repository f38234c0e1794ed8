//! Where a connector is: hints of the state file and of a Kubernetes API, and
//! DNS, together.
//!
//! iroh's own lookups are not used: one record they do not know fails the
//! whole lookup, and their resolver falls back to public servers.

pub mod dns;
pub mod kubernetes;
pub mod live_targets;
mod sources;
mod state_file;

use std::{collections::BTreeSet, fmt, net::SocketAddr, sync::Arc, time::Duration};

use adit_wire::EndpointId;
use iroh::{EndpointAddr, RelayUrl, TransportAddr};
use tokio::sync::watch;

pub use dns::{BuildError, Dns, DnsError};
pub use sources::{Source, Sources};
pub use state_file::{State, StateFile};

/// Addresses of one connector that are used; further ones are ignored.
pub const MAX_ADDRESSES: usize = 24;
/// While hints are at hand, DNS may add to them but not delay them.
const DNS_PATIENCE: Duration = Duration::from_millis(50);

/// How a connector may be reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addresses(BTreeSet<TransportAddr>);

/// Finds connectors.
#[derive(Debug)]
pub struct Discovery {
    file: Option<StateFile>,
    state: watch::Receiver<Arc<State>>,
    dns: Option<Dns>,
}

/// How old an answer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// As its time to live says.
    Cached,
    /// As new as the floor between two queries allows: the connector does not
    /// answer where it was.
    Fresh,
}

impl Addresses {
    /// Adds an address, up to the limit.
    pub fn add(&mut self, addr: TransportAddr) {
        if self.0.len() < MAX_ADDRESSES {
            self.0.insert(addr);
        }
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all of `other` is known here.
    pub fn contains_all(&self, other: &Self) -> bool {
        other.0.is_subset(&self.0)
    }

    /// The direct addresses.
    pub fn direct(&self) -> impl Iterator<Item = SocketAddr> {
        self.0.iter().filter_map(|addr| match addr {
            TransportAddr::Ip(ip) => Some(*ip),
            _ => None,
        })
    }

    /// As iroh's connect takes them.
    pub fn to_iroh(&self, id: iroh::EndpointId) -> EndpointAddr {
        EndpointAddr::from_parts(id, self.0.iter().cloned())
    }

    fn extend(&mut self, other: Self) {
        for addr in other.0 {
            self.add(addr);
        }
    }
}

impl FromIterator<TransportAddr> for Addresses {
    fn from_iter<I: IntoIterator<Item = TransportAddr>>(addrs: I) -> Self {
        let mut out = Self::default();
        for addr in addrs {
            out.add(addr);
        }
        out
    }
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, addr) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            match addr {
                TransportAddr::Ip(ip) => write!(f, "{comma}{ip}")?,
                TransportAddr::Relay(url) => write!(f, "{comma}{url}")?,
                other => write!(f, "{comma}{other:?}")?,
            }
        }
        Ok(())
    }
}

/// A relay's URL, with the schemes that a relay has.
pub(crate) fn relay_url(text: &str) -> Option<RelayUrl> {
    let url: RelayUrl = text.parse().ok()?;
    (matches!(url.scheme(), "http" | "https") && url.host().is_some()).then_some(url)
}

impl Discovery {
    /// Looks in what the sources say (`file` is read again when it counts) and
    /// in DNS, where there is one.
    pub fn new(
        file: Option<StateFile>,
        state: watch::Receiver<Arc<State>>,
        dns: Option<Dns>,
    ) -> Self {
        Self { file, state, dns }
    }

    /// Told whenever the sources say something else.
    pub fn subscribe(&self) -> watch::Receiver<Arc<State>> {
        self.state.clone()
    }

    /// Everything known of a connector. The error is DNS's, when there is no
    /// hint either.
    ///
    /// # Errors
    /// When no source knows an address.
    pub async fn resolve(
        &self,
        id: EndpointId,
        freshness: Freshness,
    ) -> Result<Addresses, DnsError> {
        if freshness == Freshness::Fresh {
            self.refresh().await;
        }
        let hints = self.hints(id);
        let Some(dns) = &self.dns else {
            return if hints.is_empty() {
                Err(DnsError::NotConfigured)
            } else {
                Ok(hints)
            };
        };
        match dns.resolve(id, freshness).await {
            Ok(found) => {
                let mut all = hints;
                all.extend(found);
                Ok(all)
            }
            Err(_) if !hints.is_empty() => Ok(hints),
            Err(error) => Err(error),
        }
    }

    /// What is known without much waiting: hints at once, DNS when it answers
    /// soon or there is no hint.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve).
    pub async fn resolve_soon(&self, id: EndpointId) -> Result<Addresses, DnsError> {
        // Envoy may send the first request of a new route before the file's
        // next look.
        self.refresh().await;
        let hints = self.hints(id);
        if hints.is_empty() {
            return self.resolve(id, Freshness::Cached).await;
        }
        match tokio::time::timeout(DNS_PATIENCE, self.resolve(id, Freshness::Cached)).await {
            Ok(resolved) => resolved,
            Err(_) => Ok(hints),
        }
    }

    async fn refresh(&self) {
        if let Some(file) = &self.file {
            file.refresh().await;
        }
    }

    /// The sources' addresses alone.
    pub fn hints(&self, id: EndpointId) -> Addresses {
        self.state
            .borrow()
            .hints
            .get(&id)
            .cloned()
            .unwrap_or_default()
    }
}
