//! Parts of the CRDs' schemas that the types alone do not say.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

/// A DNS-1123 label.
const LABEL: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";

/// An object of any shape.
pub(super) fn any_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true,
    })
}

/// Conditions that a controller has not looked at yet.
pub(super) fn conditions(_: &mut SchemaGenerator) -> Schema {
    condition_list(&[])
}

/// The same, with what is served until a controller has written.
pub(super) fn accepted(_: &mut SchemaGenerator) -> Schema {
    condition_list(&["Accepted"])
}

/// The same, of an HTTPProxy.
pub(super) fn accepted_and_programmed(_: &mut SchemaGenerator) -> Schema {
    condition_list(&["Accepted", "Programmed"])
}

/// Each writer owns its conditions alone: the list is a map by `type`. The
/// bounds are those of `metav1.Condition`.
fn condition_list(pending: &[&str]) -> Schema {
    let mut schema = json_schema!({
        "description": "What is known of the object, by type.",
        "type": "array",
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "lastTransitionTime", "reason", "message"],
            "properties": {
                "type": {
                    "description": "What is known, as one word.",
                    "type": "string",
                    "maxLength": 316,
                    "pattern": "^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$",
                },
                "status": {
                    "description": "Whether it is so.",
                    "type": "string",
                    "enum": ["True", "False", "Unknown"],
                },
                "observedGeneration": {
                    "description": "The generation of the object that this was said of.",
                    "type": "integer",
                    "format": "int64",
                    "minimum": 0,
                },
                "lastTransitionTime": {
                    "description": "Since when the status is what it is.",
                    "type": "string",
                    "format": "date-time",
                },
                "reason": {
                    "description": "Why, as one word.",
                    "type": "string",
                    "minLength": 1,
                    "maxLength": 1024,
                    "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
                },
                "message": {
                    "description": "Why, and what to do, as a sentence.",
                    "type": "string",
                    "maxLength": 32768,
                },
            },
        },
    });
    if !pending.is_empty() {
        let waiting = |kind: &&str| {
            json!({
                "type": kind, "status": "Unknown", "reason": "Pending",
                "message": "Waiting for controller",
                "lastTransitionTime": "1970-01-01T00:00:00Z",
            })
        };
        let default: Vec<Value> = pending.iter().map(waiting).collect();
        schema.insert("default".into(), default.into());
    }
    schema
}

/// A label selector that a CEL rule can be afforded for: Kubernetes' own has
/// no bounds.
pub(super) fn selector(_: &mut SchemaGenerator) -> Schema {
    let rules = super::rules::cel(&[
        (
            "(has(self.matchLabels) && size(self.matchLabels) > 0) || (has(self.matchExpressions) && size(self.matchExpressions) > 0)",
            "an empty selector would select every connector; give at least one label",
        ),
        (
            "!has(self.matchExpressions) || self.matchExpressions.all(e, (e.operator in ['In', 'NotIn']) == (has(e.values) && size(e.values) > 0))",
            "In and NotIn need values; Exists and DoesNotExist have none",
        ),
    ]);
    let key = json!({"type": "string", "minLength": 1, "maxLength": 317});
    let value = json!({"type": "string", "maxLength": 63});
    json_schema!({
        "description": "Labels of the connectors. All that match serve the endpoint: the oldest first, then by name.",
        "type": "object",
        "properties": {
            "matchLabels": {
                "description": "Labels that a connector must have.",
                "type": "object",
                "maxProperties": 16,
                "additionalProperties": value,
            },
            "matchExpressions": {
                "description": "Further conditions; all must hold.",
                "type": "array",
                "maxItems": 16,
                "items": {
                    "type": "object",
                    "required": ["key", "operator"],
                    "properties": {
                        "key": key,
                        "operator": {
                            "type": "string",
                            "enum": ["In", "NotIn", "Exists", "DoesNotExist"],
                        },
                        "values": {"type": "array", "maxItems": 16, "items": value},
                    },
                },
            },
        },
        "x-kubernetes-map-type": "atomic",
        "x-kubernetes-validations": rules,
    })
}

/// Host names that requests may ask for.
pub(super) fn hostnames(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "The host names; none means any.",
        "type": "array",
        "maxItems": 16,
        "items": {
            "type": "string",
            "minLength": 1,
            "maxLength": 253,
            "x-kubernetes-validations": super::rules::hostname(),
        },
    })
}

/// The name of an object that is a DNS label.
pub(super) fn label_name() -> Value {
    super::rules::cel(&[(
        &format!("size(self) <= 63 && self.matches('{LABEL}')"),
        "a connector's name is a DNS label: 1 to 63 lowercase letters, digits and hyphens, a letter or digit first and last",
    )])
}
