//! A Lease that says "I am alive": when to renew it, and how.
//!
//! ```text
//! renewed ──1/3──► try ──✗──► try ──✗──► try ──✗──► …   expired
//! 0                0.33       0.49       0.68          1.0   of the duration
//! ```
//!
//! A back-off that may reach the Lease's duration lets two failed renewals look
//! like a dead process. Here at least three attempts end, each with its
//! time-out, before the Lease expires.

use std::time::Duration;

use k8s_openapi::{
    api::coordination::v1::Lease, apimachinery::pkg::apis::meta::v1::MicroTime, jiff::Timestamp,
};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

/// What a Lease without a duration is taken to have.
pub const DEFAULT_DURATION: Duration = Duration::from_secs(30);
/// Shorter ones would be a busy loop, longer ones a process that is never
/// missed.
const BOUNDS: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(3600));
/// However long the Lease, no attempt takes longer.
const MAX_ATTEMPT: Duration = Duration::from_secs(10);
/// However long the Lease, no pause after a failure is longer.
const MAX_PAUSE: Duration = Duration::from_secs(15);

/// When to try next. It knows no clock; `dice` is between 0 and 1.
#[derive(Debug, Clone)]
pub struct Schedule {
    duration: Duration,
    failures: u32,
}

impl Schedule {
    /// For a Lease of this duration, which is kept within sane bounds.
    pub fn new(duration: Duration) -> Self {
        Self {
            duration: duration.clamp(BOUNDS.0, BOUNDS.1),
            failures: 0,
        }
    }

    /// The duration in use.
    pub fn duration(&self) -> Duration {
        self.duration
    }

    /// The Lease says another duration.
    pub fn set_duration(&mut self, duration: Duration) {
        self.duration = duration.clamp(BOUNDS.0, BOUNDS.1);
    }

    /// How long one attempt may take.
    pub fn attempt(&self) -> Duration {
        (self.duration / 8).min(MAX_ATTEMPT)
    }

    /// The pause after a renewal: a third of the duration, up to a fifth of
    /// that earlier, so that processes that started together drift apart.
    pub fn renewed(&mut self, dice: f64) -> Duration {
        self.failures = 0;
        (self.duration / 3).mul_f64(1.0 - 0.2 * dice.clamp(0.0, 1.0))
    }

    /// The pause after a failure: a thirty-second of the duration, doubled to
    /// an eighth at most, up to a half of it earlier.
    pub fn failed(&mut self, dice: f64) -> Duration {
        let pause = self.duration / 32 * (1 << self.failures.min(2));
        self.failures = self.failures.saturating_add(1);
        pause
            .min(MAX_PAUSE)
            .mul_f64(1.0 - 0.5 * dice.clamp(0.0, 1.0))
    }
}

/// The duration that a Lease says.
pub fn duration(lease: &Lease) -> Duration {
    let seconds = lease.spec.as_ref().and_then(|s| s.lease_duration_seconds);
    let said = seconds
        .and_then(|s| u64::try_from(s).ok())
        .filter(|s| *s > 0);
    said.map_or(DEFAULT_DURATION, Duration::from_secs)
        .clamp(BOUNDS.0, BOUNDS.1)
}

/// Who holds a Lease; nobody when the name is empty or missing.
pub fn holder(lease: &Lease) -> Option<&str> {
    let spec = lease.spec.as_ref()?;
    spec.holder_identity.as_deref().filter(|h| !h.is_empty())
}

/// When a Lease was renewed last.
pub fn renewed(lease: &Lease) -> Option<Timestamp> {
    let MicroTime(at) = lease.spec.as_ref()?.renew_time.as_ref()?;
    Some(*at)
}

/// A moment as a Lease holds it: exactly six digits (Kubernetes' MicroTime).
pub fn micro_time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

/// Writes `holder` and the time into a Lease as it was seen. Somebody else's
/// write in between is a conflict, not overwritten.
///
/// # Errors
/// What the API server or the way to it says.
pub async fn renew(
    api: &Api<Lease>,
    manager: &str,
    seen: &Lease,
    identity: &str,
) -> kube::Result<Lease> {
    let now = micro_time(Timestamp::now());
    let mut spec = json!({"holderIdentity": identity, "renewTime": now});
    if holder(seen) != Some(identity) {
        let before = seen.spec.as_ref().and_then(|s| s.lease_transitions);
        spec["acquireTime"] = json!(now);
        spec["leaseTransitions"] = json!(before.unwrap_or(0).max(0).saturating_add(1));
    }
    patch(api, manager, seen, spec).await
}

/// Empties a Lease: nobody holds it, and nobody has renewed it. Who judges by
/// either sees at once that the holder is gone.
///
/// # Errors
/// What the API server or the way to it says.
pub async fn release(api: &Api<Lease>, manager: &str, seen: &Lease) -> kube::Result<Lease> {
    let spec = json!({"holderIdentity": "", "renewTime": null, "acquireTime": null});
    patch(api, manager, seen, spec).await
}

async fn patch(api: &Api<Lease>, manager: &str, seen: &Lease, spec: Value) -> kube::Result<Lease> {
    let params = PatchParams {
        field_manager: Some(manager.to_owned()),
        ..PatchParams::default()
    };
    let version = seen.metadata.resource_version.as_deref();
    let body = json!({"metadata": {"resourceVersion": version}, "spec": spec});
    let name = seen.metadata.name.as_deref().unwrap_or_default();
    api.patch(name, &params, &Patch::Merge(body)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    const DURATIONS: [u64; 7] = [2, 3, 10, 30, 60, 300, 3600];
    const DICE: [f64; 3] = [0.0, 0.5, 1.0];

    #[test]
    fn three_attempts_that_all_time_out_end_before_the_lease_expires() {
        for seconds in DURATIONS {
            for dice in DICE {
                let mut schedule = Schedule::new(Duration::from_secs(seconds));
                let mut at = schedule.renewed(dice);
                for attempt in 0..3 {
                    at += schedule.attempt();
                    assert!(
                        at < schedule.duration(),
                        "attempt {attempt} of a Lease of {seconds} s ends at {at:?}"
                    );
                    at += schedule.failed(dice);
                }
            }
        }
    }

    #[test]
    fn an_attempt_is_shorter_than_a_sixth_and_a_pause_never_nears_the_duration() {
        for seconds in DURATIONS {
            let mut schedule = Schedule::new(Duration::from_secs(seconds));
            assert!(schedule.attempt() < schedule.duration() / 6);
            for _ in 0..1000 {
                assert!(schedule.failed(0.0) <= schedule.duration() / 8);
            }
        }
    }

    #[test]
    fn renewals_come_about_every_third_and_drift_apart() {
        let mut schedule = Schedule::new(Duration::from_secs(30));
        assert_eq!(schedule.renewed(0.0), Duration::from_secs(10));
        assert_eq!(schedule.renewed(1.0), Duration::from_secs(8));
        schedule.failed(0.0);
        schedule.failed(0.0);
        schedule.renewed(0.0);
        assert_eq!(schedule.failed(0.0), Duration::from_secs(30) / 32);
    }

    #[test]
    fn a_lease_of_no_sense_has_a_duration_of_sense() {
        let said = |seconds: Value| {
            let lease = json!({"metadata": {}, "spec": {"leaseDurationSeconds": seconds}});
            duration(&serde_json::from_value(lease).unwrap()).as_secs()
        };
        assert_eq!(said(json!(null)), 30);
        assert_eq!(said(json!(0)), 30);
        assert_eq!(said(json!(-7)), 30);
        assert_eq!(said(json!(1)), 2);
        assert_eq!(said(json!(15)), 15);
        assert_eq!(said(json!(i32::MAX)), 3600);
        assert_eq!(duration(&Lease::default()).as_secs(), 30);
    }

    #[test]
    fn a_time_has_six_digits_and_reads_back() {
        let at: Timestamp = "2026-11-20T01:02:03.5Z".parse().unwrap();
        assert_eq!(micro_time(at), "2026-11-20T01:02:03.500000Z");
        let lease =
            json!({"metadata": {}, "spec": {"renewTime": micro_time(at), "holderIdentity": ""}});
        let lease: Lease = serde_json::from_value(lease).unwrap();
        assert_eq!(renewed(&lease), Some(at));
        assert_eq!(holder(&lease), None);
    }
}
