//! What is known of the objects of one kind, and which news are news.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use kube::{
    Resource, ResourceExt as _,
    core::{DeserializeGuard, ObjectMeta},
};

use super::{Change, Key, Malformed};

/// All that is known.
pub(super) struct State<K> {
    pub(super) objects: BTreeMap<Key, Arc<K>>,
    pub(super) by_uid: HashMap<String, Key>,
    pub(super) malformed: BTreeMap<Key, Malformed>,
    /// UIDs that this process deleted, until the watch says so too: older news
    /// of them may still be under way.
    gone: HashSet<String>,
    /// How many lists are under way, and what was written meanwhile: a list may
    /// be older than that.
    lists: usize,
    touched: BTreeSet<Key>,
    /// What this process is writing, and what the watch said of it meanwhile.
    writing: HashMap<Key, Pending<K>>,
}

/// Writes of one object that are under way.
struct Pending<K> {
    writes: usize,
    news: Vec<News<K>>,
}

enum News<K> {
    Seen(DeserializeGuard<K>),
    Lost(DeserializeGuard<K>),
}

impl<K> Default for State<K> {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            by_uid: HashMap::new(),
            malformed: BTreeMap::new(),
            gone: HashSet::new(),
            lists: 0,
            touched: BTreeSet::new(),
            writing: HashMap::new(),
        }
    }
}

impl<K: Resource + Clone> State<K> {
    pub(super) fn write_begins(&mut self, key: &Key) {
        let pending = self.writing.entry(key.clone()).or_insert(Pending {
            writes: 0,
            news: Vec::new(),
        });
        pending.writes += 1;
    }

    /// Takes what the watch said meanwhile; it is no news if the answer said it.
    pub(super) fn write_ends(&mut self, key: &Key) -> Vec<Change<K>> {
        let Some(pending) = self.writing.get_mut(key) else {
            return Vec::new();
        };
        pending.writes = pending.writes.saturating_sub(1);
        if pending.writes > 0 {
            return Vec::new();
        }
        let pending = self.writing.remove(key);
        let news = pending.into_iter().flat_map(|p| p.news);
        let changes = news.filter_map(|news| match news {
            News::Seen(object) => self.seen(object),
            News::Lost(object) => self.lost(object),
        });
        changes.collect()
    }

    pub(super) fn wrote(&mut self, object: K) -> Option<Change<K>> {
        let key = Key::of(&object);
        if self.lists > 0 {
            self.touched.insert(key.clone());
        }
        self.put(key, object, true)
    }

    pub(super) fn deleted(&mut self, key: &Key, uid: &str) -> Option<Change<K>> {
        let known = self.objects.get(key)?;
        if known.uid().as_deref() != Some(uid) {
            return None;
        }
        self.gone.insert(uid.to_owned());
        if self.lists > 0 {
            self.touched.insert(key.clone());
        }
        self.take(key, true)
    }

    pub(super) fn seen(&mut self, object: DeserializeGuard<K>) -> Option<Change<K>> {
        let key = Key::of_meta(object.meta());
        if let Some(pending) = self.writing.get_mut(&key) {
            // Only the last version of an object matters.
            let same = |n: &News<K>| match n {
                News::Seen(before) => before.meta().uid == object.meta().uid,
                News::Lost(_) => false,
            };
            if pending.news.last().is_some_and(same) {
                pending.news.pop();
            }
            pending.news.push(News::Seen(object));
            return None;
        }
        match object.0 {
            Ok(object) => self.put(key, object, false),
            Err(invalid) => self.spoil(key, invalid.metadata, invalid.error),
        }
    }

    pub(super) fn lost(&mut self, object: DeserializeGuard<K>) -> Option<Change<K>> {
        let key = Key::of_meta(object.meta());
        if let Some(pending) = self.writing.get_mut(&key) {
            pending.news.push(News::Lost(object));
            return None;
        }
        let uid = object.meta().uid.clone().unwrap_or_default();
        self.gone.remove(&uid);
        let same = |meta: &ObjectMeta| meta.uid.as_deref() == Some(&uid);
        let malformed = self.malformed.get(&key);
        let was_malformed = malformed.is_some_and(|m| same(&m.metadata));
        // A new one of this name may have been noted by its writer already.
        match self.objects.get(&key) {
            Some(known) if same(known.meta()) => self.take(&key, false),
            _ if was_malformed => self.forget(key),
            _ => None,
        }
    }

    pub(super) fn list_begins(&mut self) {
        self.lists += 1;
    }

    pub(super) fn list_ends(&mut self) {
        self.lists = self.lists.saturating_sub(1);
        if self.lists == 0 {
            self.touched.clear();
            self.gone.clear();
        }
    }

    pub(super) fn listed(
        &mut self,
        namespace: Option<&str>,
        objects: Vec<DeserializeGuard<K>>,
    ) -> Vec<Change<K>> {
        let within = |key: &Key| namespace.is_none_or(|n| key.namespace == n);
        // What was said before the list is in it.
        for (_, pending) in self.writing.iter_mut().filter(|(key, _)| within(key)) {
            pending.news.clear();
        }
        let mut missing: BTreeSet<Key> = self
            .objects
            .keys()
            .chain(self.malformed.keys())
            .filter(|key| within(key) && !self.touched.contains(key))
            .cloned()
            .collect();
        let mut changes = Vec::new();
        for object in objects {
            let key = Key::of_meta(object.meta());
            missing.remove(&key);
            if self.touched.contains(&key) && !self.objects.contains_key(&key) {
                continue;
            }
            changes.extend(match object.0 {
                Ok(object) => self.put(key, object, false),
                Err(invalid) => self.spoil(key, invalid.metadata, invalid.error),
            });
        }
        for key in missing {
            let known = self.take(&key, false);
            changes.extend(known.or_else(|| self.forget(key)));
        }
        self.list_ends();
        changes
    }

    fn put(&mut self, key: Key, object: K, own: bool) -> Option<Change<K>> {
        let uid = object.uid().unwrap_or_default();
        if self.gone.contains(&uid) {
            return None;
        }
        if let Some(known) = self.objects.get(&key)
            && known.meta().uid == object.meta().uid
            && !newer(object.meta(), known.meta())
        {
            return None;
        }
        self.malformed.remove(&key);
        let new = Arc::new(object);
        let old = self.objects.insert(key.clone(), new.clone());
        if let Some(other) = old.as_ref().and_then(|o| o.uid()).filter(|o| *o != uid) {
            self.by_uid.remove(&other);
        }
        self.by_uid.insert(uid, key.clone());
        Some(Change {
            key,
            old,
            new: Some(new),
            own,
        })
    }

    fn take(&mut self, key: &Key, own: bool) -> Option<Change<K>> {
        let old = self.objects.remove(key)?;
        if let Some(uid) = old.uid() {
            self.by_uid.remove(&uid);
        }
        Some(Change {
            key: key.clone(),
            old: Some(old),
            new: None,
            own,
        })
    }

    fn spoil(&mut self, key: Key, mut metadata: ObjectMeta, error: String) -> Option<Change<K>> {
        metadata.managed_fields = None;
        // Its status may be written while it is malformed: no news.
        let same = |m: &Malformed| {
            m.metadata.uid == metadata.uid && m.metadata.generation == metadata.generation
        };
        if self.malformed.get(&key).is_some_and(same) {
            return None;
        }
        let old = self.take(&key, false).and_then(|change| change.old);
        let malformed = Malformed { metadata, error };
        self.malformed.insert(key.clone(), malformed);
        Some(Change {
            key,
            old,
            new: None,
            own: false,
        })
    }

    /// A malformed one is gone.
    fn forget(&mut self, key: Key) -> Option<Change<K>> {
        self.malformed.remove(&key)?;
        Some(Change {
            key,
            old: None,
            new: None,
            own: false,
        })
    }
}

/// Whether an object is a later version than the known one of the same UID.
/// Versions are compared as numbers, as Kubernetes 1.35 and later promise and
/// every version does; what is no number is taken as newer.
fn newer(object: &ObjectMeta, known: &ObjectMeta) -> bool {
    let number = |meta: &ObjectMeta| meta.resource_version.as_deref()?.parse::<u128>().ok();
    match (number(object), number(known)) {
        (Some(object), Some(known)) => object > known,
        _ => true,
    }
}
