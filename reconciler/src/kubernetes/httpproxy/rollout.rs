//! Carries out what [`gateway::rollout`](crate::emit::gateway::rollout) plans.

use std::{
    cell::OnceCell,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use adit_api::{ResourceExt as _, envoy_gateway::EnvoyPatchPolicy, networking::HttpProxy};
use adit_wire::Target;
use k8s_openapi::jiff::Timestamp;

use crate::{
    compile,
    emit::gateway::{
        Bundle, Place, ROUTE_LABEL, is_ours, patched_targets,
        rollout::{self, Kind, Object, Observed, Plan, Reference, Stale},
    },
    kubernetes::{
        context::Context,
        ground,
        httpproxy::view,
        kept::{Kept, Key},
        stores::Stores,
        writer::{WriteError, Writer},
        written::Written,
    },
};

/// Steps that need nobody else follow each other at once; so many at most.
const ROUNDS: usize = 8;

/// How far it came.
#[derive(Debug, Default)]
pub struct Progress {
    /// Names that others have taken.
    pub refused: Vec<Reference>,
    /// What the next step waits for; `None` when all is as wanted.
    pub waiting: Option<String>,
    /// When to look again though nothing has changed.
    pub again: Option<Duration>,
}

/// All that is there of an HTTPProxy.
pub fn observed(stores: &Stores, proxy: &HttpProxy) -> Observed {
    let uid = proxy.uid().unwrap_or_default();
    observed_of(stores, &proxy.namespace().unwrap_or_default(), &uid)
}

fn observed_of(stores: &Stores, namespace: &str, uid: &str) -> Observed {
    let patches = stores.patches.filter(|o| is_ours(o, uid));
    Observed {
        routes: stores.routes.filter_in(namespace, |o| is_ours(o, uid)),
        backends: stores.backends.filter_in(namespace, |o| is_ours(o, uid)),
        traffics: stores.traffic.filter_in(namespace, |o| is_ours(o, uid)),
        gateways: patches
            .iter()
            .filter_map(|p| target(stores, p))
            .collect::<BTreeSet<Place>>(),
        patches,
    }
}

/// The Gateway that a policy is for, if it exists; any, if it is for a class.
fn target(stores: &Stores, patch: &EnvoyPatchPolicy) -> Option<Place> {
    let wanted = &patch.spec.target_ref;
    let found = match wanted.kind.as_str() {
        "Gateway" => {
            let key = Key::new(patch.namespace().unwrap_or_default(), &wanted.name);
            stores.gateways.get(&key)
        }
        _ => stores.gateways.any(),
    };
    found.map(|gateway| ground::place(&Key::of(&*gateway)))
}

/// Takes every step that can be taken now.
///
/// # Errors
/// When one could not be written; the next look goes on from there.
pub async fn advance(
    ctx: &Context,
    proxy: &HttpProxy,
    desired: &[Bundle],
) -> Result<Progress, WriteError> {
    let uid = proxy.uid().unwrap_or_default();
    let namespace = proxy.namespace().unwrap_or_default();
    let options = ctx.config.compile();
    let mut progress = Progress::default();
    for round in 0..ROUNDS {
        let observed = observed(&ctx.stores, proxy);
        if round == 0 {
            let stale = rollout::stale(&uid, desired, &observed, Timestamp::now());
            progress.again = stale.next;
            if !stale.apply.is_empty() {
                ask_again(ctx, proxy, stale).await?;
                continue;
            }
        }
        let (offers, permits) = (OnceCell::new(), OnceCell::new());
        let plan = rollout::plan(&uid, desired, &observed, &|target| {
            let permits = permits.get_or_init(|| {
                let offers = offers.get_or_init(|| view::offers(&ctx.stores, &namespace));
                compile::Permits::of(offers, &options)
            });
            permits.allows(&namespace, target)
        });
        let steps = plan.apply.len() + plan.delete.len();
        for why in &plan.waiting {
            tracing::debug!(object = %Key::of(proxy), why, "waiting");
        }
        progress.waiting = match plan.is_done() {
            true => None,
            false => Some(plan.waiting.first().cloned().unwrap_or_default()),
        };
        progress.refused.clone_from(&plan.refused);
        if steps == 0 {
            break;
        }
        carry_out(ctx, plan).await?;
        if ctx.config.dry_run {
            // Nothing is there of it that the next steps could build on.
            break;
        }
    }
    Ok(progress)
}

/// Has Envoy Gateway say once more what contradicts what is there.
async fn ask_again(ctx: &Context, proxy: &HttpProxy, stale: Stale) -> Result<(), WriteError> {
    for one in &stale.apply {
        let (kind, place) = (one.object.kind(), one.object.place());
        let at = format!("{}/{}", place.namespace, place.name);
        tracing::info!(object = %Key::of(proxy), %kind, at, "Envoy Gateway's status contradicts what is there; asked again");
    }
    let plan = Plan {
        apply: stale.apply,
        ..Plan::default()
    };
    carry_out(ctx, plan).await
}

/// Removes all that is there of an HTTPProxy which may not be there any more.
///
/// # Errors
/// When something could not be deleted.
pub async fn withdraw(ctx: &Context, proxy: &HttpProxy) -> Result<(), WriteError> {
    let uid = proxy.uid().unwrap_or_default();
    take_down(ctx, &uid, || Some(observed(&ctx.stores, proxy))).await
}

/// Removes, of what is there, what reaches a target that may not be reached any
/// more: for an HTTPProxy that cannot be programmed anew, of which the rest
/// stays as it is.
///
/// # Errors
/// When something could not be deleted.
pub async fn revoke(ctx: &Context, namespace: &str, uid: &str) -> Result<(), WriteError> {
    let options = ctx.config.compile();
    take_down(ctx, uid, || {
        let observed = observed_of(&ctx.stores, namespace, uid);
        if observed.patches.is_empty() {
            return None;
        }
        let offers = view::offers(&ctx.stores, namespace);
        let permits = compile::Permits::of(&offers, &options);
        let permitted = |target: &Target| permits.allows(namespace, target);
        Some(condemned(observed, &permitted))
    })
    .await
}

/// Removes what `doomed` finds, step by step, until it finds nothing or no step
/// is left.
async fn take_down(
    ctx: &Context,
    uid: &str,
    doomed: impl Fn() -> Option<Observed>,
) -> Result<(), WriteError> {
    for _ in 0..ROUNDS {
        let Some(observed) = doomed() else {
            break;
        };
        let plan = rollout::plan(uid, &[], &observed, &|_| false);
        if plan.apply.is_empty() && plan.delete.is_empty() {
            break;
        }
        carry_out(ctx, plan).await?;
        if ctx.config.dry_run {
            break;
        }
    }
    Ok(())
}

/// What is there without the routes whose every target is permitted, and what
/// belongs to them.
fn condemned(mut observed: Observed, permitted: &dyn Fn(&Target) -> bool) -> Observed {
    let forbidden: BTreeSet<_> = observed
        .patches
        .iter()
        .filter(|p| !patched_targets(p).is_some_and(|t| t.iter().all(permitted)))
        .filter_map(|p| p.labels().get(ROUTE_LABEL).cloned())
        .collect();
    let names = observed.routes.iter().map(|r| r.name_any());
    let staying: BTreeSet<_> = names.filter(|name| !forbidden.contains(name)).collect();
    let goes = |labels: &BTreeMap<String, String>| {
        let route = labels.get(ROUTE_LABEL);
        !route.is_some_and(|route| staying.contains(route))
    };
    observed.routes.retain(|o| !staying.contains(&o.name_any()));
    observed.backends.retain(|o| goes(o.labels()));
    observed.traffics.retain(|o| goes(o.labels()));
    observed.patches.retain(|o| goes(o.labels()));
    observed
}

async fn carry_out(ctx: &Context, plan: Plan) -> Result<(), WriteError> {
    let (writer, stores) = (&ctx.writer, &ctx.stores);
    for step in &plan.apply {
        match &step.object {
            Object::Route(o) => drop(writer.apply(&stores.routes, o.as_ref()).await?),
            Object::Backend(o) => drop(writer.apply(&stores.backends, o.as_ref()).await?),
            Object::Traffic(o) => drop(writer.apply(&stores.traffic, o.as_ref()).await?),
            Object::Patch(o) => drop(writer.apply(&stores.patches, o.as_ref()).await?),
        }
    }
    if let Some(pause) = plan.pause.filter(|_| !ctx.config.dry_run) {
        tokio::time::sleep(pause).await;
    }
    for which in &plan.delete {
        match which.kind {
            Kind::Route => remove(writer, &stores.routes, which).await?,
            Kind::Backend => remove(writer, &stores.backends, which).await?,
            Kind::Traffic => remove(writer, &stores.traffic, which).await?,
            Kind::Patch => remove(writer, &stores.patches, which).await?,
        }
    }
    Ok(())
}

async fn remove<K: Written>(
    writer: &Writer,
    kept: &Kept<K>,
    which: &Reference,
) -> Result<(), WriteError> {
    let key = Key::new(&which.place.namespace, &which.place.name);
    match kept.get(&key) {
        Some(seen) if seen.meta().uid == which.uid => writer.delete(kept, &*seen).await,
        _ => Ok(()),
    }
}
