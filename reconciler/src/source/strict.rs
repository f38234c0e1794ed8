//! Fields that a kind does not have. The types are lenient, because an API
//! server of another version may send more; a file is not: a misspelt field
//! would be silently without effect. What is known is read from the CRDs.

use std::{collections::BTreeMap, sync::LazyLock};

use adit_api::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool, Problem, Reason, crds,
};

use super::node::{Node, NodeValue};
use crate::Kind;

static SCHEMAS: LazyLock<BTreeMap<String, JSONSchemaProps>> = LazyLock::new(|| {
    let schema = |crd: adit_api::CustomResourceDefinition| {
        let kind = crd.spec.names.kind;
        let version = crd.spec.versions.into_iter().next()?;
        Some((kind, version.schema?.open_api_v3_schema?))
    };
    crds().into_iter().filter_map(schema).collect()
});

/// The fields of Kubernetes' ObjectMeta; manifests saved from a cluster hold
/// more of them than we read.
const METADATA: [&str; 15] = [
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// Every field of the document that its kind does not have, with its line.
pub(super) fn unknown_fields(document: &Node, kind: Kind) -> Vec<(u64, Problem)> {
    let mut found = Vec::new();
    let Some(schema) = SCHEMAS.get(kind.as_str()) else {
        return found;
    };
    let NodeValue::Map(entries) = &document.value else {
        return found;
    };
    for (key, line, value) in entries {
        match key.as_str() {
            "apiVersion" | "kind" => {}
            "metadata" => metadata(value, &mut found),
            _ => match schema.properties.as_ref().and_then(|p| p.get(key)) {
                Some(schema) => walk(value, schema, key, &mut found),
                None => found.push(unknown(*line, key, key)),
            },
        }
    }
    found
}

fn metadata(node: &Node, found: &mut Vec<(u64, Problem)>) {
    if let NodeValue::Map(entries) = &node.value {
        for (key, line, _) in entries {
            if !METADATA.contains(&key.as_str()) {
                found.push(unknown(*line, &format!("metadata.{key}"), key));
            }
        }
    }
}

fn walk(node: &Node, schema: &JSONSchemaProps, path: &str, found: &mut Vec<(u64, Problem)>) {
    if schema.x_kubernetes_preserve_unknown_fields == Some(true) {
        return;
    }
    match &node.value {
        NodeValue::Scalar(_) => {}
        NodeValue::List(items) => {
            if let Some(JSONSchemaPropsOrArray::Schema(schema)) = &schema.items {
                for (i, item) in items.iter().enumerate() {
                    walk(item, schema, &format!("{path}[{i}]"), found);
                }
            }
        }
        NodeValue::Map(entries) => {
            for (key, line, value) in entries {
                let path = format!("{path}.{key}");
                let property = schema.properties.as_ref().and_then(|p| p.get(key));
                match (property, &schema.additional_properties) {
                    (Some(schema), _) => walk(value, schema, &path, found),
                    (None, Some(JSONSchemaPropsOrBool::Schema(schema))) => {
                        walk(value, schema, &path, found);
                    }
                    (None, Some(JSONSchemaPropsOrBool::Bool(true))) => {}
                    (None, _) => found.push(unknown(*line, &path, key)),
                }
            }
        }
    }
}

fn unknown(line: u64, path: &str, key: &str) -> (u64, Problem) {
    let message = format!("unknown field {key:?}; remove it or correct its spelling");
    (line, Problem::error(path, Reason::UnknownField, message))
}
