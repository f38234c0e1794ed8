//! Discovery by DNS: TXT records `_iroh.<z32 id>.<origin>`, one attribute each.
//!
//! ```text
//! _iroh.<z32>.origin. TXT "relay=https://relay.example/"
//! _iroh.<z32>.origin. TXT "addr=192.0.2.1:7"
//! ```
//!
//! Attributes this version does not know are skipped, so that publishers may
//! say more. Only the configured servers are asked.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex as SyncMutex, PoisonError},
    time::Duration,
};

use adit_wire::EndpointId;
use hickory_resolver::{
    Resolver, TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig},
    net::{NetError, runtime::TokioRuntimeProvider},
    proto::rr::{RData, Record, RecordType},
};
use iroh::TransportAddr;
use tokio::{sync::Mutex, time::Instant};

use super::{Addresses, Freshness, relay_url};
use crate::options::DnsConfig;

/// No query is repeated sooner, whatever the record's time to live.
const FLOOR: Duration = Duration::from_secs(1);
/// No answer is kept longer: a device that moves is looked for again anyway,
/// but only once it is missed.
const CAP: Duration = Duration::from_secs(30);
/// How long "no such record" is believed.
const NEGATIVE: Duration = Duration::from_secs(1);
/// For one try of one server.
const TRY_TIMEOUT: Duration = Duration::from_millis(1000);
/// For a whole lookup.
const TIMEOUT: Duration = Duration::from_millis(2500);
/// Records of one name that are looked at.
pub const MAX_RECORDS: usize = 64;
/// Names kept; beyond, those that nobody asks for are forgotten.
const MAX_NAMES: usize = 16 * 1024;

/// Why DNS told no address.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DnsError {
    /// There is no DNS to ask.
    #[error(
        "no address is known: neither the state file nor a Connector has one, and no DNS is configured"
    )]
    NotConfigured,
    /// No such name, or no address in its records.
    #[error("no address is known: {0} has none")]
    Empty(String),
    /// The servers failed.
    #[error("looking up {name}: {reason}")]
    Failed {
        /// The name.
        name: String,
        /// What happened.
        reason: String,
    },
}

/// A resolver with a short memory.
#[derive(Debug)]
pub struct Dns {
    origin: String,
    resolver: TokioResolver,
    names: SyncMutex<HashMap<EndpointId, Arc<Slot>>>,
}

/// One name; its lock makes concurrent questions one query.
#[derive(Debug, Default)]
struct Slot(Mutex<Option<Answer>>);

#[derive(Debug, Clone)]
struct Answer {
    asked: Instant,
    until: Instant,
    result: Result<Addresses, DnsError>,
}

/// The resolver could not be made.
#[derive(Debug, thiserror::Error)]
#[error("the DNS resolver: {0}")]
pub struct BuildError(String);

impl Dns {
    /// Asks exactly the configured servers.
    ///
    /// # Errors
    /// When the resolver cannot be made.
    pub fn new(config: &DnsConfig) -> Result<Self, BuildError> {
        let servers = config.servers.iter().map(|addr| server(*addr)).collect();
        let config_ = ResolverConfig::from_parts(None, Vec::new(), servers);
        let mut builder = Resolver::builder_with_config(config_, TokioRuntimeProvider::default());
        let options = builder.options_mut();
        options.timeout = TRY_TIMEOUT;
        options.attempts = 1;
        // This module remembers by itself: it must be able to ask afresh.
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        options.try_tcp_on_error = true;
        let resolver = builder.build().map_err(|e| BuildError(e.to_string()))?;
        Ok(Self {
            origin: config.origin.clone(),
            resolver,
            names: SyncMutex::default(),
        })
    }

    /// The addresses published for a connector.
    ///
    /// # Errors
    /// When there are none or the servers fail.
    pub async fn resolve(
        &self,
        id: EndpointId,
        freshness: Freshness,
    ) -> Result<Addresses, DnsError> {
        let slot = self.slot(id);
        let mut answer = slot.0.lock().await;
        let now = Instant::now();
        if let Some(known) = &*answer {
            let young = now < known.asked + FLOOR;
            if young || (freshness == Freshness::Cached && now < known.until) {
                return known.result.clone();
            }
        }
        let (mut result, ttl) = self.query(id).await;
        // A failing server takes nothing away that it has told before.
        if matches!(result, Err(DnsError::Failed { .. }))
            && let Some(Answer {
                result: Ok(old), ..
            }) = &*answer
        {
            result = Ok(old.clone());
        }
        *answer = Some(Answer {
            asked: now,
            until: Instant::now() + ttl.clamp(FLOOR, CAP),
            result: result.clone(),
        });
        result
    }

    fn slot(&self, id: EndpointId) -> Arc<Slot> {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if names.len() >= MAX_NAMES {
            names.retain(|_, slot| Arc::strong_count(slot) > 1);
        }
        names.entry(id).or_default().clone()
    }

    async fn query(&self, id: EndpointId) -> (Result<Addresses, DnsError>, Duration) {
        let name = format!("_iroh.{}.{}.", id.to_z32(), self.origin);
        let lookup = self.resolver.lookup(name.clone(), RecordType::TXT);
        let failed = |reason: String| DnsError::Failed {
            name: name.clone(),
            reason,
        };
        let answer = match tokio::time::timeout(TIMEOUT, lookup).await {
            Err(_) => return (Err(failed("no answer in time".into())), NEGATIVE),
            Ok(Err(error)) if is_negative(&error) => {
                return (Err(DnsError::Empty(name)), NEGATIVE);
            }
            Ok(Err(error)) => return (Err(failed(error.to_string())), NEGATIVE),
            Ok(Ok(answer)) => answer,
        };
        let (addresses, ttl) = read_answer(answer.answers());
        if addresses.is_empty() {
            return (Err(DnsError::Empty(name)), NEGATIVE);
        }
        (Ok(addresses), ttl)
    }
}

/// The addresses in an answer, and for how long they may be kept.
pub fn read_answer(records: &[Record]) -> (Addresses, Duration) {
    let mut addresses = Addresses::default();
    let mut ttl = CAP;
    for record in records.iter().take(MAX_RECORDS) {
        let RData::TXT(txt) = &record.data else {
            continue;
        };
        ttl = ttl.min(Duration::from_secs(record.ttl.into()));
        // The strings of one record are one text (RFC 7208 section 3.3
        // reads TXT the same way).
        let text = txt.txt_data.concat();
        if let Some(addr) = attribute(&text) {
            addresses.add(addr);
        }
    }
    (addresses, ttl)
}

fn server(addr: SocketAddr) -> NameServerConfig {
    let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
    for connection in &mut connections {
        connection.port = addr.port();
    }
    NameServerConfig::new(addr.ip(), true, connections)
}

fn is_negative(error: &NetError) -> bool {
    error.is_no_records_found() || error.is_nx_domain()
}

/// One record's address; `None` for what is unknown or broken.
fn attribute(text: &[u8]) -> Option<TransportAddr> {
    let (key, value) = std::str::from_utf8(text).ok()?.split_once('=')?;
    match key {
        "addr" => value.parse().ok().map(TransportAddr::Ip),
        "relay" => relay_url(value).map(TransportAddr::Relay),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_attribute_is_read_and_what_is_unknown_is_skipped() {
        let read =
            |text: &str| attribute(text.as_bytes()).map(|a| Addresses::from_iter([a]).to_string());
        assert_eq!(read("addr=192.0.2.1:7").as_deref(), Some("192.0.2.1:7"));
        assert_eq!(read("addr=[::1]:7").as_deref(), Some("[::1]:7"));
        assert_eq!(
            read("relay=https://r.example/?a=b=c").as_deref(),
            Some("https://r.example/?a=b=c"),
        );
        for text in [
            "ver=1",
            "addr",
            "",
            "=",
            "addr=",
            "addr=a.example:7",
            "addr=192.0.2.1",
            "relay=ftp://x/",
            "relay=",
            "user-data=a=b",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
        assert_eq!(attribute(&[0xff, b'=', 1]), None);
    }
}
