//! Fields of the kinds, from the schemas that the API server gets.

use std::{collections::BTreeMap, fmt::Write as _};

use anyhow::{Context, Result};
use serde_json::Value;

use super::{MADE, cell};

/// What limits a value, and how to say it.
const LIMITS: [(&str, &str); 10] = [
    ("minItems", "at least {} items"),
    ("maxItems", "at most {} items"),
    ("minProperties", "at least {} keys"),
    ("maxProperties", "at most {} keys"),
    ("minLength", "at least {} characters"),
    ("maxLength", "at most {} characters"),
    ("minimum", "≥ {}"),
    ("maximum", "≤ {}"),
    ("pattern", "`{}`"),
    ("default", "default `{}`"),
];

/// A page for each kind.
pub fn pages() -> Result<BTreeMap<String, String>> {
    let mut pages = BTreeMap::new();
    for crd in adit_api::crds() {
        let crd = serde_json::to_value(&crd)?;
        let names = &crd["spec"]["names"];
        let kind = names["kind"].as_str().context("a kind")?;
        let file = format!("{}.md", kind.to_ascii_lowercase());
        pages.insert(file, page(&crd, kind)?);
    }
    Ok(pages)
}

fn page(crd: &Value, kind: &str) -> Result<String> {
    let spec = &crd["spec"];
    let versions = spec["versions"].as_array().context("versions")?;
    let mut page = format!("# What has a {kind}?\n\n{MADE}\n");
    for version in versions {
        let schema = &version["schema"]["openAPIV3Schema"];
        let about = schema["description"].as_str().unwrap_or_default();
        writeln!(page, "{}\n", cell(about))?;
        writeln!(
            page,
            "`apiVersion: {}/{}`, `kind: {kind}`, {}.",
            text(&spec["group"]),
            text(&version["name"]),
            match text(&spec["scope"]) {
                "Namespaced" => "in a namespace",
                _ => "of the whole cluster",
            }
        )?;
        let mut walk = Walk::default();
        walk.properties("", schema, 0)?;
        writeln!(page, "\n## Fields\n\n`*` marks what must be there.\n")?;
        writeln!(page, "| field | type | |\n|---|---|---|\n{}", walk.fields)?;
        if !walk.rules.is_empty() {
            writeln!(
                page,
                "## What the API server refuses\n\n| at | |\n|---|---|\n{}",
                walk.rules
            )?;
        }
    }
    Ok(page.trim_end().to_owned() + "\n")
}

/// The rows found so far.
#[derive(Default)]
struct Walk {
    fields: String,
    rules: String,
}

impl Walk {
    fn properties(&mut self, at: &str, schema: &Value, depth: usize) -> Result<()> {
        self.validations(at, schema)?;
        let required: Vec<_> = schema["required"]
            .as_array()
            .into_iter()
            .flatten()
            .map(text)
            .collect();
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            // They are the API server's own.
            if depth == 0 && ["apiVersion", "kind", "metadata"].contains(&&**name) {
                continue;
            }
            let path = match at {
                "" => name.clone(),
                at => format!("{at}.{name}"),
            };
            let star = if required.contains(&&**name) { "*" } else { "" };
            self.field(&path, star, property, depth)?;
        }
        Ok(())
    }

    fn field(&mut self, path: &str, star: &str, schema: &Value, depth: usize) -> Result<()> {
        let mut about = text(&schema["description"]).to_owned();
        let values: Vec<_> = schema["enum"].as_array().into_iter().flatten().collect();
        if !values.is_empty() {
            let named: Vec<_> = values.iter().map(|v| format!("`{}`", bare(v))).collect();
            about += &format!(" One of {}.", named.join(", "));
        }
        let limits: Vec<_> = LIMITS
            .iter()
            .filter(|(key, _)| !schema[key].is_null())
            .map(|(key, say)| say.replace("{}", &bare(&schema[key])))
            .collect();
        if !limits.is_empty() {
            about += &format!(" ({})", limits.join(", "));
        }
        let kind = kind(schema);
        writeln!(
            self.fields,
            "| `{path}`{} | {kind} | {} |",
            cell(star),
            cell(about.trim())
        )?;
        self.children(path, schema, depth)
    }

    /// What is inside: of a list its items, of a map its values.
    fn children(&mut self, path: &str, schema: &Value, depth: usize) -> Result<()> {
        if schema["type"] == "array" {
            self.validations(path, schema)?;
            return self.children(&format!("{path}[]"), &schema["items"], depth + 1);
        }
        let values = &schema["additionalProperties"];
        if values.is_object() {
            self.validations(path, schema)?;
            return self.children(&format!("{path}.<key>"), values, depth + 1);
        }
        self.properties(path, schema, depth + 1)
    }

    fn validations(&mut self, at: &str, schema: &Value) -> Result<()> {
        let rules = schema["x-kubernetes-validations"].as_array();
        for rule in rules.into_iter().flatten() {
            let place = match at {
                "" => "the object".to_owned(),
                at => format!("`{at}`"),
            };
            writeln!(self.rules, "| {place} | {} |", cell(text(&rule["message"])))?;
        }
        Ok(())
    }
}

fn kind(schema: &Value) -> String {
    if schema["x-kubernetes-int-or-string"] == true {
        return "integer or string".to_owned();
    }
    match text(&schema["type"]) {
        "array" => format!("list of {}", kind(&schema["items"])),
        "object" if schema["additionalProperties"].is_object() => "map".to_owned(),
        "string" if schema["format"] == "date-time" => "time".to_owned(),
        kind => kind.to_owned(),
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn bare(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}
