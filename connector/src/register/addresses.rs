//! Where this agent can be reached, as its Connector says it.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use adit_tunnel::ids;
use iroh::{Endpoint, TransportAddr, Watcher};
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

/// As the API bounds the list.
const MAX_ADDRESSES: usize = 16;
/// At the start and after a change of network, addresses come in a burst: one
/// write is enough.
const QUIET: Duration = Duration::from_millis(500);
/// Addresses that never rest are told all the same.
const PATIENCE: Duration = Duration::from_secs(3);

/// The content of `status.connectionDetails`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Details {
    /// The EndpointId: 64 hex digits.
    pub(crate) id: String,
    /// The home relay's URL.
    pub(crate) relay: Option<String>,
    /// Sorted, so that the same addresses are the same text.
    pub(crate) addresses: Vec<SocketAddr>,
}

impl Details {
    /// What an endpoint says of itself, and the sockets it is bound to.
    pub(crate) fn of(endpoint: &Endpoint) -> Self {
        let said = endpoint.addr();
        let direct = said.addrs.iter().filter_map(|addr| match addr {
            TransportAddr::Ip(addr) => Some(*addr),
            _ => None,
        });
        let relay = said.addrs.iter().find_map(|addr| match addr {
            TransportAddr::Relay(url) => Some(url.to_string()),
            _ => None,
        });
        Self {
            id: ids::to_wire(endpoint.id()).to_string(),
            relay,
            addresses: choose(direct.chain(endpoint.bound_sockets())),
        }
    }
}

/// Follows the endpoint and every later one, until the task is dropped.
pub(crate) async fn follow(
    mut endpoints: watch::Receiver<Endpoint>,
    told: watch::Sender<Option<Details>>,
) {
    loop {
        let endpoint = endpoints.borrow_and_update().clone();
        let mut addresses = endpoint.watch_addr();
        loop {
            let deadline = Instant::now() + PATIENCE;
            loop {
                let quiet = (Instant::now() + QUIET).min(deadline);
                // An endpoint that is closed changes no more.
                if !matches!(timeout_at(quiet, addresses.updated()).await, Ok(Ok(_)))
                    || Instant::now() >= deadline
                {
                    break;
                }
            }
            let details = Details::of(&endpoint);
            told.send_if_modified(|old| {
                let news = old.as_ref() != Some(&details);
                if news {
                    *old = Some(details);
                }
                news
            });
            let changed = async {
                if addresses.updated().await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                () = changed => {}
                replaced = endpoints.changed() => match replaced {
                    Ok(()) => break,
                    Err(_) => return,
                },
            }
        }
    }
}

/// The addresses that may be of use to others, the best when there are too
/// many. This machine's own loopback only when there is nothing else, as in a
/// test.
fn choose(addrs: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let ranked: BTreeSet<(u8, SocketAddr)> = addrs
        .filter(|addr| addr.port() != 0)
        .map(|addr| SocketAddr::new(addr.ip().to_canonical(), addr.port()))
        .filter_map(|addr| Some((rank(&addr)?, addr)))
        .collect();
    let others = ranked.iter().any(|(rank, _)| *rank != LOOPBACK);
    let mut chosen: Vec<_> = ranked
        .into_iter()
        .filter(|(rank, _)| !others || *rank != LOOPBACK)
        .map(|(_, addr)| addr)
        .take(MAX_ADDRESSES)
        .collect();
    chosen.sort_unstable();
    chosen
}

const LOOPBACK: u8 = 9;

/// Public ones before private ones; `None` for what nobody else can use.
fn rank(addr: &SocketAddr) -> Option<u8> {
    let ip = addr.ip();
    if ip.is_unspecified() || ip.is_multicast() {
        return None;
    }
    if ip.is_loopback() {
        return Some(LOOPBACK);
    }
    match ip {
        std::net::IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            // RFC 6598: behind a carrier's NAT.
            let shared = a == 100 && (64..128).contains(&b);
            match ip.is_private() || shared {
                _ if ip.is_link_local() || ip.is_broadcast() => None,
                true => Some(1),
                false => Some(0),
            }
        }
        std::net::IpAddr::V6(ip) => match ip.segments()[0] {
            // fe80::/10 means nothing without an interface's name.
            first if first & 0xffc0 == 0xfe80 => None,
            // fc00::/7, RFC 4193.
            first if first & 0xfe00 == 0xfc00 => Some(1),
            _ => Some(0),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(addrs: &[&str]) -> Vec<String> {
        let parsed = addrs.iter().map(|a| a.parse().expect("an address"));
        choose(parsed).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_order_in_which_addresses_come_does_not_matter() {
        let one = chosen(&["10.0.0.2:7", "192.0.2.1:7", "[2001:db8::1]:7", "10.0.0.2:7"]);
        let two = chosen(&["[2001:db8::1]:7", "192.0.2.1:7", "10.0.0.2:7"]);
        assert_eq!(one, two);
        assert_eq!(one, ["10.0.0.2:7", "192.0.2.1:7", "[2001:db8::1]:7"]);
    }

    #[test]
    fn what_nobody_else_can_use_is_not_told() {
        let useless = [
            "0.0.0.0:7",
            "[::]:7",
            "127.0.0.1:7",
            "[fe80::1]:7",
            "169.254.1.1:7",
            "224.0.0.1:7",
            "192.0.2.1:0",
        ];
        let mut all = useless.to_vec();
        all.push("[::ffff:10.0.0.2]:7");
        assert_eq!(chosen(&all), ["10.0.0.2:7"]);
        assert_eq!(chosen(&useless), ["127.0.0.1:7"], "better than nothing");
    }

    #[test]
    fn of_too_many_the_public_ones_stay() {
        let mut many: Vec<String> = (0..40).map(|i| format!("10.0.0.{i}:7")).collect();
        many.push("192.0.2.1:7".into());
        many.push("[2001:db8::1]:7".into());
        let chosen = chosen(&many.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(chosen.len(), MAX_ADDRESSES);
        assert!(chosen.contains(&"192.0.2.1:7".to_owned()));
        assert!(chosen.contains(&"[2001:db8::1]:7".to_owned()));
    }
}
