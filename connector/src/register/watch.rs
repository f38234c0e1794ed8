//! What the API server has of our objects, followed.

use std::{pin::pin, sync::Arc};

use adit_control::{Contact, Failure, pace};
use futures_util::StreamExt as _;
use kube::{
    Api, Client,
    core::{ApiResource, DynamicObject},
    runtime::{WatchStreamExt as _, watcher},
};
use tokio::sync::watch;

/// `None`: not known yet. `Some(None)`: there is none.
pub(crate) type Known = Option<Option<Arc<DynamicObject>>>;

/// A kind of this API group. Without types: an object that a later version
/// wrote must not stop the watch.
pub(crate) fn api(
    client: &Client,
    namespace: &str,
    kind: &str,
    plural: &str,
) -> Api<DynamicObject> {
    let resource = ApiResource {
        group: adit_api::networking::GROUP.to_owned(),
        version: "v1alpha1".to_owned(),
        api_version: super::objects::API_VERSION.to_owned(),
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    };
    Api::namespaced_with(client.clone(), namespace, &resource)
}

/// Follows one object by its name, until the task is dropped. What was known
/// stays known while the server is away.
pub(crate) async fn one(
    api: Api<DynamicObject>,
    name: String,
    step: &'static str,
    contact: Contact,
    known: watch::Sender<Known>,
) {
    let stream = watcher::watch_object(api, &name).backoff(pace::WatchBackoff::default());
    let mut stream = pin!(stream);
    while let Some(event) = stream.next().await {
        match event {
            Ok(object) => {
                contact.ok(step);
                known.send_replace(Some(object.map(|mut object| {
                    object.metadata.managed_fields = None;
                    Arc::new(object)
                })));
            }
            Err(error) => contact.failed(step, Failure::from(&error)),
        }
    }
}
