//! A YAML document as a tree in which every value knows its line.

use std::{collections::HashSet, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value};
use serde_saphyr::Spanned;

/// A value and the line where it begins.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub line: u64,
    pub value: NodeValue,
}

/// The kinds of YAML values.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum NodeValue {
    Scalar(Value),
    List(Vec<Node>),
    /// In the order of the text; each key with its line.
    Map(Vec<(String, u64, Node)>),
}

impl Node {
    /// The value of a field of a mapping.
    pub fn get(&self, name: &str) -> Option<&Node> {
        match &self.value {
            NodeValue::Map(entries) => entries
                .iter()
                .find(|(k, _, _)| k == name)
                .map(|(_, _, v)| v),
            _ => None,
        }
    }

    /// The text of a scalar field.
    pub fn text(&self, name: &str) -> Option<&str> {
        match &self.get(name)?.value {
            NodeValue::Scalar(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    /// Whether the document is empty: comments only, or nothing.
    pub fn is_null(&self) -> bool {
        self.value == NodeValue::Scalar(Value::Null)
    }

    /// The line of `path` (`spec.rules[0].name`), or of what is nearest to it.
    pub fn line_of(&self, path: &str) -> u64 {
        let mut node = self;
        let mut line = self.line;
        for step in path
            .split('.')
            .flat_map(|part| part.split('['))
            .filter(|s| !s.is_empty())
        {
            let next = match (&node.value, step.strip_suffix(']')) {
                (NodeValue::List(items), Some(index)) => {
                    let item = index.parse::<usize>().ok().and_then(|i| items.get(i));
                    item.map(|item| (item.line, item))
                }
                (NodeValue::Map(entries), None) => {
                    let entry = entries.iter().find(|(key, _, _)| key == step);
                    entry.map(|(_, line, value)| (*line, value))
                }
                _ => None,
            };
            let Some(found) = next else { break };
            (line, node) = found;
        }
        line
    }

    /// The same without lines.
    pub fn to_json(&self) -> Value {
        match &self.value {
            NodeValue::Scalar(value) => value.clone(),
            NodeValue::List(items) => Value::Array(items.iter().map(Node::to_json).collect()),
            NodeValue::Map(entries) => {
                let pairs = entries
                    .iter()
                    .map(|(key, _, value)| (key.clone(), value.to_json()));
                Value::Object(pairs.collect::<Map<_, _>>())
            }
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<NodeValue>::deserialize(from)?;
        Ok(Node {
            line: spanned.referenced.line(),
            value: spanned.value,
        })
    }
}

impl<'de> Deserialize<'de> for NodeValue {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = NodeValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_bool<E>(self, v: bool) -> Result<NodeValue, E> {
        Ok(NodeValue::Scalar(v.into()))
    }

    fn visit_i64<E>(self, v: i64) -> Result<NodeValue, E> {
        Ok(NodeValue::Scalar(v.into()))
    }

    fn visit_u64<E>(self, v: u64) -> Result<NodeValue, E> {
        Ok(NodeValue::Scalar(v.into()))
    }

    fn visit_f64<E>(self, v: f64) -> Result<NodeValue, E> {
        Ok(NodeValue::Scalar(
            Number::from_f64(v).map_or(Value::Null, Value::Number),
        ))
    }

    fn visit_str<E>(self, v: &str) -> Result<NodeValue, E> {
        Ok(NodeValue::Scalar(v.into()))
    }

    fn visit_string<E>(self, v: String) -> Result<NodeValue, E> {
        Ok(NodeValue::Scalar(v.into()))
    }

    fn visit_unit<E>(self) -> Result<NodeValue, E> {
        Ok(NodeValue::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<NodeValue, E> {
        Ok(NodeValue::Scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<NodeValue, D::Error> {
        from.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<NodeValue, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element::<Node>()? {
            items.push(item);
        }
        Ok(NodeValue::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<NodeValue, A::Error> {
        let mut entries: Vec<(String, u64, Node)> = Vec::new();
        // Beside the entries, which keep the order of the text: a file may have
        // a hundred thousand keys, and comparing each with each takes seconds.
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let value = map.next_value::<Node>()?;
            if !seen.insert(key.value.clone()) {
                return Err(de::Error::custom(format!(
                    "the key {:?} stands here twice",
                    key.value
                )));
            }
            entries.push((key.value, key.referenced.line(), value));
        }
        Ok(NodeValue::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_of_every_document_knows_its_line() {
        let text =
            "# comment\na: 1\nb:\n  - x: true\n    y: [p, q]\n  - \"2\"\n---\nc:\n  d: null\n";
        let docs: Vec<Node> = serde_saphyr::from_multiple(text).expect("valid");
        assert_eq!(docs.len(), 2);
        for (path, line) in [
            ("a", 2),
            ("b", 3),
            ("b[0]", 4),
            ("b[0].y", 5),
            ("b[0].y[1]", 5),
            ("b[1]", 6),
            ("b[0].nothing", 4),
            ("z", 2),
        ] {
            assert_eq!(docs[0].line_of(path), line, "{path}");
        }
        assert_eq!(docs[1].line_of("c.d"), 9);
        assert_eq!(
            docs[0].to_json(),
            serde_json::json!({"a": 1, "b": [{"x": true, "y": ["p", "q"]}, "2"]})
        );
    }
}
