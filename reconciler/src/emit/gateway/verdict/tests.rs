//! One status after the other: what is said of it, in which words.

use adit_api::envoy_gateway::{AncestorRef, AncestorStatus, PolicyStatus};
use gateway_api::gateways::{GatewayStatus, GatewayStatusListeners};
use serde_json::json;

use super::super::{
    Users, bundles, extension as made_extension, made_gateway,
    rollout::tests::statuses::{condition, patch_status, route_status},
    tests::{options, setting, snapshot},
};
use super::*;
use crate::compile::compile;

/// Everything as it should be.
struct Scene {
    desired: Vec<Bundle>,
    observed: Observed,
    gateway: Gateway,
    extension: EnvoyExtensionPolicy,
}

impl Scene {
    fn new() -> Self {
        let mut snapshot = snapshot(include_str!("../rollout/tests/connectors.yaml"));
        snapshot.proxies = vec![
            serde_json::from_value(json!({
                "apiVersion": "networking.datumapis.com/v1alpha", "kind": "HTTPProxy",
                "metadata": {"name": "public", "namespace": "default", "uid": "u"},
                "spec": {"hostnames": ["a.example"], "rules": [{"backends": [
                    {"endpoint": "http://127.0.0.1:8001", "connector": {"name": "north"}}]}]},
            }))
            .expect("well formed"),
        ];
        let model = compile(&snapshot, &options()).model;
        let setting = super::super::Setting {
            users: Users::default(),
            ..setting()
        };
        let desired = bundles(&snapshot.proxies[0], &model, &setting);
        let mut route = desired[0].route.clone();
        route.metadata.generation = Some(3);
        route.status = Some(route_status(&route, true, true));
        let mut patch = desired[0].patch.clone().expect("a tunnel");
        patch.metadata.generation = Some(5);
        patch.status = Some(patch_status(&patch, true));
        let observed = Observed {
            routes: vec![Arc::new(route)],
            patches: vec![Arc::new(patch)],
            ..Observed::default()
        };
        let mut gateway = made_gateway(&snapshot.proxies[0], "adit");
        gateway.status = Some(GatewayStatus {
            listeners: Some(vec![listener("http", true)]),
            ..GatewayStatus::default()
        });
        let (mut extension, _) = made_extension(&setting.gateway, "adit", &Default::default());
        extension.metadata.generation = Some(2);
        extension.status = Some(about(&[condition("Accepted", true, "Accepted", Some(2))]));
        Self {
            desired,
            observed,
            gateway,
            extension,
        }
    }

    fn verdict(&self) -> Result<(), NotYet> {
        programmed(
            &self.desired,
            &self.observed,
            Some(&self.gateway),
            Some(&self.extension),
        )
    }

    fn route(&mut self) -> &mut HttpRoute {
        Arc::make_mut(&mut self.observed.routes[0])
    }

    fn patch(&mut self) -> &mut EnvoyPatchPolicy {
        Arc::make_mut(&mut self.observed.patches[0])
    }

    fn reason(&self) -> Reason {
        self.verdict().expect_err("not programmed").reason
    }

    fn message(&self) -> String {
        self.verdict().expect_err("not programmed").message
    }
}

fn listener(name: &str, programmed: bool) -> GatewayStatusListeners {
    GatewayStatusListeners {
        name: name.into(),
        conditions: vec![condition(
            "Programmed",
            programmed,
            "AddressNotUsable",
            Some(1),
        )],
        ..GatewayStatusListeners::default()
    }
}

fn about(conditions: &[Condition]) -> PolicyStatus {
    PolicyStatus {
        ancestors: vec![AncestorStatus {
            ancestor_ref: AncestorRef {
                name: "public".into(),
                namespace: Some("default".into()),
                ..AncestorRef::default()
            },
            controller_name: "gateway.envoyproxy.io/gatewayclass-controller".into(),
            conditions: conditions.to_vec(),
        }],
    }
}

#[test]
fn what_envoy_gateway_has_taken_is_programmed() {
    assert_eq!(Scene::new().verdict(), Ok(()));
}

#[test]
fn the_gateway_must_be_there_with_a_listener_that_works() {
    let scene = Scene::new();
    let none = programmed(
        &scene.desired,
        &scene.observed,
        None,
        Some(&scene.extension),
    );
    assert_eq!(
        none.expect_err("no Gateway").reason,
        Reason::GatewayNotFound
    );

    let mut scene = Scene::new();
    scene.gateway.status = None;
    assert_eq!(scene.reason(), Reason::GatewayNotReady);

    let status = scene.gateway.status.get_or_insert_default();
    status.listeners = Some(vec![listener("http", false)]);
    assert_eq!(scene.reason(), Reason::GatewayNotReady);
    assert!(
        scene.message().contains("AddressNotUsable"),
        "{}",
        scene.message()
    );

    let status = scene.gateway.status.get_or_insert_default();
    status.listeners = Some(vec![listener("http", false), listener("https", true)]);
    assert_eq!(scene.verdict(), Ok(()), "one is enough");
}

#[test]
fn nothing_at_all_is_not_programmed() {
    let mut scene = Scene::new();
    scene.desired.clear();
    assert_eq!(scene.reason(), Reason::Invalid);
}

#[test]
fn a_status_of_before_a_change_does_not_count() {
    let mut scene = Scene::new();
    scene.route().metadata.generation = Some(4);
    assert_eq!(scene.reason(), Reason::Pending);

    let mut scene = Scene::new();
    scene.patch().metadata.generation = Some(6);
    assert_eq!(scene.reason(), Reason::Pending);

    let mut scene = Scene::new();
    scene.extension.metadata.generation = Some(3);
    assert_eq!(scene.reason(), Reason::Pending);
}

#[test]
fn what_is_not_there_or_not_as_wanted_is_pending() {
    let mut scene = Scene::new();
    scene.observed.routes.clear();
    assert_eq!(scene.reason(), Reason::Pending);

    let mut scene = Scene::new();
    scene.route().status = None;
    assert_eq!(scene.reason(), Reason::Pending);

    let mut scene = Scene::new();
    scene.patch().spec.json_patches.pop();
    assert_eq!(scene.reason(), Reason::Pending);

    let mut scene = Scene::new();
    scene.patch().status = None;
    assert_eq!(scene.reason(), Reason::Pending);
}

#[test]
fn the_status_for_another_gateway_does_not_count() {
    let mut scene = Scene::new();
    let status = scene.route().status.as_mut().expect("a status");
    status.parents[0].parent_ref.name = "other".into();
    assert_eq!(scene.reason(), Reason::Pending);

    let mut scene = Scene::new();
    let status = scene.extension.status.as_mut().expect("a status");
    status.ancestors[0].ancestor_ref.namespace = Some("other".into());
    assert_eq!(scene.reason(), Reason::Pending);
}

#[test]
fn a_refused_route_says_what_envoy_gateway_said() {
    for refused in [(false, true), (true, false)] {
        let mut scene = Scene::new();
        let status = route_status(scene.route(), refused.0, refused.1);
        scene.route().status = Some(status);
        assert_eq!(scene.reason(), Reason::Invalid);
        assert!(scene.message().contains("says Envoy Gateway"));
    }
}

#[test]
fn a_patch_that_finds_no_cluster_yet_is_pending_and_a_bad_one_invalid() {
    let mut scene = Scene::new();
    let status = patch_status(scene.patch(), false);
    scene.patch().status = Some(status);
    assert_eq!(scene.reason(), Reason::Pending);

    let status = scene.patch().status.as_mut().expect("a status");
    status.ancestors[0].conditions[1].reason = "Invalid".into();
    assert_eq!(scene.reason(), Reason::Invalid);
}

#[test]
fn patch_policies_that_are_off_have_a_reason_of_their_own() {
    let mut scene = Scene::new();
    let disabled = condition("Accepted", false, "Disabled", Some(5));
    scene.patch().status.as_mut().expect("a status").ancestors[0].conditions = vec![disabled];
    assert_eq!(scene.reason(), Reason::PatchPolicyDisabled);
    assert!(scene.message().contains("enableEnvoyPatchPolicy"));
}

#[test]
fn backends_that_are_off_are_named_though_the_patch_waits_for_their_clusters() {
    let mut scene = Scene::new();
    let mut off = condition("ResolvedRefs", false, "UnsupportedValue", Some(3));
    off.message = "Failed to process route rule 0 backendRef 0: Backend is disabled in Envoy Gateway configuration.".into();
    let status = scene.route().status.as_mut().expect("a status");
    let conditions = &mut status.parents[0].conditions;
    conditions.retain(|c| c.type_ != "ResolvedRefs");
    conditions.push(off);
    assert_eq!(scene.reason(), Reason::Invalid);
    let waits = condition("Programmed", false, "ResourceNotFound", Some(5));
    let status = scene.patch().status.as_mut().expect("a status");
    status.ancestors[0]
        .conditions
        .retain(|c| c.type_ != "Programmed");
    status.ancestors[0].conditions.push(waits);
    assert_eq!(scene.reason(), Reason::Invalid);
    assert!(scene.message().contains("enableBackend"));
    // What it said before is no news.
    scene.route().metadata.generation = Some(4);
    assert_eq!(scene.reason(), Reason::Pending);
}

#[test]
fn the_filters_policy_may_be_displaced_refused_or_merged() {
    let with = |conditions: &[Condition]| {
        let mut scene = Scene::new();
        scene.extension.status = Some(about(conditions));
        scene.verdict().map_err(|e| e.reason)
    };
    let now = Some(2);
    let conflict = condition("Accepted", false, "Conflicted", now);
    assert_eq!(with(&[conflict]), Err(Reason::PolicyOverridden));
    let accepted = condition("Accepted", true, "Accepted", now);
    let overridden = condition("Overridden", true, "Overridden", now);
    assert_eq!(with(&[accepted, overridden]), Err(Reason::PolicyOverridden));
    let mut unlisted = condition("Accepted", false, "Invalid", now);
    // As Envoy Gateway 1.9.1 says it.
    unlisted.message = "DynamicModule: dynamic module \"adit\" is not registered in the EnvoyProxy dynamicModules allowlist.".into();
    assert_eq!(with(&[unlisted]), Err(Reason::ModuleNotInstalled));
    let mut other = condition("Accepted", false, "Invalid", now);
    other.message = "Lua: Lua is disabled".into();
    assert_eq!(with(&[other]), Err(Reason::Invalid));
    assert_eq!(with(&[condition("Merged", true, "Merged", now)]), Ok(()));
    assert_eq!(with(&[]), Err(Reason::Pending));
}

#[test]
fn what_a_person_must_act_on_comes_before_what_takes_time() {
    let mut scene = Scene::new();
    scene.route().status = None;
    let disabled = condition("Accepted", false, "Disabled", Some(5));
    scene.patch().status.as_mut().expect("a status").ancestors[0].conditions = vec![disabled];
    assert_eq!(scene.reason(), Reason::PatchPolicyDisabled);
}

#[test]
fn text_of_others_is_short_and_plain() {
    let hostile = format!("a\u{1b}[31m\nb{}", "x".repeat(10_000));
    let text = sanitised(&hostile);
    assert!(text.chars().count() <= MAX_TEXT + 1 && text.ends_with('…'));
    assert!(!text.chars().any(char::is_control), "{text}");
}
