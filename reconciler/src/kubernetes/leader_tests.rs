use serde_json::json;

use super::*;

const OURS: Duration = Duration::from_secs(15);

fn held(by: &str, renewed: &str, seconds: i64) -> Lease {
    let spec = json!({"holderIdentity": by, "renewTime": renewed, "leaseDurationSeconds": seconds});
    serde_json::from_value(json!({"metadata": {"name": "l"}, "spec": spec})).expect("a Lease")
}

#[test]
fn a_lease_is_taken_after_its_duration_by_our_clock_whatever_its_times_say() {
    // An hour behind, an hour ahead, and at the end of time.
    for renewed in [
        "2026-11-20T00:00:00.000000Z",
        "2036-11-20T00:00:00.000000Z",
        "1970-01-01T00:00:00.000000Z",
    ] {
        let mut watch = Watch::default();
        let lease = held("other", renewed, 15);
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        assert!(watch.holder(&lease, start, OURS).is_some());
        assert!(watch.holder(&lease, after(14), OURS).is_some());
        assert_eq!(watch.holder(&lease, after(15), OURS), None);
    }
}

#[test]
fn each_renewal_begins_the_duration_anew() {
    let mut watch = Watch::default();
    let start = Instant::now();
    for seconds in (0..120).step_by(10) {
        let renewed = format!(
            "2026-11-20T00:{:02}:{:02}.000000Z",
            seconds / 60,
            seconds % 60
        );
        let now = start + Duration::from_secs(seconds);
        assert!(
            watch
                .holder(&held("other", &renewed, 15), now, OURS)
                .is_some()
        );
    }
}

#[test]
fn an_empty_lease_is_free_at_once() {
    let mut watch = Watch::default();
    assert_eq!(
        watch.holder(
            &held("", "2026-11-20T00:00:00.000000Z", 15),
            Instant::now(),
            OURS
        ),
        None
    );
    assert_eq!(watch.holder(&Lease::default(), Instant::now(), OURS), None);
}

#[test]
fn a_duration_of_no_sense_is_ours_and_a_longer_one_is_respected() {
    for (seconds, lasts) in [(-5, 15), (0, 15), (1, 15), (60, 60), (1_000_000, 15)] {
        let mut watch = Watch::default();
        let lease = held("other", "2026-11-20T00:00:00.000000Z", seconds);
        let start = Instant::now();
        watch.holder(&lease, start, OURS);
        let almost = start + Duration::from_secs(lasts) - Duration::from_millis(1);
        assert!(watch.holder(&lease, almost, OURS).is_some(), "{seconds}");
        let after = start + Duration::from_secs(lasts);
        assert_eq!(watch.holder(&lease, after, OURS), None, "{seconds}");
    }
}

#[test]
fn the_holder_has_stopped_before_anyone_may_take_the_lease() {
    let election = Election::new("adit", "leader");
    let sent = Instant::now();
    let fence = Fence {
        start: sent,
        until: Arc::default(),
    };
    fence.extend(sent + election.term());
    let closes = Duration::from_millis(fence.until.load(Ordering::Acquire));
    assert!(closes < election.duration, "{closes:?}");
    assert!(fence.open());
    fence.close();
    assert!(!fence.open());
}

#[test]
fn two_processes_of_one_host_are_two() {
    let (one, two) = (Election::new("a", "l"), Election::new("a", "l"));
    assert_ne!(one.identity, two.identity);
}

#[test]
fn taking_over_counts_and_renewing_does_not() {
    let election = Election::new("a", "l");
    let old = held("other", "2026-11-20T00:00:00.000000Z", 15)
        .spec
        .expect("a spec");
    let taken = election.spec(&old);
    assert_eq!(taken.lease_transitions, Some(1));
    assert_eq!(taken.acquire_time, taken.renew_time);
    let renewed = election.spec(&taken);
    assert_eq!(renewed.lease_transitions, Some(1));
    assert_eq!(renewed.acquire_time, taken.acquire_time);
}
