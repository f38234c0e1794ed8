//! Server-side apply: each writer owns the fields it names and no others.

use std::fmt::Debug;

use kube::{
    Api, Resource,
    api::{Patch, PatchParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// The version of an empty etcd: the first write makes the second.
const NO_VERSION: &str = "1";

/// Applies an object as `manager`, taking over fields that others hold: what
/// is generated belongs to its generator. The object needs `apiVersion`,
/// `kind` and a name.
///
/// # Errors
/// What the API server or the way to it says.
pub async fn object<K>(
    api: &Api<K>,
    manager: &str,
    object: &(impl Serialize + Debug),
    name: &str,
) -> kube::Result<K>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let params = PatchParams::apply(manager).force();
    api.patch(name, &params, &Patch::Apply(object)).await
}

/// Applies an object as `manager` if there is none of this name yet; one that is
/// there, whosever it is, is refused with 409 ([`Class::Conflict`]) and stays as
/// it is, whatever it holds.
///
/// Without `force` the API server would refuse only what both name with
/// different values: of two Gateways with different listeners it makes one. And
/// a POST would leave two owners of each field, so that nothing could be
/// removed by a later apply. So the object is said to be a version that no
/// object has: a version is compared only with that of an object that exists
/// (the API server's generic registry, `Store.Update`; create-by-apply ignores
/// it).
///
/// [`Class::Conflict`]: crate::Class::Conflict
///
/// # Errors
/// What the API server or the way to it says.
pub async fn new_object<K>(
    api: &Api<K>,
    manager: &str,
    object: &Value,
    name: &str,
) -> kube::Result<K>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let mut object = object.clone();
    object["metadata"]["resourceVersion"] = NO_VERSION.into();
    self::object(api, manager, &object, name).await
}

/// Applies a status as `manager`. The object needs `apiVersion`, `kind`, a
/// name, and under `status` only the fields that this writer owns.
///
/// # Errors
/// What the API server or the way to it says.
pub async fn status<K>(
    api: &Api<K>,
    manager: &str,
    object: &(impl Serialize + Debug),
    name: &str,
) -> kube::Result<K>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let params = PatchParams::apply(manager).force();
    api.patch_status(name, &params, &Patch::Apply(object)).await
}
