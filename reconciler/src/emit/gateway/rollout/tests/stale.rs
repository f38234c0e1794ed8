//! Statuses that say that something is missing which is there.

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::{super::stale::Stale, statuses::*, *};

const DAY: i64 = 24 * 3600;

/// The status of the only route or policy, written so many seconds ago.
fn said(route: bool, found: bool, seconds: i64, generation: i64) -> (Vec<Bundle>, Observed, Stale) {
    let wanted = desired(on(&["a.example"], &[rule("/", A)]));
    let mut world = World::default();
    come_to_rest(&mut world, &wanted);
    let mut observed = world.observed();
    let now = Timestamp::from_second(DAY).expect("a time");
    let then = now - SignedDuration::from_secs(seconds);
    let at = Arc::make_mut(&mut observed.routes[0]);
    if route {
        at.metadata.generation = Some(generation);
        let mut status = route_status(at, true, found);
        let condition = &mut status.parents[0].conditions[1];
        condition.reason = "BackendNotFound".into();
        condition.last_transition_time.0 = then;
        at.status = Some(status);
    }
    let patch = Arc::make_mut(&mut observed.patches[0]);
    patch.metadata.generation = Some(if route { 1 } else { generation });
    let mut status = patch_status(patch, found);
    status.ancestors[0].conditions[1].last_transition_time.0 = then;
    patch.status = Some(status);
    let stale = stale(UID, &wanted, &observed, now);
    (wanted, observed, stale)
}

#[test]
fn what_is_true_or_young_is_believed() {
    let (_, _, stale) = said(false, true, DAY, 1);
    assert!(stale.apply.is_empty() && stale.next.is_none());
    for route in [true, false] {
        let (_, _, stale) = said(route, false, 10, 1);
        assert!(stale.apply.is_empty());
        assert_eq!(stale.next, Some(Duration::from_secs(5)));
    }
}

#[test]
fn a_policy_without_clusters_that_are_there_is_written_twice() {
    let (wanted, mut observed, stale) = said(false, false, 15, 1);
    let [Apply { object, create }] = &stale.apply[..] else {
        panic!("{stale:?}");
    };
    assert!(!create);
    let Object::Patch(other) = object else {
        panic!("{object:?}");
    };
    let patch = wanted[0].patch.as_ref().expect("a policy");
    assert_ne!(other.spec, patch.spec, "another generation");
    assert_eq!(other.spec.json_patches, patch.spec.json_patches);
    // And what the plan makes of it is what was wanted.
    observed.patches[0] = Arc::new(*other.clone());
    let plan = plan(UID, &wanted, &observed, &anything);
    let back = Object::Patch(Box::new(patch.clone()));
    assert_eq!(plan.apply.first().map(|a| &a.object), Some(&back));
}

#[test]
fn a_route_without_backends_that_are_there_is_written_twice() {
    let (wanted, mut observed, stale) = said(true, false, 15, 1);
    let [Apply { object, .. }] = &stale.apply[..] else {
        panic!("{stale:?}");
    };
    let Object::Route(other) = object else {
        panic!("{object:?}");
    };
    let rule = |r: &HttpRoute| r.spec.rules.clone().expect("rules")[0].clone();
    let (mut more, usual) = (rule(other), rule(&wanted[0].route));
    let never = more.matches.as_mut().and_then(Vec::pop).expect("a match");
    assert_eq!(more, usual, "what it does is the same");
    let headers = never.headers.expect("headers");
    assert_eq!(headers[0].name, "x-adit-retired", "no request has it");
    observed.routes[0] = Arc::new(*other.clone());
    let plan = plan(UID, &wanted, &observed, &anything);
    let back = Object::Route(Box::new(wanted[0].route.clone()));
    assert_eq!(plan.apply.first().map(|a| &a.object), Some(&back));
}

/// A route that is being brought in is not put right by the plan: it is asked
/// for by a match that comes and goes.
#[test]
fn a_route_that_is_being_brought_in_changes_each_time() {
    let (wanted, mut observed, _) = said(true, false, DAY, 1);
    let now = Timestamp::from_second(DAY).expect("a time");
    let status = observed.routes[0].status.clone();
    let mut counts = Vec::new();
    let mut route = super::object::retired(&wanted[0].route);
    for _ in 0..3 {
        let matches = route.spec.rules.as_ref().expect("rules")[0].matches.clone();
        counts.push(matches.map_or(0, |m| m.len()));
        route.metadata.generation = Some(1);
        route.status.clone_from(&status);
        observed.routes[0] = Arc::new(route);
        let stale = stale(UID, &wanted, &observed, now);
        let Some(Object::Route(next)) = stale.apply.into_iter().map(|a| a.object).next() else {
            panic!("nothing asked");
        };
        route = *next;
        assert!(super::object::is_retired(&route), "it takes no requests");
    }
    assert_eq!(counts, [1, 2, 1]);
}

#[test]
fn it_is_asked_less_and_less_often() {
    let due = |generation| said(false, false, 0, generation).2.next;
    for (generation, seconds) in [(1, 15), (3, 60), (5, 240), (11, 15_360), (1001, 15_360)] {
        assert_eq!(due(generation), Some(Duration::from_secs(seconds)));
    }
}

#[test]
fn what_may_be_the_truth_is_not_asked_for() {
    let now = Timestamp::from_second(DAY).expect("a time");
    let asked = |change: &dyn Fn(&mut Observed)| {
        let (wanted, mut observed, _) = said(true, false, DAY, 1);
        change(&mut observed);
        !stale(UID, &wanted, &observed, now).apply.is_empty()
    };
    assert!(asked(&|_| {}));
    // The Backend is missing indeed.
    assert!(!asked(&|o| o.backends.clear()));
    // The status is of before.
    assert!(!asked(&|o| {
        Arc::make_mut(&mut o.routes[0]).metadata.generation = Some(2);
    }));
    // Somebody else's.
    assert!(!asked(&|o| {
        Arc::make_mut(&mut o.routes[0]).metadata.labels = None;
    }));
    // Another reason.
    assert!(!asked(&|o| {
        let status = &mut Arc::make_mut(&mut o.routes[0]).status;
        let status = status.as_mut().expect("a status");
        status.parents[0].conditions[1].reason = "InvalidKind".into();
    }));
}
