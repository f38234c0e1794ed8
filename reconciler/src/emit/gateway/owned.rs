//! What marks an object as ours.

use std::collections::BTreeMap;

use adit_api::{
    ObjectMeta, Resource, ResourceExt as _,
    labels::{MANAGED_BY, MANAGED_BY_LABEL},
    networking::HttpProxy,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::{Place, name};

/// On every object that was made for an HTTPProxy: its name. Users' policies
/// select by it.
pub const PROXY_LABEL: &str = "networking.datumapis.com/httpproxy";
/// On every object that was made for an HTTPProxy: its namespace. A policy in
/// its Gateway's namespace has no owner that would say so.
pub const NAMESPACE_LABEL: &str = "networking.datumapis.com/httpproxy-namespace";
/// On every object that was made for an HTTPProxy: its UID.
pub const UID_LABEL: &str = "networking.datumapis.com/httpproxy-uid";
/// `"true"` on routes that reach a connector.
pub const TUNNEL_LABEL: &str = "networking.datumapis.com/tunnel";
/// On what was made for one Gateway: which ([`gateway_label`]).
pub const GATEWAY_LABEL: &str = "networking.datumapis.com/gateway";
/// On what was made for one route: its name.
pub const ROUTE_LABEL: &str = "networking.datumapis.com/route";
/// A hash over the object as we wrote it, so that a removed field is seen.
pub const HASH_ANNOTATION: &str = "networking.datumapis.com/hash";
/// On an HTTPProxy: `[namespace/]name` of the Gateway it wants.
pub const GATEWAY_ANNOTATION: &str = "networking.datumapis.com/gateway";

/// Whose objects are made.
pub(super) struct Owner<'a> {
    pub(super) proxy: &'a HttpProxy,
    /// The Gateway that programs it.
    pub(super) gateway: &'a Place,
    /// The route's name.
    pub(super) route: &'a str,
    /// The rule reaches a connector.
    pub(super) tunnel: bool,
}

impl Owner<'_> {
    pub(super) fn namespace(&self) -> String {
        self.proxy.namespace().unwrap_or_default()
    }

    /// The metadata of an object, without the hash ([`seal`]). An object in
    /// another namespace cannot have an owner; its labels say whose it is.
    pub(super) fn metadata(&self, place: Place) -> ObjectMeta {
        let mut metadata = metadata(self.proxy, &place);
        let labels = metadata.labels.get_or_insert_default();
        for (key, value) in [
            (GATEWAY_LABEL, gateway_label(self.gateway)),
            (ROUTE_LABEL, self.route.to_owned()),
        ] {
            labels.insert(key.to_owned(), value);
        }
        if self.tunnel {
            labels.insert(TUNNEL_LABEL.to_owned(), "true".to_owned());
        }
        metadata
    }
}

/// The metadata of any object of an HTTPProxy.
pub(super) fn metadata(proxy: &HttpProxy, place: &Place) -> ObjectMeta {
    let owned = proxy.namespace().as_deref() == Some(&place.namespace);
    let uid = proxy.metadata.uid.clone().unwrap_or_default();
    ObjectMeta {
        name: Some(place.name.clone()),
        namespace: Some(place.namespace.clone()),
        labels: Some(BTreeMap::from([
            (MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned()),
            (PROXY_LABEL.to_owned(), proxy.name_any()),
            (
                NAMESPACE_LABEL.to_owned(),
                proxy.namespace().unwrap_or_default(),
            ),
            (UID_LABEL.to_owned(), uid),
        ])),
        owner_references: owned.then(|| vec![reference(proxy)]),
        ..ObjectMeta::default()
    }
}

/// A Gateway as the value of a label: two places never give the same.
pub fn gateway_label(gateway: &Place) -> String {
    let place = format!("{}/{}", gateway.namespace, gateway.name);
    let hash = name::hex(&Sha256::digest(place.as_bytes()), 10);
    let name = name::cut(&gateway.name.replace('.', "-"), 52);
    format!("{name}-{hash}")
}

/// The HTTPProxy as a controller of what was made for it.
pub(super) fn reference(proxy: &HttpProxy) -> OwnerReference {
    OwnerReference {
        api_version: HttpProxy::api_version(&()).into_owned(),
        kind: HttpProxy::kind(&()).into_owned(),
        name: proxy.name_any(),
        uid: proxy.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        // Nothing blocks: whatever is uninstalled first, nothing stays stuck.
        block_owner_deletion: None,
    }
}

/// Whether an object was made by us for the HTTPProxy of this UID.
pub fn is_ours(object: &impl Resource, uid: &str) -> bool {
    let label = |key: &str| object.labels().get(key).map(String::as_str);
    label(MANAGED_BY_LABEL) == Some(MANAGED_BY) && label(UID_LABEL) == Some(uid)
}

/// The object with the annotation that says what it is.
pub(super) fn seal<K: Resource + Serialize>(mut object: K) -> K {
    let hash = content_hash(&object);
    object
        .annotations_mut()
        .insert(HASH_ANNOTATION.to_owned(), hash);
    object
}

/// A hash over an object without its hash annotation.
pub fn content_hash(object: &(impl Resource + Serialize)) -> String {
    let mut value = serde_json::to_value(object).unwrap_or_default();
    let annotations = value.pointer_mut("/metadata/annotations");
    if let Some(map) = annotations.and_then(|a| a.as_object_mut()) {
        map.remove(HASH_ANNOTATION);
    }
    // An object without annotations and one whose only annotation was the
    // hash are the same.
    if let Some(metadata) = value
        .pointer_mut("/metadata")
        .and_then(|m| m.as_object_mut())
        && metadata
            .get("annotations")
            .and_then(|a| a.as_object())
            .is_some_and(serde_json::Map::is_empty)
    {
        metadata.remove("annotations");
    }
    name::hex(&Sha256::digest(value.to_string().as_bytes()), 20)
}
