//! Removes what the reconciler made, before it and the module are uninstalled:
//! an Envoy whose listener names a module that is missing has no listener.
//!
//! ```text
//! scale the reconciler to none ─► take its Lease ─► routes ─► policies ─► the rest ─► Lease
//! ```
//!
//! As long as this holds the Lease, nothing is made again. Routes go first, so
//! that none serves without its policies. Users' own objects stay.

mod options;
mod outcome;

use std::time::{Duration, Instant};

use adit_api::{
    envoy_gateway::{Backend, BackendTrafficPolicy, EnvoyExtensionPolicy, EnvoyPatchPolicy},
    external_dns::DNSEndpoint,
    labels::{DIALER_LABEL, MANAGED_BY, MANAGED_BY_LABEL},
    networking::ConnectorClass,
};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use gateway_api::{gateways::Gateway, httproutes::HttpRoute, referencegrants::ReferenceGrant};
use k8s_openapi::api::{apps::v1::Deployment, coordination::v1::Lease};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, Preconditions},
    core::{ApiResource, PartialObjectMeta},
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{
    leader::{Election, Fence},
    writer::MANAGER,
};

pub use options::{OptionError, Options};
pub use outcome::{CleanupError, Removed};

/// Looked at again this often while something goes.
const LOOK: Duration = Duration::from_millis(250);
/// For one request.
const TIME: Duration = Duration::from_secs(15);
/// Objects in one page of a list.
const PAGE: u32 = 500;
/// Deletes at one time.
const AT_ONCE: usize = 16;
/// The field manager of the scaling.
const SCALER: &str = "adit-cleanup";

/// What to remove, and how long it may take.
#[derive(Debug, Clone)]
pub struct Cleanup {
    /// Which API server.
    pub control: adit_control::Options,
    /// Where the reconciler's objects are; none means everywhere.
    pub namespaces: Vec<String>,
    /// The Deployment, in the process's own namespace, that is scaled to none.
    pub deployment: Option<String>,
    /// The Lease that says who leads.
    pub leader_lease: String,
    /// A ConnectorClass that goes too, if it has our label.
    pub connector_class: Option<String>,
    /// For all of it.
    pub timeout: Duration,
    /// Whether nothing is changed.
    pub dry_run: bool,
}

type Found = PartialObjectMeta<DynamicObject>;

/// One run.
struct Run<'a> {
    client: Client,
    cleanup: &'a Cleanup,
    deadline: Instant,
    fence: Fence,
    removed: Removed,
}

/// Removes it all, and waits until it is gone.
///
/// # Errors
/// When something may be left.
pub async fn cleanup(
    cleanup: &Cleanup,
    shutdown: CancellationToken,
) -> Result<Removed, CleanupError> {
    let access = cleanup.control.access().await?;
    let access = access.ok_or(OptionError::NoControl)?;
    let mut run = Run {
        client: access.client.clone(),
        cleanup,
        deadline: Instant::now() + cleanup.timeout,
        fence: Fence::none(),
        removed: Removed::default(),
    };
    let work = async {
        if cleanup.dry_run {
            run.all().await?;
            return Ok(run.removed);
        }
        if let Some(name) = &cleanup.deployment {
            run.scale(&access.namespace, name).await?;
        }
        let election = Election::new(&access.namespace, &cleanup.leader_lease);
        let waited = election.acquire(access.client.clone(), &shutdown);
        let held = match tokio::time::timeout(cleanup.timeout, waited).await {
            Ok(Some(held)) => held,
            Ok(None) => return Err(CleanupError::Interrupted),
            Err(_) => {
                return Err(CleanupError::Led {
                    lease: cleanup.leader_lease.clone(),
                    after: cleanup.timeout,
                });
            }
        };
        run.fence = held.fence.clone();
        let done = run.all().await;
        held.release().await;
        done?;
        run.lease(&access.namespace).await?;
        Ok(run.removed)
    };
    shutdown
        .run_until_cancelled(work)
        .await
        .unwrap_or(Err(CleanupError::Interrupted))
}

impl Run<'_> {
    async fn scale(&self, namespace: &str, name: &str) -> Result<(), CleanupError> {
        let api: Api<Deployment> = Api::namespaced(self.client.clone(), namespace);
        let params = PatchParams::apply(SCALER);
        let none = Patch::Merge(json!({"spec": {"replicas": 0}}));
        let what = format!("scale Deployment {namespace}/{name} to none");
        match ask(&what, api.patch_scale(name, &params, &none)).await {
            Ok(_) => tracing::info!(namespace, name, "reconciler scaled to none"),
            Err(error) if error.is_not_found() => {
                tracing::info!(namespace, name, "no such Deployment");
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Stage by stage; the next begins when all of one is gone.
    async fn all(&mut self) -> Result<(), CleanupError> {
        self.stage(&[of::<HttpRoute>()]).await?;
        self.stage(&[
            of::<EnvoyExtensionPolicy>(),
            of::<EnvoyPatchPolicy>(),
            of::<BackendTrafficPolicy>(),
        ])
        .await?;
        self.stage(&[
            of::<Backend>(),
            of::<ReferenceGrant>(),
            of::<Gateway>(),
            of::<Lease>(),
            of::<DNSEndpoint>(),
        ])
        .await?;
        self.class().await
    }

    async fn stage(&mut self, kinds: &[ApiResource]) -> Result<(), CleanupError> {
        for kind in kinds {
            let found = self.find(kind).await?;
            if !found.is_empty() {
                *self.removed.0.entry(kind.kind.clone()).or_default() += found.len();
            }
            self.delete(kind, found).await?;
        }
        if self.cleanup.dry_run {
            return Ok(());
        }
        for kind in kinds {
            loop {
                let left = self.find(kind).await?;
                let Some(first) = left.first() else { break };
                if Instant::now() > self.deadline {
                    return Err(CleanupError::Left {
                        kind: kind.kind.clone(),
                        count: left.len(),
                        first: place(first),
                        after: self.cleanup.timeout,
                    });
                }
                tokio::time::sleep(LOOK).await;
                // One that came between: made before the Lease was ours.
                let fresh = left.into_iter().filter(|o| !goes(o)).collect();
                self.delete(kind, fresh).await?;
            }
        }
        Ok(())
    }

    /// The objects of a kind that the reconciler made. A kind that is not
    /// installed has none.
    async fn find(&self, kind: &ApiResource) -> Result<Vec<Found>, CleanupError> {
        let mut all = Vec::new();
        let everywhere = [String::new()];
        let namespaces = match self.cleanup.namespaces.as_slice() {
            [] => everywhere.as_slice(),
            some => some,
        };
        for namespace in namespaces {
            let api = self.api(kind, namespace);
            let mut page = ListParams::default()
                .labels(&format!("{MANAGED_BY_LABEL}={MANAGED_BY}"))
                .limit(PAGE);
            loop {
                let what = format!("list {}", kind.plural);
                let list = match ask(&what, api.list_metadata(&page)).await {
                    Err(error) if error.is_not_found() => break,
                    list => list?,
                };
                all.extend(list.items.into_iter().filter(is_made));
                match list.metadata.continue_.filter(|more| !more.is_empty()) {
                    Some(more) => page = page.continue_token(&more),
                    None => break,
                }
            }
        }
        Ok(all)
    }

    /// Exactly these objects, not others of their names.
    async fn delete(&self, kind: &ApiResource, found: Vec<Found>) -> Result<(), CleanupError> {
        let dry = self.cleanup.dry_run;
        let each = found.into_iter().map(async |object| {
            let at = place(&object);
            if dry {
                tracing::info!(kind = kind.kind, object = at, "dry run: would delete");
                return Ok(());
            }
            if !self.fence.open() {
                return Err(CleanupError::Lost(self.cleanup.leader_lease.clone()));
            }
            let params = DeleteParams {
                preconditions: Some(Preconditions {
                    uid: object.uid(),
                    resource_version: None,
                }),
                ..DeleteParams::background()
            };
            let namespace = object.namespace().unwrap_or_default();
            let api = self.api(kind, &namespace);
            let what = format!("delete {} {at}", kind.kind);
            match ask(&what, api.delete(&object.name_any(), &params)).await {
                Ok(_) => tracing::info!(kind = kind.kind, object = at, "deleted"),
                // Gone, or another one of that name.
                Err(error) if error.is_not_found() || error.is_conflict() => {}
                Err(error) => return Err(error),
            }
            Ok(())
        });
        stream::iter(each)
            .buffer_unordered(AT_ONCE)
            .try_collect::<Vec<()>>()
            .await
            .map(drop)
    }

    /// The class that was installed with us.
    async fn class(&mut self) -> Result<(), CleanupError> {
        let Some(name) = &self.cleanup.connector_class else {
            return Ok(());
        };
        let kind = of::<ConnectorClass>();
        let api = self.api(&kind, "");
        let what = format!("get ConnectorClass {name}");
        let found = match ask(&what, api.get_metadata_opt(name)).await {
            Err(error) if error.is_not_found() => None,
            found => found?,
        };
        let ours = |o: &Found| {
            o.labels()
                .get(MANAGED_BY_LABEL)
                .is_some_and(|l| l == MANAGED_BY)
        };
        match found.filter(ours) {
            Some(class) => {
                self.removed.0.insert(kind.kind.clone(), 1);
                self.delete(&kind, vec![class]).await
            }
            None => Ok(()),
        }
    }

    /// The Lease of the election, which nobody needs any more.
    async fn lease(&self, namespace: &str) -> Result<(), CleanupError> {
        let api: Api<Lease> = Api::namespaced(self.client.clone(), namespace);
        let name = &self.cleanup.leader_lease;
        let what = format!("delete Lease {namespace}/{name}");
        match ask(&what, api.delete(name, &DeleteParams::default())).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    fn api(&self, kind: &ApiResource, namespace: &str) -> Api<DynamicObject> {
        match namespace {
            "" => Api::all_with(self.client.clone(), kind),
            namespace => Api::namespaced_with(self.client.clone(), namespace, kind),
        }
    }
}

fn of<K: Resource<DynamicType = ()>>() -> ApiResource {
    ApiResource::erase::<K>(&())
}

/// Whether the reconciler wrote it: our label alone may be anybody's. The
/// Leases of dialers are theirs.
fn is_made(object: &Found) -> bool {
    let written = object.managed_fields().iter();
    let mut managers = written.filter_map(|entry| entry.manager.as_deref());
    managers.any(|manager| manager == MANAGER) && !object.labels().contains_key(DIALER_LABEL)
}

fn goes(object: &Found) -> bool {
    object.metadata.deletion_timestamp.is_some()
}

fn place(object: &Found) -> String {
    let name = object.name_any();
    match object.namespace() {
        Some(namespace) => format!("{namespace}/{name}"),
        None => name,
    }
}

async fn ask<T>(
    what: &str,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, CleanupError> {
    match tokio::time::timeout(TIME, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(source)) => Err(CleanupError::Api {
            what: what.into(),
            source: Box::new(source),
        }),
        Err(_) => Err(CleanupError::Silent {
            what: what.into(),
            time: TIME,
        }),
    }
}

#[cfg(test)]
mod tests {
    use adit_api::ObjectMeta;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;

    use super::*;

    fn object(manager: &str, labels: &[(&str, &str)]) -> Found {
        let labels = labels.iter().map(|(k, v)| (k.to_string(), v.to_string()));
        Found {
            types: None,
            metadata: ObjectMeta {
                labels: Some(labels.collect()),
                managed_fields: Some(vec![ManagedFieldsEntry {
                    manager: Some(manager.into()),
                    ..ManagedFieldsEntry::default()
                }]),
                ..ObjectMeta::default()
            },
            _phantom: std::marker::PhantomData,
        }
    }

    #[test]
    fn only_what_the_reconciler_wrote_is_removed() {
        let ours = [(MANAGED_BY_LABEL, MANAGED_BY)];
        assert!(is_made(&object(MANAGER, &ours)));
        assert!(!is_made(&object("kubectl", &ours)), "a label is anybody's");
        let dialer = [(MANAGED_BY_LABEL, MANAGED_BY), (DIALER_LABEL, "true")];
        assert!(!is_made(&object(MANAGER, &dialer)));
    }
}
