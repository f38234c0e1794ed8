//! Server-side apply: each writer owns the fields it names and no others.

use std::fmt::Debug;

use kube::{
    Api, Resource,
    api::{Patch, PatchParams},
};
use serde::{Serialize, de::DeserializeOwned};

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
