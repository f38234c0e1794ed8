//! Filters of an HTTPRoute.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::{
    emit::literal,
    model::{HeaderChanges, PathChange},
};

/// Gateway API's limit for a list of header names.
const MAX_HEADERS: usize = 16;

pub(super) fn path_change(change: &PathChange) -> Value {
    match change {
        PathChange::Full(path) => json!({"type": "ReplaceFullPath", "replaceFullPath": path}),
        PathChange::Prefix(prefix) => {
            let prefix = if prefix.is_empty() { "/" } else { prefix };
            json!({"type": "ReplacePrefixMatch", "replacePrefixMatch": prefix})
        }
    }
}

/// Filters that change headers and, of requests, remove some names too.
pub(super) fn header_filters(
    request: &HeaderChanges,
    response: &HeaderChanges,
    removed: &[&str],
) -> Vec<Value> {
    let mut request = request.clone();
    let free = MAX_HEADERS.saturating_sub(request.remove.len());
    let named = |name: &str, list: &[String]| list.iter().any(|n| n.eq_ignore_ascii_case(name));
    let missing = removed.iter().filter(|n| !named(n, &request.remove));
    let missing: Vec<_> = missing.take(free).map(|n| (*n).to_owned()).collect();
    request.remove.extend(missing);
    [
        ("RequestHeaderModifier", "requestHeaderModifier", &request),
        ("ResponseHeaderModifier", "responseHeaderModifier", response),
    ]
    .into_iter()
    .filter(|(_, _, changes)| **changes != HeaderChanges::default())
    .map(|(type_, field, changes)| json!({"type": type_, field: modifier(changes)}))
    .collect()
}

fn modifier(changes: &HeaderChanges) -> Value {
    let pairs = |list: &[(String, String)]| {
        // Envoy Gateway hands values to Envoy as they are, and Envoy refuses the
        // whole Gateway's configuration for one that is no format string.
        let pair =
            |(name, value): &(String, String)| json!({"name": name, "value": literal(value)});
        list.iter().map(pair).collect::<Vec<_>>()
    };
    let mut fields = Map::new();
    for (key, list) in [("set", &changes.set), ("add", &changes.add)] {
        if !list.is_empty() {
            fields.insert(key.to_owned(), pairs(list).into());
        }
    }
    if !changes.remove.is_empty() {
        fields.insert("remove".to_owned(), changes.remove.clone().into());
    }
    fields.into()
}

/// The generated bindings name one type for each place a filter is used in;
/// they all have one JSON form.
pub(super) fn typed<T: DeserializeOwned>(value: impl Into<Value>) -> Option<T> {
    serde_json::from_value(value.into()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_value_is_text_and_no_format_string() {
        let changes = HeaderChanges {
            set: vec![("x-share".into(), "100% %REQ(cookie)%".into())],
            ..HeaderChanges::default()
        };
        let filters = header_filters(&changes, &changes, &[]);
        for (filter, field) in filters
            .iter()
            .zip(["requestHeaderModifier", "responseHeaderModifier"])
        {
            assert_eq!(filter[field]["set"][0]["value"], "100%% %%REQ(cookie)%%");
        }
    }
}
