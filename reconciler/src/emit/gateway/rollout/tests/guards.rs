//! Other hands, other owners, and what does not come back.

use super::{super::super::MANAGED_BY_LABEL, *};

#[test]
fn what_is_not_ours_is_neither_changed_nor_deleted() {
    let wanted = desired(on(&["a.example"], &[rule("/", A)]));
    let mut foreign = wanted[0].backends[0].clone();
    foreign.metadata.labels = None;
    foreign.spec.endpoints.clear();
    let mut stranger = wanted[0].route.clone();
    stranger.metadata.name = Some("by-hand".into());
    stranger.labels_mut().remove(MANAGED_BY_LABEL);
    let observed = Observed {
        backends: vec![Arc::new(foreign)],
        routes: vec![Arc::new(stranger)],
        ..Observed::default()
    };
    let plan = plan(UID, &wanted, &observed, &anything);
    assert_eq!(plan.delete, []);
    let kinds: Vec<_> = plan.refused.iter().map(|r| r.kind).collect();
    assert_eq!(kinds, [Kind::Backend]);
    assert!(plan.apply.iter().all(|a| a.object.kind() != Kind::Backend));
    assert!(!plan.is_done());
}

#[test]
fn a_change_by_another_hand_is_put_right() {
    let wanted = desired(on(&["a.example"], &[rule("/", A)]));
    let mut world = World::default();
    come_to_rest(&mut world, &wanted);
    let mut observed = world.observed();
    let patch = Arc::make_mut(&mut observed.patches[0]);
    patch.spec.json_patches.pop();
    let plan_ = plan(UID, &wanted, &observed, &anything);
    assert_eq!(plan_.apply.len(), 1);
    assert_eq!(plan_.apply[0].object.kind(), Kind::Patch);
    assert!(!plan_.apply[0].create);
    // An API server's defaults are no change.
    let mut observed = world.observed();
    let route = Arc::make_mut(&mut observed.routes[0]);
    let rules = route.spec.rules.as_mut().expect("rules");
    rules[0].name = Some("added".into());
    assert!(plan(UID, &wanted, &observed, &anything).is_done());
}

#[test]
fn a_policy_whose_gateway_is_gone_does_not_wait_for_its_status() {
    let wanted = desired(on(&["a.example"], &[rule("/", A)]));
    let mut world = World::default();
    come_to_rest(&mut world, &wanted);
    let mut observed = world.observed();
    observed.routes.clear();
    assert!(plan(UID, &[], &observed, &anything).delete.is_empty());
    observed.gateways.clear();
    let gone = plan(UID, &[], &observed, &anything).delete;
    assert_eq!(gone.first().map(|g| g.kind), Some(Kind::Patch));
}

/// Envoy is a little behind; the pause is for a retired route alone.
#[test]
fn a_retired_route_goes_after_a_pause() {
    let old = desired(on(&["a.example"], &[rule("/", A)]));
    let new = desired(on(&["a.example"], &[rule("/", B)]));
    let mut world = World::default();
    come_to_rest(&mut world, &old);
    let mut steps = Vec::new();
    for _ in 0..20 {
        let plan = plan(UID, &new, &world.observed(), &anything);
        let routes = plan.delete.iter().filter(|d| d.kind == Kind::Route).count();
        assert_eq!(plan.pause.is_some(), routes > 0);
        if routes > 0 {
            let observed = world.observed();
            let mut annotations = observed.routes.iter().map(|r| r.annotations().keys());
            steps.push(annotations.any(|mut k| k.any(|k| k.ends_with("/retired"))));
        }
        plan.apply.iter().for_each(|a| world.apply(a));
        plan.delete.iter().for_each(|d| world.delete(d));
        world.settle();
    }
    assert_eq!(steps, [true], "one route went, and was retired before");
}
