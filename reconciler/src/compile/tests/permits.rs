//! Whether a target that was programmed before may still be reached.

use adit_wire::Target;
use serde_json::json;

use super::*;

/// A target, and what it was made of.
struct Scene {
    target: Target,
    before: Snapshot,
}

impl Scene {
    /// `a` (key 7) and `b` (key 8) serve port 80, `a` first.
    fn new() -> Self {
        let selector = json!({"selector": {"matchLabels": {"site": "north"}}});
        let spec = json!({"hostnames": ["shop.example"], "rules": [
            {"backends": [{"endpoint": "http://web.internal:80", "connector": selector}]}]});
        let before = Snapshot {
            proxies: vec![proxy("shop", spec)],
            connectors: vec![connector("a", 7, json!({})), connector("b", 8, json!({}))],
            advertisements: ["a", "b"].map(|c| advertises(c, "*", 80, "TCP")).into(),
            classes: vec![read(
                Kind::ConnectorClass,
                "datum-connect",
                json!({"spec": {}}),
            )],
        };
        let compiled = compile(&before, &options());
        assert_eq!(reasons(&compiled), []);
        let target = compiled
            .model
            .clusters
            .values()
            .find_map(|c| match &c.transport {
                Transport::Adit(target) => Some(target.clone()),
                _ => None,
            });
        let target = target.expect("a tunnel");
        assert_eq!(target.connectors.len(), 2);
        Self { target, before }
    }

    fn after(&self, change: impl FnOnce(&mut Snapshot)) -> bool {
        let mut now = self.before.clone();
        now.proxies.clear();
        change(&mut now);
        Permits::of(&now, &options()).allows("default", &self.target)
    }

    fn with(&self, a: adit_api::networking::Connector) -> bool {
        self.after(|now| now.connectors[0] = a)
    }
}

#[test]
fn what_is_advertised_still_may_be_reached_whoever_asks() {
    let scene = Scene::new();
    assert!(scene.after(|_| {}));
    assert!(
        scene.with(connector(
            "a",
            7,
            json!({"metadata": {"labels": {"site": "south"}}})
        )),
        "which connectors are wanted is another question"
    );
    let narrow = advertises("a", "web.internal", 80, "tcp");
    assert!(scene.after(|now| now.advertisements[0] = narrow));
    // Another Connector holds the key now, and advertises the same.
    assert!(scene.after(|now| {
        now.connectors[0] = connector("c", 7, json!({}));
        now.advertisements[0] = advertises("c", "*", 80, "TCP");
    }));
}

#[test]
fn each_connector_of_a_target_must_still_offer_it() {
    let scene = Scene::new();
    for (what, ad) in [
        ("another port", advertises("a", "*", 81, "TCP")),
        ("another protocol", advertises("a", "*", 80, "UDP")),
        ("another host", advertises("a", "db.internal", 80, "TCP")),
        ("another connector's", advertises("c", "*", 80, "TCP")),
    ] {
        assert!(!scene.after(|now| now.advertisements[0] = ad), "{what}");
    }
    for index in 0..2 {
        let withdrawn = |now: &mut Snapshot| drop(now.advertisements.remove(index));
        assert!(!scene.after(withdrawn), "withdrawn by {index}");
        let gone = |now: &mut Snapshot| drop(now.connectors.remove(index));
        assert!(!scene.after(gone), "connector {index} is gone");
    }
}

#[test]
fn a_connector_that_would_not_be_taken_any_more_is_not_reached_either() {
    let scene = Scene::new();
    let denied = json!({"type": "Ready", "status": "False", "reason": "Denied", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z"});
    for (what, change) in [
        (
            "disabled",
            json!({"spec": {"capabilities": [{"type": "ConnectTCP", "connectTCP": {"disabled": true}}]}}),
        ),
        (
            "denied",
            json!({"status": {"capabilities": [{"type": "ConnectTCP", "conditions": [denied]}]}}),
        ),
        (
            "of no class",
            json!({"spec": {"connectorClassName": "none"}}),
        ),
        ("silent", json!({"status": null})),
    ] {
        assert!(!scene.with(connector("a", 7, change)), "{what}");
    }
    assert!(
        !scene.with(connector("a", 9, json!({}))),
        "it has another key"
    );
}

#[test]
fn a_connector_of_another_namespace_permits_nothing() {
    let scene = Scene::new();
    let target = &scene.target;
    assert!(!Permits::of(&scene.before, &options()).allows("other", target));
    let elsewhere = |now: &mut Snapshot| {
        now.connectors[0].metadata.namespace = Some("other".into());
        now.advertisements[0].metadata.namespace = Some("other".into());
    };
    assert!(!scene.after(elsewhere));
}
