//! From the text of a file to objects.

use adit_api::{
    Problem, Reason, Resource as _,
    networking::{Connector, ConnectorAdvertisement, ConnectorClass, GROUP, HttpProxy},
    validate,
};
use serde::de::DeserializeOwned;

use super::{node::Node, strict};
use crate::{Kind, ObjectKey};

/// The namespace of an object that names none, as kubectl has it.
const DEFAULT_NAMESPACE: &str = "default";

/// One object, of any kind.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Object {
    HttpProxy(HttpProxy),
    Connector(Connector),
    Advertisement(ConnectorAdvertisement),
    Class(ConnectorClass),
}

/// What one document of a file is.
#[derive(Debug)]
pub(super) enum Document {
    /// Nothing that concerns us; perhaps worth a warning.
    Ignored(Vec<(u64, Problem)>),
    /// Meant for us, but it cannot be said which object it is.
    Nameless(Vec<(u64, Problem)>),
    /// A known object, whose content is bad.
    Bad(ObjectKey, Vec<(u64, Problem)>),
    /// An object, valid by itself; its problems are warnings.
    Good(ObjectKey, Box<(Object, Node)>),
}

/// Reads a file's text. A syntax error concerns the whole file.
pub(super) fn read(text: &str) -> Result<Vec<Document>, (u64, Problem)> {
    let documents: Vec<Node> = serde_saphyr::from_multiple(text).map_err(|e| {
        let line = e.location().map_or(0, |l| l.line());
        let message = first_line(&e.to_string());
        (
            line,
            Problem::error("", Reason::Unreadable, format!("not valid YAML: {message}")),
        )
    })?;
    Ok(documents
        .into_iter()
        .filter(|d| !d.is_null())
        .map(document)
        .collect())
}

fn first_line(text: &str) -> String {
    let line = text
        .lines()
        .map(str::trim)
        .find(|l| !l.is_empty())
        .unwrap_or_default();
    line.strip_prefix("error: ")
        .unwrap_or(line)
        .chars()
        .take(200)
        .collect()
}

fn document(node: Node) -> Document {
    let problem = |path: &str, reason, message: String| {
        vec![(node.line_of(path), Problem::error(path, reason, message))]
    };
    let (Some(api_version), Some(kind)) = (node.text("apiVersion"), node.text("kind")) else {
        return Document::Nameless(problem(
            "",
            Reason::Unreadable,
            "a manifest needs apiVersion, kind and metadata.name".into(),
        ));
    };
    let known = Kind::ALL.into_iter().find(|k| k.as_str() == kind);
    let ours = api_version.split('/').next() == Some(GROUP);
    let kind = match known {
        Some(known) if known.api_version() == api_version => known,
        Some(known) if ours || !api_version.contains('/') => {
            let expected = known.api_version();
            return Document::Nameless(problem(
                "apiVersion",
                Reason::UnknownKind,
                format!("a {kind} has apiVersion {expected}, not {api_version:?}"),
            ));
        }
        None if ours => {
            let kinds = Kind::ALL.map(Kind::as_str).join(", ");
            return Document::Nameless(problem(
                "kind",
                Reason::UnknownKind,
                format!("unknown kind {kind:?}; known are {kinds}"),
            ));
        }
        _ => {
            let message = format!("{api_version} {kind} is not read here and has no effect");
            return Document::Ignored(vec![(
                node.line_of("kind"),
                Problem::warning("kind", Reason::UnknownKind, message),
            )]);
        }
    };
    let Some(name) = node
        .get("metadata")
        .and_then(|m| m.text("name"))
        .filter(|n| !n.is_empty())
    else {
        return Document::Nameless(problem(
            "metadata",
            Reason::Unreadable,
            format!("a {kind} needs metadata.name"),
        ));
    };
    let namespace = match kind {
        Kind::ConnectorClass => "",
        _ => node
            .get("metadata")
            .and_then(|m| m.text("namespace"))
            .unwrap_or(DEFAULT_NAMESPACE),
    };
    let key = ObjectKey {
        kind,
        namespace: namespace.into(),
        name: name.into(),
    };
    let mut problems = strict::unknown_fields(&node, kind);
    match parse(kind, &node, namespace) {
        Ok(object) if problems.is_empty() => {
            let breaches = object.validate();
            if breaches.is_empty() {
                return Document::Good(key, Box::new((object, node)));
            }
            problems.extend(breaches.into_iter().map(|p| (node.line_of(&p.path), p)));
        }
        Ok(_) => {}
        Err(found) => problems.push(found),
    }
    Document::Bad(key, problems)
}

fn parse(kind: Kind, node: &Node, namespace: &str) -> Result<Object, (u64, Problem)> {
    let label = |n: &str| {
        n.len() <= 63
            && n.bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    if !label(namespace) {
        let path = "metadata.namespace";
        return Err((
            node.line_of(path),
            Problem::error(path, Reason::Invalid, "a namespace is a DNS label"),
        ));
    }
    let mut object = match kind {
        Kind::HttpProxy => Object::HttpProxy(typed(node)?),
        Kind::Connector => Object::Connector(typed(node)?),
        Kind::ConnectorAdvertisement => Object::Advertisement(typed(node)?),
        Kind::ConnectorClass => Object::Class(typed(node)?),
    };
    let namespace = Some(namespace.to_owned()).filter(|n| !n.is_empty());
    let meta = match &mut object {
        Object::HttpProxy(o) => o.meta_mut(),
        Object::Connector(o) => o.meta_mut(),
        Object::Advertisement(o) => o.meta_mut(),
        Object::Class(o) => o.meta_mut(),
    };
    meta.namespace = namespace;
    Ok(object)
}

fn typed<T: DeserializeOwned>(node: &Node) -> Result<T, (u64, Problem)> {
    serde_path_to_error::deserialize(node.to_json()).map_err(|e| {
        let path = match e.path().to_string() {
            root if root == "." => String::new(),
            path => path,
        };
        let message = e.into_inner().to_string();
        (
            node.line_of(&path),
            Problem::error(path, Reason::Invalid, message),
        )
    })
}

impl Object {
    fn validate(&self) -> Vec<Problem> {
        match self {
            // Who may write the directory runs the gateway.
            Self::HttpProxy(o) => validate::http_proxy(o, validate::Scope::Standalone),
            Self::Connector(o) => validate::connector(o),
            Self::Advertisement(o) => validate::advertisement(o),
            Self::Class(o) => validate::class(o),
        }
    }
}
