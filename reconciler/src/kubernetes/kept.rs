//! All objects of one kind, as last heard of from the API server.
//!
//! A watch keeps them; what this process itself writes is noted at once
//! ([`Kept::wrote`], [`Kept::deleted`]), so that nobody here decides on a state
//! that this process has already changed. Whoever listens is told after the
//! store was updated.

mod state;

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use kube::{Resource, ResourceExt as _, core::DeserializeGuard, core::ObjectMeta};
use tokio::sync::watch;

use state::State;

/// What names an object of a kind: its namespace (empty when it has none) and its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

/// One object is another now.
#[derive(Debug)]
pub struct Change<K> {
    /// Which.
    pub key: Key,
    /// Before; `None` when it was not there (or could not be read).
    pub old: Option<Arc<K>>,
    /// Now; `None` when it is gone (or cannot be read).
    pub new: Option<Arc<K>>,
    /// Whether this process did it: the one that did knows already.
    pub own: bool,
}

/// An object that does not have the form of its kind.
#[derive(Debug, Clone)]
pub struct Malformed {
    /// What could be read of it.
    pub metadata: ObjectMeta,
    /// What is wrong.
    pub error: String,
}

/// How well a kind is known.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// All objects are known.
    Synced,
    /// Nothing is known yet.
    Starting,
    /// The API server does not have this kind: its CRD is not installed.
    Absent,
    /// It cannot be watched; the text says why.
    Failing(String),
}

/// All objects of a kind. Clones share them.
pub struct Kept<K> {
    inner: Arc<Inner<K>>,
}

/// A write of this process that is under way ([`Kept::writing`]).
pub struct Writing<'a, K: Resource + Clone> {
    kept: &'a Kept<K>,
    key: Key,
}

type Listener<K> = Box<dyn Fn(&Change<K>) + Send + Sync>;

struct Inner<K> {
    state: RwLock<State<K>>,
    listeners: RwLock<Vec<Listener<K>>>,
    health: watch::Sender<Health>,
    /// One for each watch; there are several when only some namespaces are watched.
    scopes: RwLock<Vec<Health>>,
}

impl Key {
    /// A key.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// An object's.
    pub fn of<K: Resource>(object: &K) -> Self {
        Self::of_meta(object.meta())
    }

    fn of_meta(meta: &ObjectMeta) -> Self {
        Self {
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
        }
    }
}

impl<K> Clone for Kept<K> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
        }
    }
}

impl<K: Resource + Clone> Default for Kept<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Resource + Clone> Kept<K> {
    /// None yet.
    pub fn new() -> Self {
        Self {
            inner: Arc::new(Inner {
                state: RwLock::default(),
                listeners: RwLock::default(),
                health: watch::Sender::new(Health::Starting),
                scopes: RwLock::default(),
            }),
        }
    }

    /// One by its key.
    pub fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.read().objects.get(key).cloned()
    }

    /// One by its UID.
    pub fn by_uid(&self, uid: &str) -> Option<Arc<K>> {
        let state = self.read();
        let key = state.by_uid.get(uid)?;
        state.objects.get(key).cloned()
    }

    /// One that cannot be read.
    pub fn malformed(&self, key: &Key) -> Option<Malformed> {
        self.read().malformed.get(key).cloned()
    }

    /// Every one, by key.
    pub fn all(&self) -> Vec<Arc<K>> {
        self.read().objects.values().cloned().collect()
    }

    /// Those of a namespace, by name.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        self.filter_in(namespace, |_| true)
    }

    /// Those of a namespace that pass, by name.
    pub fn filter_in(&self, namespace: &str, wanted: impl Fn(&K) -> bool) -> Vec<Arc<K>> {
        let state = self.read();
        let range = state.objects.range(Key::new(namespace, "")..);
        let own = range.take_while(|(key, _)| key.namespace == namespace);
        let found = own.filter(|(_, object)| wanted(object));
        found.map(|(_, object)| object.clone()).collect()
    }

    /// Those that pass, by key.
    pub fn filter(&self, wanted: impl Fn(&K) -> bool) -> Vec<Arc<K>> {
        let state = self.read();
        let found = state.objects.values().filter(|object| wanted(object));
        found.cloned().collect()
    }

    /// The first, if there is any.
    pub fn any(&self) -> Option<Arc<K>> {
        self.read().objects.values().next().cloned()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.read().objects.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Calls `listener` after every change, from now on. It must be quick and
    /// must not wait: it stands in the way of the watch.
    pub fn on_change(&self, listener: impl Fn(&Change<K>) + Send + Sync + 'static) {
        let mut listeners = self.inner.listeners.write();
        let listeners = listeners.as_mut().unwrap_or_else(|e| e.get_mut());
        listeners.push(Box::new(listener));
    }

    /// How well the kind is known, now and later.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.inner.health.subscribe()
    }

    /// Whether all objects are known.
    pub fn is_synced(&self) -> bool {
        *self.inner.health.borrow() == Health::Synced
    }

    /// A write of this process begins. What the watch says of the object until
    /// the guard is dropped is told after that: of the write itself the watch
    /// may hear before the answer is here, and would take it for another's.
    pub fn writing(&self, key: &Key) -> Writing<'_, K> {
        self.write().write_begins(key);
        Writing {
            kept: self,
            key: key.clone(),
        }
    }

    /// Notes what the API server answered to a write of this process.
    pub fn wrote(&self, object: &K) {
        let mut object = object.clone();
        object.managed_fields_mut().clear();
        let change = self.write().wrote(object);
        self.tell(change);
    }

    /// Notes that this process deleted an object.
    pub fn deleted(&self, key: &Key, uid: &str) {
        let change = self.write().deleted(key, uid);
        self.tell(change);
    }

    /// Registers a watch; its number.
    pub(super) fn scope(&self) -> usize {
        let mut scopes = self.inner.scopes.write();
        let scopes = scopes.as_mut().unwrap_or_else(|e| e.get_mut());
        scopes.push(Health::Starting);
        scopes.len() - 1
    }

    /// What a watch says of itself. The worst of a kind's watches counts.
    pub(super) fn set_health(&self, scope: usize, health: Health) {
        let mut scopes = self.inner.scopes.write();
        let scopes = scopes.as_mut().unwrap_or_else(|e| e.get_mut());
        scopes[scope] = health;
        let worst = scopes.iter().max().cloned().unwrap_or(Health::Starting);
        self.inner.health.send_if_modified(|now| {
            let other = *now != worst;
            *now = worst;
            other
        });
    }

    /// The watch says that this object is there.
    pub(super) fn seen(&self, object: DeserializeGuard<K>) {
        let change = self.write().seen(object);
        self.tell(change);
    }

    /// The watch says that this object is gone.
    pub(super) fn lost(&self, object: DeserializeGuard<K>) {
        let change = self.write().lost(object);
        self.tell(change);
    }

    /// A list begins.
    pub(super) fn list_begins(&self) {
        self.write().list_begins();
    }

    /// A list did not come to its end.
    pub(super) fn list_failed(&self) {
        self.write().list_ends();
    }

    /// A list of the objects of a namespace (or of all) is complete.
    pub(super) fn listed(&self, namespace: Option<&str>, objects: Vec<DeserializeGuard<K>>) {
        let changes = self.write().listed(namespace, objects);
        for change in changes {
            self.tell(Some(change));
        }
    }

    fn tell(&self, change: Option<Change<K>>) {
        let Some(change) = change else { return };
        let listeners = self.inner.listeners.read();
        let listeners = listeners.unwrap_or_else(PoisonError::into_inner);
        for listener in listeners.iter() {
            listener(&change);
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, State<K>> {
        let state = self.inner.state.read();
        state.unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State<K>> {
        let state = self.inner.state.write();
        state.unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Resource + Clone> Drop for Writing<'_, K> {
    fn drop(&mut self) {
        let changes = self.kept.write().write_ends(&self.key);
        for change in changes {
            self.kept.tell(Some(change));
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace.as_str() {
            "" => f.write_str(&self.name),
            namespace => write!(f, "{namespace}/{}", self.name),
        }
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Synced => f.write_str("synced"),
            Self::Starting => f.write_str("not read yet"),
            Self::Absent => f.write_str("the API server does not have this kind"),
            Self::Failing(why) => f.write_str(why),
        }
    }
}

#[cfg(test)]
#[path = "kept_tests.rs"]
mod tests;
