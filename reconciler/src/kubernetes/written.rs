//! What an object looks like when it is sent, and whether one that is there
//! looks like that and is ours.

use std::fmt::Debug;

use adit_api::ResourceExt as _;
use kube::{
    Resource,
    core::{NamespaceResourceScope, ObjectMeta},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::emit::gateway::{HASH_ANNOTATION, MANAGED_BY, MANAGED_BY_LABEL, UID_LABEL};

/// A kind of namespaced objects that is written.
pub trait Written:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Serialize
    + DeserializeOwned
    + Clone
    + Debug
    + Send
    + Sync
    + 'static
{
}

impl<K> Written for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Serialize
        + DeserializeOwned
        + Clone
        + Debug
        + Send
        + Sync
        + 'static
{
}

/// Whether what is there already is still as it was written: an object that
/// somebody changed, or of which the wish has changed, is written again.
pub fn is_as_written<K: Written>(wish: &K, there: &K) -> bool {
    let hash = |object: &K| object.annotations().get(HASH_ANNOTATION).cloned();
    hash(wish) == hash(there)
        && serde_json::to_value(there).is_ok_and(|there| holds(&body(wish), &there))
}

/// An object as it is sent: without its status.
pub(super) fn body<K: Written>(object: &K) -> Value {
    let mut body = serde_json::to_value(object).unwrap_or_default();
    if let Some(fields) = body.as_object_mut() {
        fields.remove("status");
    }
    body["apiVersion"] = json!(K::api_version(&()));
    body["kind"] = json!(K::kind(&()));
    body
}

/// Whether all that is wished is there. What the API server or others add
/// beside it is theirs.
fn holds(wish: &Value, there: &Value) -> bool {
    match (wish, there) {
        (Value::Object(wish), Value::Object(there)) => wish
            .iter()
            .all(|(key, value)| holds(value, there.get(key).unwrap_or(&Value::Null))),
        (Value::Array(wish), Value::Array(there)) => {
            wish.len() == there.len() && wish.iter().zip(there).all(|(w, t)| holds(w, t))
        }
        // An empty map or list and none are the same to the API server.
        (Value::Object(wish), Value::Null) => wish.is_empty(),
        (Value::Array(wish), Value::Null) => wish.is_empty(),
        _ => wish == there,
    }
}

/// Whether an object that exists was made here for the same HTTPProxy (or,
/// like the one that is wished, for none).
pub(super) fn same_maker(wish: &ObjectMeta, there: &ObjectMeta) -> bool {
    let label = |meta: &ObjectMeta, key: &str| meta.labels.as_ref()?.get(key).cloned();
    label(there, MANAGED_BY_LABEL).as_deref() == Some(MANAGED_BY)
        && label(there, UID_LABEL) == label(wish, UID_LABEL)
}

#[cfg(test)]
mod tests {
    use adit_api::envoy_gateway::Backend;

    use super::*;

    #[test]
    fn what_others_add_is_theirs_and_what_they_change_is_seen() {
        let wish = json!({"a": 1, "list": [{"name": "x"}], "empty": {}});
        let same = json!({"a": 1, "list": [{"name": "x", "default": true}], "more": 2});
        assert!(holds(&wish, &same));
        for other in [
            json!({"a": 2, "list": [{"name": "x"}]}),
            json!({"list": [{"name": "x"}]}),
            json!({"a": 1, "list": [{"name": "x"}, {"name": "y"}]}),
            json!({"a": 1, "list": []}),
            json!({"a": 1, "list": [{"name": "x"}], "empty": {"k": 1}, "z": null, "b": 1, "a": "1"}),
        ] {
            assert!(!holds(&wish, &other), "{other}");
        }
    }

    fn made(uid: Option<&str>, managed: Option<&str>) -> ObjectMeta {
        let labels = [(MANAGED_BY_LABEL, managed), (UID_LABEL, uid)];
        let labels = labels
            .into_iter()
            .filter_map(|(k, v)| Some((k.to_owned(), v?.to_owned())));
        ObjectMeta {
            labels: Some(labels.collect()),
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn only_what_was_made_for_the_same_proxy_is_touched() {
        let wish = made(Some("1"), Some("adit"));
        assert!(same_maker(&wish, &made(Some("1"), Some("adit"))));
        assert!(!same_maker(&wish, &made(Some("2"), Some("adit"))));
        assert!(!same_maker(&wish, &made(None, Some("adit"))));
        assert!(!same_maker(&wish, &made(Some("1"), Some("helm"))));
        assert!(!same_maker(&wish, &ObjectMeta::default()));
        let of_gateway = made(None, Some("adit"));
        assert!(same_maker(&of_gateway, &made(None, Some("adit"))));
        assert!(!same_maker(&of_gateway, &made(Some("1"), Some("adit"))));
    }

    #[test]
    fn a_removed_field_is_seen_by_the_hash() {
        let with = |hash: &str| {
            let mut backend = Backend::new("b", adit_api::envoy_gateway::BackendSpec::default());
            let annotations = backend.annotations_mut();
            annotations.insert(HASH_ANNOTATION.into(), hash.into());
            backend
        };
        assert!(is_as_written(&with("1"), &with("1")));
        assert!(!is_as_written(&with("2"), &with("1")));
    }

    #[test]
    fn a_status_is_never_part_of_what_is_applied() {
        let mut backend = Backend::new("b", adit_api::envoy_gateway::BackendSpec::default());
        backend.status = Some(adit_api::envoy_gateway::BackendStatus::default());
        let body = body(&backend);
        assert!(body.get("status").is_none());
        assert_eq!(body["kind"], "Backend");
        assert_eq!(body["apiVersion"], "gateway.envoyproxy.io/v1alpha1");
    }
}
