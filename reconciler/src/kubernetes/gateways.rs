//! What a Gateway gets once for all its tunnels: the EnvoyExtensionPolicy with
//! the module's filter, and a ReferenceGrant in each namespace of their routes.
//!
//! They are there before the first route and until the last one is gone.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use adit_api::{
    ResourceExt as _,
    envoy_gateway::{EnvoyExtensionPolicy, GROUP},
};
use gateway_api::{httproutes::HttpRoute, referencegrants::ReferenceGrant};

use super::{
    context::Context,
    ground::place,
    kept::{Change, Key},
    queue::{Outcome, Queue},
    stores::Stores,
    writer::WriteError,
    written::is_as_written,
};
use crate::emit::gateway::{self, MANAGED_BY, MANAGED_BY_LABEL, TUNNEL_LABEL, UID_LABEL};

/// A policy without any route stays for so long. One that is deleted and made
/// again at once keeps an empty status for ever: Envoy Gateway sees no
/// difference and writes none (seen with 1.9.1).
const LINGER: Duration = Duration::from_secs(10);

/// The Gateways that have tunnels, and who has them there.
pub struct Gateways {
    /// HTTPProxies with tunnels, by their Gateway.
    wanted: Mutex<BTreeMap<Key, BTreeSet<Key>>>,
    /// Gateways to look at.
    queue: Arc<Queue<Key>>,
    /// Since when a Gateway's policy has had no route.
    idle: Mutex<BTreeMap<Key, Instant>>,
    /// One writer at a time: what one looks at, another would change.
    turn: tokio::sync::Mutex<()>,
}

impl Gateways {
    /// Looks again when a route comes or goes, and when somebody else changes
    /// a policy or a grant.
    pub fn new(stores: &Stores) -> Self {
        let queue = Arc::new(Queue::new());
        let ask = queue.clone();
        stores.routes.on_change(move |change: &Change<HttpRoute>| {
            let (old, new) = (change.old.as_deref(), change.new.as_deref());
            let tunnels = |route: Option<&HttpRoute>| route.map(parents).unwrap_or_default();
            let (old, new) = (tunnels(old), tunnels(new));
            for gateway in old.symmetric_difference(&new) {
                ask.push(gateway.clone());
            }
        });
        let ask = queue.clone();
        stores
            .extensions
            .on_change(move |change: &Change<EnvoyExtensionPolicy>| {
                let policy = change.new.as_ref().or(change.old.as_ref());
                let ours = policy.filter(|p| !change.own && is_made(&p.metadata));
                if let Some(gateway) = ours.and_then(|p| gateway_of(p)) {
                    ask.push(gateway);
                }
            });
        let ask = queue.clone();
        let gateways = stores.gateways.clone();
        stores
            .grants
            .on_change(move |change: &Change<ReferenceGrant>| {
                let grant = change.new.as_ref().or(change.old.as_ref());
                let Some(grant) = grant.filter(|_| !change.own) else {
                    return;
                };
                for from in &grant.spec.from {
                    for gateway in gateways.in_namespace(&from.namespace) {
                        ask.push(Key::of(&*gateway));
                    }
                }
            });
        Self {
            wanted: Mutex::default(),
            queue,
            idle: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// An HTTPProxy has tunnels on a Gateway. When this is done, their filter
    /// is there.
    ///
    /// # Errors
    /// When it could not be written.
    pub async fn want(&self, ctx: &Context, gateway: &Key, proxy: &Key) -> Result<(), WriteError> {
        let left = {
            let mut wanted = self.lock();
            let left = remove(&mut wanted, proxy, Some(gateway));
            wanted
                .entry(gateway.clone())
                .or_default()
                .insert(proxy.clone());
            left
        };
        for gateway in left {
            self.queue.push(gateway);
        }
        self.write(ctx, gateway).await
    }

    /// An HTTPProxy has no tunnels any more.
    pub fn forget(&self, proxy: &Key) {
        let left = remove(&mut self.lock(), proxy, None);
        for gateway in left {
            self.queue.push(gateway);
        }
    }

    /// The policy of a Gateway.
    pub fn extension(ctx: &Context, gateway: &Key) -> Option<Arc<EnvoyExtensionPolicy>> {
        let (wish, _) =
            gateway::extension(&place(gateway), &ctx.config.module_name, &BTreeSet::new());
        let found = ctx.stores.extensions.get(&Key::of(&wish))?;
        is_made(&found.metadata).then_some(found)
    }

    /// How many Gateways wait to be looked at.
    pub fn queued(&self) -> usize {
        self.queue.waiting()
    }

    /// Ends [`Gateways::run`].
    pub fn close(&self) {
        self.queue.close();
    }

    /// Looks at Gateways until it is closed.
    pub async fn run(&self, ctx: &Context) {
        self.queue
            .work(1, async |gateway: Key| {
                let began = Instant::now();
                let result = self.write(ctx, &gateway).await;
                let failed = result.as_ref().err().map(WriteError::class);
                ctx.metrics.reconciled("Gateway", began.elapsed(), failed);
                match result {
                    Ok(()) => Outcome::Done,
                    Err(error) => {
                        tracing::warn!(%gateway, %error, "its policy or grants are not as wanted");
                        Outcome::Failed(error.class())
                    }
                }
            })
            .await;
    }

    /// Makes the policy and the grants what they have to be.
    async fn write(&self, ctx: &Context, gateway: &Key) -> Result<(), WriteError> {
        let (stores, writer) = (&ctx.stores, &ctx.writer);
        if self.is_right(ctx, gateway) {
            self.linger(gateway, false);
            return Ok(());
        }
        let _turn = self.turn.lock().await;
        let namespaces = self.namespaces(stores, gateway);
        let left = self.linger(gateway, namespaces.is_empty());
        if !left.is_zero() {
            self.queue.push_after(gateway.clone(), left);
            return Ok(());
        }
        let (policy, grants) =
            gateway::extension(&place(gateway), &ctx.config.module_name, &namespaces);
        for grant in &grants {
            let there = stores.grants.get(&Key::of(grant));
            if !there.is_some_and(|there| is_as_written(grant, &there)) {
                writer.apply(&stores.grants, grant).await?;
            }
        }
        let there = stores.extensions.get(&Key::of(&policy));
        match (namespaces.is_empty(), there) {
            (true, Some(there)) if is_made(&there.metadata) => {
                writer.delete(&stores.extensions, &*there).await?;
            }
            (true, _) => {}
            (false, Some(there)) if is_as_written(&policy, &there) => {}
            (false, _) => drop(writer.apply(&stores.extensions, &policy).await?),
        }
        for grant in self.useless(stores, gateway) {
            writer.delete(&stores.grants, &*grant).await?;
        }
        Ok(())
    }

    /// How long what an idle Gateway has is to stay.
    fn linger(&self, gateway: &Key, idle: bool) -> Duration {
        let mut since = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if !idle {
            since.remove(gateway);
            return Duration::ZERO;
        }
        let began = *since.entry(gateway.clone()).or_insert_with(Instant::now);
        LINGER.saturating_sub(began.elapsed())
    }

    /// Whether nothing is to be written.
    fn is_right(&self, ctx: &Context, gateway: &Key) -> bool {
        let stores = &ctx.stores;
        let namespaces = self.namespaces(stores, gateway);
        let (policy, grants) =
            gateway::extension(&place(gateway), &ctx.config.module_name, &namespaces);
        let there = stores.extensions.get(&Key::of(&policy));
        let policy_right = match (namespaces.is_empty(), there) {
            (true, there) => !there.is_some_and(|there| is_made(&there.metadata)),
            (false, there) => there.is_some_and(|there| is_as_written(&policy, &there)),
        };
        let grant_right = |grant: &ReferenceGrant| {
            let there = stores.grants.get(&Key::of(grant));
            there.is_some_and(|there| is_as_written(grant, &there))
        };
        policy_right && grants.iter().all(grant_right) && self.useless(stores, gateway).is_empty()
    }

    /// The namespaces of the routes that tunnel through a Gateway, and of
    /// those that are about to be written.
    fn namespaces(&self, stores: &Stores, gateway: &Key) -> BTreeSet<String> {
        let wanted = self.lock();
        let coming = wanted.get(gateway).into_iter().flatten();
        let coming = coming.map(|proxy| proxy.namespace.clone());
        let routes = stores.routes.filter(|r| parents(r).contains(gateway));
        let there = routes.iter().filter_map(|r| r.namespace());
        coming.chain(there).collect()
    }

    /// Our grants for policies of this Gateway's namespace where no Gateway of
    /// that namespace has routes.
    fn useless(&self, stores: &Stores, gateway: &Key) -> Vec<Arc<ReferenceGrant>> {
        let from = &gateway.namespace;
        let grants = stores.grants.filter(|g| {
            let mut froms = g.spec.from.iter();
            is_made(&g.metadata) && froms.any(|f| f.group == GROUP && f.namespace == *from)
        });
        if grants.is_empty() {
            return grants;
        }
        let mut used = self.namespaces(stores, gateway);
        for other in stores.gateways.in_namespace(from) {
            used.extend(self.namespaces(stores, &Key::of(&*other)));
        }
        let mut grants = grants;
        grants.retain(|g| !g.namespace().is_some_and(|n| used.contains(&n)));
        grants
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, BTreeSet<Key>>> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes an HTTPProxy from all Gateways but one; those that lost it.
fn remove(wanted: &mut BTreeMap<Key, BTreeSet<Key>>, proxy: &Key, but: Option<&Key>) -> Vec<Key> {
    let mut left = Vec::new();
    wanted.retain(|gateway, proxies| {
        if Some(gateway) != but && proxies.remove(proxy) {
            left.push(gateway.clone());
        }
        !proxies.is_empty()
    });
    left
}

/// The Gateways of a route that tunnels.
fn parents(route: &HttpRoute) -> BTreeSet<Key> {
    if route.labels().get(TUNNEL_LABEL).map(String::as_str) != Some("true") {
        return BTreeSet::new();
    }
    let own = route.namespace().unwrap_or_default();
    let parents = route.spec.parent_refs.iter().flatten();
    parents
        .map(|p| Key::new(p.namespace.as_deref().unwrap_or(&own), &p.name))
        .collect()
}

/// Whether an object was made here, for a Gateway and not for an HTTPProxy.
fn is_made(meta: &adit_api::ObjectMeta) -> bool {
    let labels = meta.labels.as_ref();
    labels.is_some_and(|l| {
        l.get(MANAGED_BY_LABEL).map(String::as_str) == Some(MANAGED_BY)
            && !l.contains_key(UID_LABEL)
    })
}

/// The Gateway that a policy of ours was made for, by its name.
fn gateway_of(policy: &EnvoyExtensionPolicy) -> Option<Key> {
    let name = policy.name_any();
    let gateway = name.strip_prefix("adit-")?;
    Some(Key::new(policy.namespace()?, gateway))
}
