//! Keeps a [`Kept`] up to date by a watch.

use std::{fmt::Debug, time::Duration};

use futures_util::{StreamExt as _, pin_mut};
use kube::{
    Api, Resource, ResourceExt as _,
    core::DeserializeGuard,
    runtime::watcher::{self, Event, InitialListStrategy},
};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use super::{
    conditions,
    kept::{Health, Kept},
};

/// Between two attempts, at first and at most. A CRD that is installed later
/// is found within the longest.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

/// Watches until `shutdown`. `namespace` is the one that `api` is bound to.
/// `failed` is called for each error.
pub(super) async fn watch<K>(
    kept: Kept<K>,
    api: Api<DeserializeGuard<K>>,
    config: watcher::Config,
    namespace: Option<String>,
    failed: impl Fn(),
    shutdown: CancellationToken,
) where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let scope = kept.scope();
    let kind = K::kind(&()).into_owned();
    let mut config = config.streaming_lists();
    let mut delay = RETRY.0;
    let mut said = String::new();
    let mut list: Option<Vec<DeserializeGuard<K>>> = None;
    'strategy: loop {
        let events = watcher::watcher(api.clone(), config.clone());
        pin_mut!(events);
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                () = shutdown.cancelled() => return,
            };
            let error = match event {
                None => continue 'strategy,
                Some(Ok(event)) => {
                    let synced = take(&kept, &mut list, namespace.as_deref(), event);
                    if synced {
                        kept.set_health(scope, Health::Synced);
                        if !said.is_empty() {
                            tracing::info!(kind, "watched again");
                        }
                        said.clear();
                        delay = RETRY.0;
                    }
                    continue;
                }
                Some(Err(error)) => error,
            };
            failed();
            if list.take().is_some() {
                kept.list_failed();
            }
            let code = code(&error);
            // A whole API group that is not there is answered in plain text
            // ("404 page not found"), which a watch cannot read; a list can.
            let unreadable = matches!(
                error,
                watcher::Error::WatchFailed(kube::Error::SerdeError(_))
            );
            // Lists by watch came with Kubernetes 1.32 and can be switched off.
            if (unreadable || matches!(code, Some(400 | 422)))
                && config.initial_list_strategy == InitialListStrategy::StreamingList
            {
                config.initial_list_strategy = InitialListStrategy::ListWatch;
                continue 'strategy;
            }
            let text = conditions::readable(&error.to_string());
            match code {
                Some(404) => kept.set_health(scope, Health::Absent),
                // What is known stays known while the server is away.
                _ if kept.is_synced() => {}
                _ => kept.set_health(scope, Health::Failing(text.clone())),
            }
            if said != text {
                match code {
                    Some(404) => tracing::warn!(
                        kind,
                        "not known to the API server: is its CRD installed? Looking again and again"
                    ),
                    Some(401 | 403) => tracing::error!(
                        kind,
                        error = text,
                        "may not be watched: check the RBAC role"
                    ),
                    _ => tracing::warn!(kind, error = text, "watch interrupted; trying again"),
                }
                said = text;
            }
            let jitter = rand::random_range(0.8..1.2);
            tokio::select! {
                () = tokio::time::sleep(delay.mul_f64(jitter)) => {}
                () = shutdown.cancelled() => return,
            }
            delay = (delay * 2).min(RETRY.1);
        }
    }
}

/// Takes an event; whether all objects are known now.
fn take<K: Resource<DynamicType = ()> + Clone>(
    kept: &Kept<K>,
    list: &mut Option<Vec<DeserializeGuard<K>>>,
    namespace: Option<&str>,
    event: Event<DeserializeGuard<K>>,
) -> bool {
    let event = event.modify(|object| object.managed_fields_mut().clear());
    match event {
        Event::Init => {
            if list.replace(Vec::new()).is_none() {
                kept.list_begins();
            }
            false
        }
        Event::InitApply(object) => {
            list.get_or_insert_default().push(object);
            false
        }
        Event::InitDone => {
            kept.listed(namespace, list.take().unwrap_or_default());
            true
        }
        Event::Apply(object) => {
            kept.seen(object);
            true
        }
        Event::Delete(object) => {
            kept.lost(object);
            true
        }
    }
}

fn code(error: &watcher::Error) -> Option<u16> {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status)) => Some(status.code),
        watcher::Error::WatchError(status) => Some(status.code),
        _ => None,
    }
}
