//! Tests of [`Kept`]: what is known, and what listeners are told.

use std::sync::{Arc, Mutex};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::core::{DeserializeGuard, ObjectMeta, error_boundary::InvalidObject};

use super::*;

fn object(name: &str, uid: &str, version: u32) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            namespace: Some("ns".into()),
            name: Some(name.into()),
            uid: Some(uid.into()),
            resource_version: Some(version.to_string()),
            ..ObjectMeta::default()
        },
        ..ConfigMap::default()
    }
}

fn read(object: ConfigMap) -> DeserializeGuard<ConfigMap> {
    DeserializeGuard(Ok(object))
}

fn version(kept: &Kept<ConfigMap>, name: &str) -> Option<String> {
    let object = kept.get(&Key::new("ns", name))?;
    object.metadata.resource_version.clone()
}

/// A store and what it tells: `name: old version -> new version`.
fn told() -> (Kept<ConfigMap>, Arc<Mutex<Vec<String>>>) {
    let kept = Kept::new();
    let told = Arc::new(Mutex::new(Vec::new()));
    let log = told.clone();
    let inside = kept.clone();
    kept.on_change(move |change: &Change<ConfigMap>| {
        let show = |o: &Option<Arc<ConfigMap>>| {
            let version = o.as_ref().and_then(|o| o.metadata.resource_version.clone());
            version.unwrap_or("-".into())
        };
        let known = inside.get(&change.key);
        let new = change.new.as_ref();
        assert_eq!(
            known.map(|k| k.metadata.resource_version.clone()),
            new.map(|n| n.metadata.resource_version.clone()),
            "a listener is told after the store was updated"
        );
        let name = &change.key.name;
        let line = format!("{name}: {} -> {}", show(&change.old), show(&change.new));
        log.lock().unwrap().push(line);
    });
    (kept, told)
}

fn take(told: &Mutex<Vec<String>>) -> Vec<String> {
    std::mem::take(&mut told.lock().unwrap())
}

#[test]
fn a_second_list_tells_only_of_what_differs() {
    let (kept, told) = told();
    let first = vec![read(object("a", "1", 1)), read(object("b", "2", 2))];
    kept.list_begins();
    kept.listed(None, first);
    assert_eq!(take(&told), ["a: - -> 1", "b: - -> 2"]);
    kept.list_begins();
    let second = vec![read(object("b", "2", 5)), read(object("c", "3", 4))];
    kept.listed(None, second);
    assert_eq!(take(&told), ["b: 2 -> 5", "c: - -> 4", "a: 1 -> -"]);
}

#[test]
fn a_list_of_one_namespace_leaves_the_others_alone() {
    let (kept, told) = told();
    kept.listed(Some("ns"), vec![read(object("a", "1", 1))]);
    kept.listed(Some("other"), Vec::new());
    assert_eq!(take(&told), ["a: - -> 1"]);
}

#[test]
fn the_echo_of_an_own_write_and_older_news_change_nothing() {
    let (kept, told) = told();
    kept.seen(read(object("a", "1", 1)));
    kept.wrote(&object("a", "1", 7));
    assert_eq!(take(&told), ["a: - -> 1", "a: 1 -> 7"]);
    kept.seen(read(object("a", "1", 6)));
    kept.seen(read(object("a", "1", 7)));
    assert_eq!(take(&told), Vec::<String>::new());
    assert_eq!(version(&kept, "a").as_deref(), Some("7"));
}

#[test]
fn a_deleted_object_does_not_come_back_by_older_news() {
    let (kept, told) = told();
    kept.seen(read(object("a", "1", 1)));
    kept.deleted(&Key::new("ns", "a"), "1");
    kept.seen(read(object("a", "1", 2)));
    assert_eq!(version(&kept, "a"), None);
    // A new object of that name is another object.
    kept.wrote(&object("a", "2", 9));
    kept.lost(read(object("a", "1", 3)));
    assert_eq!(version(&kept, "a").as_deref(), Some("9"));
    assert_eq!(take(&told), ["a: - -> 1", "a: 1 -> -", "a: - -> 9"]);
    assert!(kept.by_uid("1").is_none());
    assert!(kept.by_uid("2").is_some());
}

#[test]
fn a_list_that_began_before_a_write_does_not_undo_it() {
    let (kept, _) = told();
    kept.listed(None, vec![read(object("old", "1", 1))]);
    kept.list_begins();
    kept.wrote(&object("new", "2", 8));
    kept.deleted(&Key::new("ns", "old"), "1");
    kept.listed(None, vec![read(object("old", "1", 1))]);
    assert_eq!(version(&kept, "new").as_deref(), Some("8"));
    assert_eq!(version(&kept, "old"), None);
}

#[test]
fn a_malformed_object_is_known_as_such_until_it_is_repaired_or_gone() {
    let (kept, told) = told();
    let spoilt = || {
        DeserializeGuard(Err(InvalidObject {
            error: "no".into(),
            metadata: object("a", "1", 2).metadata,
        }))
    };
    kept.seen(read(object("a", "1", 1)));
    kept.seen(spoilt());
    let key = Key::new("ns", "a");
    assert_eq!(kept.malformed(&key).map(|m| m.error), Some("no".into()));
    kept.seen(read(object("a", "1", 3)));
    assert!(kept.malformed(&key).is_none());
    kept.seen(spoilt());
    kept.lost(spoilt());
    assert!(kept.malformed(&key).is_none());
    let expect = [
        "a: - -> 1",
        "a: 1 -> -",
        "a: - -> 3",
        "a: 3 -> -",
        "a: - -> -",
    ];
    assert_eq!(take(&told), expect);
}

#[test]
fn a_namespace_holds_its_own_objects_only() {
    let kept = Kept::new();
    for (namespace, name) in [("a", "z"), ("b", "x"), ("b", "y"), ("ba", "x")] {
        let mut object = object(name, &format!("{namespace}{name}"), 1);
        object.metadata.namespace = Some(namespace.into());
        kept.seen(read(object));
    }
    let names: Vec<_> = kept
        .in_namespace("b")
        .iter()
        .map(|o| Key::of(&**o))
        .collect();
    assert_eq!(names, [Key::new("b", "x"), Key::new("b", "y")]);
}

#[test]
fn a_kind_is_as_healthy_as_the_worst_of_its_watches() {
    let kept = Kept::<ConfigMap>::new();
    let (a, b) = (kept.scope(), kept.scope());
    kept.set_health(a, Health::Synced);
    assert!(!kept.is_synced());
    kept.set_health(b, Health::Synced);
    assert!(kept.is_synced());
    kept.set_health(a, Health::Absent);
    assert_eq!(*kept.health().borrow(), Health::Absent);
}

/// Who did what, as listeners are told: `own` or `other`, and the version.
fn by_whom(kept: &Kept<ConfigMap>) -> Arc<Mutex<Vec<String>>> {
    let told = Arc::new(Mutex::new(Vec::new()));
    let log = told.clone();
    kept.on_change(move |change: &Change<ConfigMap>| {
        let who = if change.own { "own" } else { "other" };
        let new = change.new.as_ref();
        let version = new.and_then(|o| o.metadata.resource_version.clone());
        let version = version.unwrap_or("-".into());
        log.lock().unwrap().push(format!("{who} {version}"));
    });
    told
}

#[test]
fn the_echo_of_an_own_write_that_comes_before_its_answer_is_no_news_of_others() {
    let kept = Kept::new();
    kept.seen(read(object("a", "1", 1)));
    let told = by_whom(&kept);
    let key = Key::new("ns", "a");
    let writing = kept.writing(&key);
    kept.seen(read(object("a", "1", 2)));
    assert_eq!(version(&kept, "a").as_deref(), Some("1"));
    kept.wrote(&object("a", "1", 2));
    drop(writing);
    assert_eq!(take(&told), ["own 2"]);
    let writing = kept.writing(&key);
    kept.lost(read(object("a", "1", 3)));
    kept.deleted(&key, "1");
    drop(writing);
    assert_eq!(take(&told), ["own -"]);
    // It is news again when nothing is being written.
    kept.seen(read(object("a", "2", 4)));
    assert_eq!(take(&told), ["other 4"]);
}

#[test]
fn what_others_do_during_a_write_is_told_after_it() {
    let kept = Kept::new();
    kept.seen(read(object("a", "1", 1)));
    let told = by_whom(&kept);
    let key = Key::new("ns", "a");
    let writing = kept.writing(&key);
    let second = kept.writing(&key);
    kept.seen(read(object("a", "1", 2)));
    kept.seen(read(object("a", "1", 3)));
    kept.wrote(&object("a", "1", 2));
    drop(writing);
    assert_eq!(take(&told), ["own 2"]);
    drop(second);
    assert_eq!(take(&told), ["other 3"]);
    // Also when the write came to nothing, and another object has the name.
    let writing = kept.writing(&key);
    kept.lost(read(object("a", "1", 4)));
    kept.seen(read(object("a", "2", 5)));
    drop(writing);
    assert_eq!(take(&told), ["other -", "other 5"]);
}

#[test]
fn a_list_during_a_write_outdates_what_was_said_before_it() {
    let kept = Kept::new();
    kept.seen(read(object("a", "1", 1)));
    let writing = kept.writing(&Key::new("ns", "a"));
    kept.seen(read(object("a", "1", 2)));
    kept.list_begins();
    kept.listed(None, Vec::new());
    drop(writing);
    assert_eq!(version(&kept, "a"), None);
}
