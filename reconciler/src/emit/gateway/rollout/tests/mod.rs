//! Every step of every rollout: each request goes where the configuration of
//! before or of after sends it, whatever comes first to Envoy Gateway.
//!
//! The matrix: each change of `SCENES` x many schedules, in which one step of
//! the plan, the arrival of one kind's news and a translation alternate at
//! random (the seed is printed on failure).

mod guards;
mod scenes;
mod stale;
pub(in super::super) mod statuses;
mod world;

use adit_api::networking::HttpProxy;
use serde_json::{Value, json};

use super::super::{
    bundles,
    tests::{options, setting, snapshot},
};
use super::*;
use crate::{Snapshot, compile::compile};
use scenes::{A, B, BAD, C, on, rule, scenes};
use world::{Outcome, Request, World};

const CONNECTORS: &str = include_str!("connectors.yaml");
const UID: &str = "uid-of-the-proxy";
/// Steps after which a schedule must have come to rest.
const ENOUGH: usize = 400;

/// Schedules of each scene.
const SEEDS: u64 = 24;

/// What may be reached is as it was.
fn anything(_: &Target) -> bool {
    true
}

fn proxy(spec: Value) -> HttpProxy {
    let mut proxy: HttpProxy = serde_json::from_value(json!({
        "apiVersion": "networking.datumapis.com/v1alpha", "kind": "HTTPProxy",
        "metadata": {"name": "shop", "namespace": "default", "uid": UID}, "spec": spec,
    }))
    .expect("well formed");
    proxy.metadata.creation_timestamp = None;
    proxy
}

fn desired(spec: Value) -> Vec<Bundle> {
    let mut snapshot: Snapshot = snapshot(CONNECTORS);
    snapshot.proxies = vec![proxy(spec)];
    let compiled = compile(&snapshot, &options());
    bundles(&snapshot.proxies[0], &compiled.model, &setting())
}

fn requests() -> Vec<Request> {
    let mut requests = Vec::new();
    for host in ["a.example", "b.example", "c.example"] {
        for path in ["/", "/a", "/b", "/b/c", "/b/c/d", "/x", "/y"] {
            requests.push(Request {
                host,
                path,
                connect: false,
            });
        }
        requests.push(Request {
            host,
            path: "",
            connect: true,
        });
    }
    requests
}

/// Where everything goes once a configuration has settled.
fn settled(desired: &[Bundle]) -> BTreeMap<Request, Outcome> {
    let mut world = World::default();
    come_to_rest(&mut world, desired);
    requests()
        .into_iter()
        .map(|r| (r.clone(), world.send(&r)))
        .collect()
}

fn come_to_rest(world: &mut World, desired: &[Bundle]) {
    for _ in 0..ENOUGH {
        world.settle();
        let plan = plan(UID, desired, &world.observed(), &anything);
        if plan.is_done() {
            return;
        }
        assert!(
            !plan.apply.is_empty() || !plan.delete.is_empty(),
            "waits for ever: {:?}",
            plan.waiting
        );
        plan.apply.iter().for_each(|a| world.apply(a));
        plan.delete.iter().for_each(|d| world.delete(d));
    }
    panic!("no rest");
}

/// A generator of small numbers (Knuth's MMIX constants).
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// Whatever was wanted so far may be in effect; nothing else.
fn check(world: &World, wanted: &[BTreeMap<Request, Outcome>], context: &str) {
    for request in requests() {
        let outcome = world.send(&request);
        let expected: BTreeSet<_> = wanted.iter().map(|w| &w[&request]).collect();
        // Who is not served before or after may be told so in another way.
        let unserved = expected.contains(&Outcome::NoRoute) && outcome == Outcome::Failed;
        assert!(
            unserved || expected.contains(&outcome),
            "{context}: {request:?}: {outcome:?} instead of {expected:?}"
        );
    }
}

#[test]
fn no_step_of_any_rollout_loses_or_misleads_a_request() {
    for (name, specs) in scenes() {
        let stages: Vec<_> = specs.into_iter().map(desired).collect();
        let outcomes: Vec<_> = stages.iter().map(|s| settled(s)).collect();
        for seed in 0..SEEDS {
            let context = format!("{name}, seed {seed}");
            let mut dice = Dice(seed);
            let mut world = World::default();
            let mut allowed = vec![settled(&[])];
            come_to_rest(&mut world, &[]);
            for (stage, outcome) in stages.iter().zip(&outcomes) {
                allowed.push(outcome.clone());
                // Half of the time the next change comes before this one is done.
                let hurry = dice.below(2) == 0 && !std::ptr::eq(stage, &stages[stages.len() - 1]);
                let steps = if hurry { dice.below(40) } else { 100_000 };
                for _ in 0..steps {
                    if !step(&mut world, stage, &mut dice) {
                        allowed = vec![outcome.clone()];
                        break;
                    }
                    check(&world, &allowed, &context);
                }
            }
            come_to_rest(&mut world, &stages[stages.len() - 1]);
            check(&world, &outcomes[outcomes.len() - 1..], &context);
        }
    }
}

/// One small event; `false` when there is nothing to do any more.
fn step(world: &mut World, desired: &[Bundle], dice: &mut Dice) -> bool {
    match dice.below(8) {
        0 => world.news(Kind::Route),
        1 => world.news(Kind::Patch),
        2 => world.news(Kind::Backend),
        3 => world.news(Kind::Traffic),
        4 | 5 => world.translate(),
        _ => {
            let plan = plan(UID, desired, &world.observed(), &anything);
            match (plan.apply.first(), plan.delete.first()) {
                (Some(apply), _) => world.apply(apply),
                (None, Some(delete)) => world.delete(delete),
                (None, None) if plan.is_done() => {
                    world.settle();
                    return false;
                }
                (None, None) => {}
            }
        }
    }
    true
}

#[test]
fn what_has_settled_is_left_alone_and_nothing_stays_behind() {
    for (name, specs) in scenes() {
        let mut world = World::default();
        for spec in specs {
            let desired = desired(spec);
            come_to_rest(&mut world, &desired);
            let observed = world.observed();
            let count = |f: fn(&Bundle) -> usize| desired.iter().map(f).sum::<usize>();
            assert_eq!(observed.routes.len(), desired.len(), "{name}");
            assert_eq!(
                observed.backends.len(),
                count(|b| b.backends.len()),
                "{name}"
            );
            assert_eq!(
                observed.patches.len(),
                count(|b| b.patch.iter().len()),
                "{name}"
            );
            assert_eq!(
                observed.traffics.len(),
                count(|b| b.traffic.iter().len()),
                "{name}"
            );
            assert!(
                plan(UID, &desired, &observed, &anything).is_done(),
                "{name}"
            );
        }
        come_to_rest(&mut world, &[]);
        assert!(world.is_empty(), "{name}");
    }
}

#[test]
fn the_old_goes_on_when_the_new_is_refused() {
    let old = desired(on(&["a.example"], &[rule("/", A)]));
    let new = desired(on(&["a.example"], &[rule("/", B)]));
    let mut world = World::default();
    come_to_rest(&mut world, &old);
    world.refuses.insert(new[0].route.name_any());
    let request = Request {
        host: "a.example",
        path: "/",
        connect: false,
    };
    for _ in 0..20 {
        world.settle();
        let plan = plan(UID, &new, &world.observed(), &anything);
        assert_eq!(plan.delete, [], "the old route serves");
        assert!(!plan.is_done());
        plan.apply.iter().for_each(|a| world.apply(a));
        world.settle();
        assert_eq!(
            world.send(&request),
            Outcome::Reached("127.0.0.1:8001".into())
        );
    }
}

/// Otherwise requests of the one that goes would meet one that stays.
#[test]
fn an_old_route_stays_with_the_wider_old_one() {
    let old = desired(on(&["a.example"], &[rule("/b", B), rule("/", A)]));
    let new = desired(on(&["a.example"], &[rule("/q", B), rule("/", C)]));
    let mut world = World::default();
    come_to_rest(&mut world, &old);
    let stuck = new.iter().find(|b| {
        let rules = b.route.spec.rules.iter().flatten();
        let mut paths = rules.flat_map(|r| r.matches.iter().flatten().flat_map(|m| &m.path));
        paths.any(|p| p.value.as_deref() == Some("/q"))
    });
    world.refuses.insert(stuck.expect("/q").route.name_any());
    let request = Request {
        host: "a.example",
        path: "/b",
        connect: false,
    };
    for _ in 0..20 {
        let plan = plan(UID, &new, &world.observed(), &anything);
        plan.apply.iter().for_each(|a| world.apply(a));
        plan.delete.iter().for_each(|d| world.delete(d));
        world.settle();
        let outcome = world.send(&request);
        assert_ne!(outcome, Outcome::Reached("127.0.0.1:8001".into()));
    }
}

/// Security before availability: with or without a successor that works.
#[test]
fn what_may_not_be_reached_any_more_goes_at_once() {
    let old = desired(on(&["a.example"], &[rule("/b", B), rule("/", A)]));
    let forbidden = |target: &Target| target.service.port != 8002;
    for successor in [rule("/b", BAD), rule("/b", C)] {
        let new = desired(on(&["a.example"], &[successor, rule("/", A)]));
        let mut world = World::default();
        come_to_rest(&mut world, &old);
        // Envoy Gateway says nothing meanwhile.
        let plan = plan(UID, &new, &world.observed(), &forbidden);
        plan.apply.iter().for_each(|a| world.apply(a));
        let [gone] = plan.delete.as_slice() else {
            panic!("{:?}", plan.delete)
        };
        assert_eq!(gone.kind, Kind::Route);
        world.delete(gone);
        world.settle();
        let outcome = world.send(&Request {
            host: "a.example",
            path: "/b",
            connect: false,
        });
        assert_ne!(outcome, Outcome::Reached("127.0.0.1:8002".into()));
        assert_ne!(
            outcome,
            Outcome::Reached("127.0.0.1:8001".into()),
            "no other rule's"
        );
        let rest = world.send(&Request {
            host: "a.example",
            path: "/",
            connect: false,
        });
        assert_eq!(
            rest,
            Outcome::Reached("127.0.0.1:8001".into()),
            "the others go on"
        );
        come_to_rest(&mut world, &new);
    }
}

#[test]
fn the_gateway_changes_with_both_serving_in_between() {
    let spec = on(&["a.example"], &[rule("/", A)]);
    let old = desired(spec.clone());
    let mut snapshot: Snapshot = snapshot(CONNECTORS);
    snapshot.proxies = vec![proxy(spec)];
    let model = compile(&snapshot, &options()).model;
    let mut elsewhere = setting();
    elsewhere.gateway.name = "other".into();
    elsewhere.patch_target.name = "other".into();
    let new = bundles(&snapshot.proxies[0], &model, &elsewhere);
    let mut world = World::default();
    come_to_rest(&mut world, &old);
    let mut both = false;
    for _ in 0..ENOUGH {
        world.settle();
        let plan = plan(UID, &new, &world.observed(), &anything);
        if plan.is_done() {
            break;
        }
        plan.apply.iter().for_each(|a| world.apply(a));
        plan.delete.iter().for_each(|d| world.delete(d));
        let observed = world.observed();
        assert!(!observed.routes.is_empty());
        both |= observed.routes.len() == 2 && observed.patches.len() == 2;
    }
    assert!(both, "one went before the other came");
    assert_eq!(world.observed().routes.len(), 1);
}
