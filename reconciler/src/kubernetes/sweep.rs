//! Removes what was made for HTTPProxies that are gone.
//!
//! Within a namespace owner references do that; a policy in its Gateway's
//! namespace cannot have an owner. Nothing is deleted because a store does not
//! know its owner: each owner is asked for first.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use adit_api::{
    ResourceExt as _,
    labels::{MANAGED_BY, MANAGED_BY_LABEL},
    networking::HttpProxy,
};
use kube::{
    Api,
    core::{ObjectMeta, PartialObjectMeta},
};

use super::{
    context::Context,
    kept::{Change, Kept},
    queue::{Outcome, Queue},
    stores::Stores,
    writer::WriteError,
    written::Written,
};
use crate::emit::gateway::{NAMESPACE_LABEL, PROXY_LABEL, UID_LABEL};
use adit_control::Class;

/// The owners to look after, by what is left of them.
pub struct Sweep {
    queue: Arc<Queue<Orphan>>,
}

/// An HTTPProxy that is perhaps gone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Orphan {
    namespace: String,
    name: String,
    uid: String,
}

impl Sweep {
    /// Looks when an HTTPProxy goes, and at what has none when it is seen.
    pub fn new(stores: &Stores) -> Self {
        let queue = Arc::new(Queue::new());
        let ask = queue.clone();
        stores.proxies.on_change(move |change: &Change<HttpProxy>| {
            let new = change.new.as_ref().and_then(|p| p.uid());
            if let Some(old) = change.old.as_ref().filter(|old| old.uid() != new) {
                ask.push(Orphan {
                    namespace: change.key.namespace.clone(),
                    name: change.key.name.clone(),
                    uid: old.uid().unwrap_or_default(),
                });
            }
        });
        Self { queue }
    }

    /// Asks for the owner of everything that was made here and that no known
    /// HTTPProxy owns: what was left while nobody looked.
    pub fn look_around(&self, stores: &Stores) {
        let all = metas(&stores.patches)
            .into_iter()
            .chain(metas(&stores.routes))
            .chain(metas(&stores.backends))
            .chain(metas(&stores.traffic));
        let orphans: BTreeSet<_> = all
            .filter_map(|meta| orphan(&meta))
            .filter(|o| stores.proxies.by_uid(&o.uid).is_none())
            .collect();
        for orphan in orphans {
            self.queue.push(orphan);
        }
    }

    /// Ends [`Sweep::run`].
    pub fn close(&self) {
        self.queue.close();
    }

    /// How many wait.
    pub fn queued(&self) -> usize {
        self.queue.waiting()
    }

    /// Sweeps until it is closed.
    pub async fn run(&self, ctx: &Context) {
        self.queue
            .work(2, async |orphan: Orphan| {
                let began = Instant::now();
                let result = sweep(ctx, &orphan).await;
                let failed = result.as_ref().err().map(WriteError::class);
                ctx.metrics.reconciled("Leftover", began.elapsed(), failed);
                match result {
                    Ok(()) => Outcome::Done,
                    Err(error) => {
                        let owner = format!("{}/{}", orphan.namespace, orphan.name);
                        tracing::warn!(owner, %error, "leftovers of an HTTPProxy remain");
                        Outcome::Failed(error.class())
                    }
                }
            })
            .await;
    }
}

/// Removes what is left of one HTTPProxy, if it is really gone: routes first,
/// so that no route loses its policy.
async fn sweep(ctx: &Context, orphan: &Orphan) -> Result<(), WriteError> {
    let stores = &ctx.stores;
    let left = |meta: &ObjectMeta| self::orphan(meta).is_some_and(|o| o.uid == orphan.uid);
    if lives(ctx, orphan).await? {
        return Ok(());
    }
    remove(ctx, &stores.routes, left).await?;
    remove(ctx, &stores.patches, left).await?;
    remove(ctx, &stores.traffic, left).await?;
    remove(ctx, &stores.backends, left).await?;
    remove(ctx, &stores.gateways, left).await
}

/// Whether an HTTPProxy of this UID exists, as the API server says now.
async fn lives(ctx: &Context, orphan: &Orphan) -> Result<bool, WriteError> {
    let api: Api<PartialObjectMeta<HttpProxy>> =
        Api::namespaced(ctx.writer.client().clone(), &orphan.namespace);
    let found = ctx
        .writer
        .read::<HttpProxy, _>(
            &super::kept::Key::new(&orphan.namespace, &orphan.name),
            api.get_metadata_opt(&orphan.name),
        )
        .await;
    match found {
        Ok(found) => Ok(found.is_some_and(|f| f.metadata.uid.as_deref() == Some(&orphan.uid))),
        // Without the kind there is no object of it.
        Err(WriteError::Api { source, .. }) if Class::of(&source) == Class::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

async fn remove<K: Written>(
    ctx: &Context,
    kept: &Kept<K>,
    left: impl Fn(&ObjectMeta) -> bool,
) -> Result<(), WriteError> {
    for object in kept.filter(|o| left(o.meta()) && o.meta().deletion_timestamp.is_none()) {
        ctx.writer.delete(kept, &*object).await?;
    }
    Ok(())
}

fn metas<K: Written>(kept: &Kept<K>) -> Vec<ObjectMeta> {
    kept.all().iter().map(|o| o.meta().clone()).collect()
}

/// The owner that an object's labels name. Without all of them it was not made
/// here for an HTTPProxy.
fn orphan(meta: &ObjectMeta) -> Option<Orphan> {
    let label = |key: &str| meta.labels.as_ref()?.get(key).cloned();
    if label(MANAGED_BY_LABEL).as_deref() != Some(MANAGED_BY) {
        return None;
    }
    Some(Orphan {
        namespace: label(NAMESPACE_LABEL)?,
        name: label(PROXY_LABEL)?,
        uid: label(UID_LABEL)?,
    })
}
