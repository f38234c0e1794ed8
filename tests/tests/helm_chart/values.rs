//! What values the chart takes: described, refused, and each of them tried.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use adit_tests::helm::{self, Helm, text_of};
use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{compare, run};

#[test]
fn what_the_chart_does_not_know_is_refused() {
    run(unknown_keys);
}

#[test]
fn a_value_that_cannot_work_is_refused_with_its_name() {
    run(wrong_values);
}

#[test]
fn every_value_is_described_in_the_readme_and_in_the_schema() {
    run(described);
}

#[test]
fn every_switch_is_rendered_both_ways() {
    run(switches);
}

/// Refused by helm, and this is what it says.
fn refusal(helm: &Helm, set: &str) -> Result<String> {
    let chart = text_of(&helm::chart());
    let output = helm.try_run(&["template", "adit", &chart, "--set", set])?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!output.status.success(), "--set {set} was taken");
    Ok(said)
}

fn unknown_keys(helm: &Helm) -> Result<()> {
    let values = values()?;
    let mut objects = vec![String::new()];
    paths(&values, "", &mut |path, value| {
        if value.as_object().is_some_and(|map| !map.is_empty()) {
            objects.push(format!("{path}."));
        }
    });
    let mut tried = 0;
    for object in objects {
        // What Kubernetes reads itself takes any key.
        if object.contains(".requests.") || object.contains(".limits.") {
            continue;
        }
        let said = refusal(helm, &format!("{object}nonsense=1"))?;
        ensure!(said.contains("'nonsense' not allowed"), "{object}: {said}");
        tried += 1;
    }
    ensure!(tried > 20, "only {tried} objects were found");
    Ok(())
}

fn wrong_values(helm: &Helm) -> Result<()> {
    for (set, name) in [
        ("reconciler.replicas=-1", "/reconciler/replicas"),
        ("reconciler.replicas=two", "/reconciler/replicas"),
        ("reconciler.gateway=edge", "/reconciler/gateway"),
        ("reconciler.deadline=soon", "/reconciler/deadline"),
        ("reconciler.dns.publish=yes", "/reconciler/dns/publish"),
        ("reconciler.dns.server=ns.example", "/reconciler/dns/server"),
        ("image.digest=sha256:12", "/image/digest"),
        ("image.repository=UPPER", "/image/repository"),
        ("watchNamespaces={A}", "/watchNamespaces/0"),
        ("metrics.port=70000", "/metrics/port"),
        ("gateway.module.from=magic", "/gateway/module/from"),
        (
            "gateway.dialer.bind={1.2.3.4:1,1.2.3.4:2,1.2.3.4:3}",
            "/gateway/dialer/bind",
        ),
        ("admissionPolicy.allowedUsers={a'b}", "/admissionPolicy"),
        ("test.address=nowhere", "/test/address"),
        ("reconciler.dns.publish=rfc2136", "reconciler.dns.server"),
        ("serviceAccount.create=false", "serviceAccount.name"),
    ] {
        let said = refusal(helm, set)?;
        ensure!(said.contains(name), "{set}: {said}");
    }
    Ok(())
}

fn described(_: &Helm) -> Result<()> {
    let values = values()?;
    let schema = fs::read_to_string(helm::chart().join("values.schema.json"))?;
    let schema: Value = serde_json::from_str(&schema).context("values.schema.json")?;
    same_keys(&values, &schema, "")?;
    let described = descriptions()?;
    let mut leaves = BTreeMap::new();
    paths(&values, "", &mut |path, value| {
        if is_leaf(path, value) {
            leaves.insert(path.to_owned(), value.clone());
        }
    });
    let mut table = String::from("| value | default | what it is |\n|---|---|---|\n");
    // In the order of the file.
    for (path, text) in &described {
        let Some(default) = leaves.remove(path) else {
            ensure!(path.is_empty(), "{path} is described and is no value");
            continue;
        };
        let text = text.replace('|', "\\|");
        table += &format!("| `{path}` | `{default}` | {text} |\n");
    }
    ensure!(leaves.is_empty(), "not described: {:?}", leaves.keys());
    let file = helm::chart().join("README.md");
    let readme = fs::read_to_string(&file)?;
    let (begin, end) = ("<!-- values -->\n", "<!-- /values -->");
    let (head, rest) = readme.split_once(begin).context(begin)?;
    let (_, tail) = rest.split_once(end).context(end)?;
    compare(&file, &format!("{head}{begin}{table}{end}{tail}"))
}

/// Each switch is on in one of the rendered sets and off in another; each of a
/// list of words is in one.
fn switches(_: &Helm) -> Result<()> {
    let defaults = values()?;
    let mut sets = Vec::new();
    for (_, file) in helm::values()? {
        let set: Value = serde_saphyr::from_str(&fs::read_to_string(file)?)?;
        sets.push(set);
    }
    let mut seen: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    paths(&defaults, "", &mut |path, value| {
        if !is_leaf(path, value) {
            return;
        }
        let pointer = format!("/{}", path.replace('.', "/"));
        for set in &sets {
            let value = set.pointer(&pointer).unwrap_or(value);
            let values = seen.entry(path.to_owned()).or_default();
            values.insert(value.to_string());
        }
    });
    // A switch that stands in the way of all others.
    let always = ["serviceAccount.create"];
    for (path, seen) in seen {
        let boolean = seen.contains("true") || seen.contains("false");
        ensure!(
            !boolean || seen.len() == 2 || always.contains(&path.as_str()),
            "{path} is only rendered as {seen:?}: add it to a file in helm/values"
        );
        ensure!(
            seen.len() > 1 || NEVER_CHANGED.contains(&path.as_str()),
            "{path} is only rendered as {seen:?}: add it to a file in helm/values"
        );
    }
    let words = |path: &str| -> Vec<String> {
        let pointer = format!("/{}", path.replace('.', "/"));
        let default = defaults.pointer(&pointer);
        sets.iter()
            .filter_map(|set| set.pointer(&pointer).or(default))
            .filter_map(|v| v.as_str().map(str::to_owned))
            .collect()
    };
    for (path, all) in [
        (
            "reconciler.dns.publish",
            &["none", "endpoint", "rfc2136"][..],
        ),
        ("gateway.module.from", &["initContainer", "imageVolume"]),
        ("reconciler.log.format", &["json", "text"]),
    ] {
        let seen = words(path);
        ensure!(
            all.iter().all(|word| seen.iter().any(|s| s == word)),
            "{path}: {seen:?}"
        );
    }
    Ok(())
}

/// What is rendered in one way only: numbers and names whose text is copied.
const NEVER_CHANGED: [&str; 9] = [
    "reconciler.resources",
    "reconciler.dns.tsigKey.key",
    "gateway.namespace",
    "gateway.controllerName",
    "gateway.envoy.resources",
    "gateway.dialer.resources",
    "admissionPolicy.allowedGroups",
    "test.image",
    "moduleImage.repository",
];

fn values() -> Result<Value> {
    let text = fs::read_to_string(helm::chart().join("values.yaml"))?;
    serde_saphyr::from_str(&text).context("values.yaml")
}

/// Every value and every object of values, by `a.b.c`.
fn paths(value: &Value, path: &str, visit: &mut impl FnMut(&str, &Value)) {
    if !path.is_empty() {
        visit(path, value);
    }
    if is_leaf(path, value) {
        return;
    }
    for (key, value) in value.as_object().into_iter().flatten() {
        let path = match path {
            "" => key.clone(),
            path => format!("{path}.{key}"),
        };
        paths(value, &path, visit);
    }
}

/// What a person sets as a whole.
fn is_leaf(path: &str, value: &Value) -> bool {
    path.ends_with("esources") || value.as_object().is_none_or(serde_json::Map::is_empty)
}

/// The schema closes each object, and knows the keys of the file and no others.
fn same_keys(values: &Value, schema: &Value, path: &str) -> Result<()> {
    if is_leaf(path, values) && !path.is_empty() {
        return Ok(());
    }
    ensure!(
        schema["additionalProperties"] == false,
        "{path:?} is open in the schema"
    );
    let known = schema["properties"].as_object().context("properties")?;
    let there = values.as_object().context("an object")?;
    for (key, value) in there {
        let below = format!("{path}.{key}");
        let below = below.trim_start_matches('.');
        let schema = known.get(key);
        let schema = schema.with_context(|| format!("{below} is not in the schema"))?;
        same_keys(value, schema, below)?;
    }
    let more: Vec<_> = known
        .keys()
        // Helm's own: it hands it to every chart.
        .filter(|key| !there.contains_key(*key) && *key != "global")
        .collect();
    ensure!(more.is_empty(), "{path:?}: only in the schema: {more:?}");
    Ok(())
}

/// The comment above each key of values.yaml, by `a.b.c`, in its order.
fn descriptions() -> Result<Vec<(String, String)>> {
    let text = fs::read_to_string(helm::chart().join("values.yaml"))?;
    let mut path: Vec<(usize, String)> = Vec::new();
    let mut comment = String::new();
    let mut all = Vec::new();
    for line in text.lines() {
        let words = line.trim_start();
        let depth = line.len() - words.len();
        if let Some(said) = words.strip_prefix('#') {
            comment = format!("{comment} {}", said.trim());
            continue;
        }
        let said = std::mem::take(&mut comment).trim().to_owned();
        let key = words.split_once(':').map(|(key, _)| key);
        let Some(key) = key.filter(|k| k.chars().all(char::is_alphanumeric)) else {
            continue;
        };
        path.retain(|(other, _)| *other < depth);
        path.push((depth, key.to_owned()));
        if !said.is_empty() {
            let keys: Vec<_> = path.iter().map(|(_, key)| key.as_str()).collect();
            all.push((keys.join("."), said));
        }
    }
    Ok(all)
}
