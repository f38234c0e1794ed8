//! Which dialers connectors let in: pure.
//!
//! A dialer says who it is by a Lease. When its Lease is deleted it goes at
//! once; when it is only not renewed, it stays for a while: a gateway that
//! cannot reach the Kubernetes API still serves, and must not be shut out.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use adit_wire::EndpointId;
use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt as _;

use super::liveness::{Heartbeat, Liveness, Now};

/// How long a dialer stays after its Lease has expired.
const GRACE: Duration = Duration::from_secs(10 * 60);
const MAX_DIALERS: usize = adit_api::networking::MAX_ALLOWED_DIALERS;

/// The dialers that are known, by the name of their Lease.
#[derive(Debug, Default)]
pub struct Dialers {
    known: BTreeMap<String, Dialer>,
}

#[derive(Debug)]
struct Dialer {
    uid: Option<String>,
    id: EndpointId,
    created: Option<k8s_openapi::jiff::Timestamp>,
    liveness: Liveness,
}

/// What a Lease of a dialer lacks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the Lease {0} has the label of a dialer, but its holderIdentity is no EndpointId of 64 hex digits"
)]
pub struct NotADialer(pub String);

impl Dialers {
    /// A Lease as it is now.
    ///
    /// # Errors
    /// When it names no EndpointId; it counts for nothing then.
    pub fn look(&mut self, lease: &Lease, now: Now) -> Result<(), NotADialer> {
        let name = lease.name_any();
        let holder = lease.spec.as_ref().and_then(|s| s.holder_identity.as_ref());
        // The strict form only: two forms of one key would be two entries.
        let id = holder
            .filter(|h| h.len() == 64)
            .and_then(|h| h.parse().ok());
        let Some(id) = id else {
            self.known.remove(&name);
            return Err(NotADialer(name));
        };
        let heartbeat = Heartbeat::of(lease.spec.as_ref());
        match self.known.get_mut(&name) {
            Some(dialer) if dialer.uid == lease.uid() && dialer.id == id => {
                dialer.liveness.look(heartbeat, now);
            }
            _ => {
                let dialer = Dialer {
                    uid: lease.uid(),
                    id,
                    created: lease.creation_timestamp().map(|t| t.0),
                    liveness: Liveness::first(heartbeat, now),
                };
                self.known.insert(name, dialer);
            }
        }
        Ok(())
    }

    /// A Lease is gone.
    pub fn gone(&mut self, name: &str) {
        self.known.remove(name);
    }

    /// The EndpointIds to let in, sorted; when one is due to go; and how many
    /// did not fit. The older Leases come first.
    pub fn allowed(&self, now: Now) -> (Vec<String>, Option<Duration>, usize) {
        let mut next: Option<Duration> = None;
        let mut alive = Vec::new();
        for (name, dialer) in &self.known {
            let Some(age) = dialer.liveness.age(now) else {
                continue;
            };
            let left = (dialer.liveness.duration() + GRACE).saturating_sub(age);
            if !left.is_zero() {
                next = Some(next.map_or(left, |n| n.min(left)));
                alive.push((dialer.created, name, dialer.id));
            }
        }
        alive.sort();
        let mut ids = BTreeSet::new();
        let mut left_out = 0;
        for (_, _, id) in alive {
            if ids.len() < MAX_DIALERS {
                ids.insert(id);
            } else if !ids.contains(&id) {
                left_out += 1;
            }
        }
        let ids = ids.iter().map(ToString::to_string).collect();
        (ids, next, left_out)
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{
        api::coordination::v1::LeaseSpec,
        apimachinery::pkg::apis::meta::v1::{MicroTime, Time},
        jiff::Timestamp,
    };
    use kube::core::ObjectMeta;

    use super::*;

    const NOON: i64 = 1_800_000_000;

    fn at(seconds: i64) -> Now {
        Now {
            wall: Timestamp::from_second(NOON + seconds).expect("in range"),
            steady: Duration::from_secs(u64::try_from(1000 + seconds).expect("positive")),
        }
    }

    fn id(byte: u8) -> String {
        EndpointId::from_bytes([byte; 32]).to_string()
    }

    fn lease(name: &str, holder: &str, renewed: Option<i64>) -> Lease {
        let time = |s: i64| Timestamp::from_second(NOON + s).expect("in range");
        Lease {
            metadata: ObjectMeta {
                name: Some(name.into()),
                uid: Some(format!("uid-{name}")),
                creation_timestamp: Some(Time(time(-1000))),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(holder.into()),
                renew_time: renewed.map(|s| MicroTime(time(s))),
                lease_duration_seconds: Some(30),
                ..LeaseSpec::default()
            }),
        }
    }

    #[test]
    fn dialers_are_sorted_and_each_is_named_once() {
        let mut dialers = Dialers::default();
        for (name, byte) in [("b", 9), ("a", 7), ("c", 9), ("d", 8)] {
            let lease = lease(name, &id(byte), Some(0));
            assert_eq!(dialers.look(&lease, at(0)), Ok(()));
        }
        assert_eq!(dialers.allowed(at(0)).0, [id(7), id(8), id(9)]);
    }

    #[test]
    fn an_expired_dialer_stays_for_a_grace_and_a_deleted_one_does_not() {
        let mut dialers = Dialers::default();
        let _ = dialers.look(&lease("a", &id(1), Some(0)), at(0));
        let _ = dialers.look(&lease("b", &id(2), Some(0)), at(0));
        let (ids, next, _) = dialers.allowed(at(600));
        assert_eq!(ids, [id(1), id(2)]);
        assert_eq!(next, Some(Duration::from_secs(30)));
        let _ = dialers.look(&lease("a", &id(1), Some(600)), at(600));
        assert_eq!(dialers.allowed(at(630)).0, [id(1)]);
        dialers.gone("a");
        assert_eq!(dialers.allowed(at(630)), (Vec::new(), None, 0));
    }

    /// As after a restart: nobody has heard this Lease before.
    fn alive_at_first_sight(renewed: i64, seen: i64) -> (bool, Option<Duration>) {
        let mut dialers = Dialers::default();
        let _ = dialers.look(&lease("a", &id(1), Some(renewed)), at(seen));
        let (ids, next, _) = dialers.allowed(at(seen));
        (!ids.is_empty(), next)
    }

    #[test]
    fn a_restart_neither_prolongs_nor_cuts_the_grace_of_an_expired_dialer() {
        let seconds = |s| Some(Duration::from_secs(s));
        // 30 s of the Lease and 10 minutes from the last renewal, whoever saw it.
        assert_eq!(alive_at_first_sight(0, 31), (true, seconds(599)));
        assert_eq!(alive_at_first_sight(0, 629), (true, seconds(1)));
        assert_eq!(alive_at_first_sight(0, 630), (false, None));
        assert_eq!(alive_at_first_sight(0, 86_400), (false, None));
        // Its clock is ahead: it counts from now, not from then.
        assert_eq!(alive_at_first_sight(3600, 0), (true, seconds(630)));
        // It goes at the end of the grace, and a renewal brings it back.
        let mut dialers = Dialers::default();
        let _ = dialers.look(&lease("a", &id(1), Some(0)), at(600));
        assert_eq!(dialers.allowed(at(629)).0, [id(1)]);
        assert_eq!(dialers.allowed(at(630)).0, Vec::<String>::new());
        let _ = dialers.look(&lease("a", &id(1), Some(700)), at(700));
        assert_eq!(dialers.allowed(at(700)).0, [id(1)]);
    }

    #[test]
    fn what_is_no_endpoint_id_lets_nobody_in() {
        let mut dialers = Dialers::default();
        let z32 = EndpointId::from_bytes([1; 32]).to_z32();
        for holder in ["", "any", "*", &id(1)[1..], &format!("{} ", id(1)), &z32] {
            let lease = lease("a", holder, Some(0));
            assert!(dialers.look(&lease, at(0)).is_err(), "{holder:?}");
        }
        // One that was a dialer and is none any more goes too.
        let _ = dialers.look(&lease("a", &id(1), Some(0)), at(0));
        assert!(dialers.look(&lease("a", "x", Some(0)), at(1)).is_err());
        assert_eq!(dialers.allowed(at(1)).0, Vec::<String>::new());
    }

    #[test]
    fn a_lease_that_was_never_renewed_lets_nobody_in() {
        let mut dialers = Dialers::default();
        let _ = dialers.look(&lease("a", &id(1), None), at(0));
        assert_eq!(dialers.allowed(at(0)).0, Vec::<String>::new());
    }

    #[test]
    fn there_are_bounds() {
        let mut dialers = Dialers::default();
        for number in 0..MAX_DIALERS + 7 {
            let id = format!("{number:064x}");
            let _ = dialers.look(&lease(&format!("d{number:03}"), &id, Some(0)), at(0));
        }
        let (ids, _, left_out) = dialers.allowed(at(0));
        assert_eq!((ids.len(), left_out), (MAX_DIALERS, 7));
    }
}
