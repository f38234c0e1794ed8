//! The Helm chart as text: what it refuses, what it renders, and that it says
//! the same as the rest of the checkout. What an API server makes of it is
//! `helm_cluster`'s matter.

#[path = "helm_chart/pods.rs"]
mod pods;
#[path = "helm_chart/roles.rs"]
mod roles;
#[path = "helm_chart/values.rs"]
mod values;

use std::{env, fs, path::Path};

use adit_tests::{
    binaries::root,
    expect_ok,
    helm::{self, Document, Helm, text_of},
};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

/// A test that needs `helm` and nothing else.
macro_rules! with_helm {
    ($($name:ident),* $(,)?) => {
        mod with_helm {
            $(
                #[test]
                fn $name() {
                    super::run(super::$name);
                }
            )*
        }
    };
}

with_helm!(
    helms_own_lint_finds_nothing,
    each_rendering_is_the_one_that_was_looked_at,
    the_crds_are_those_of_the_api,
);

/// Runs a test, where there is a `helm`.
fn run(test: fn(&Helm) -> Result<()>) {
    expect_ok((|| match Helm::find()? {
        Some(helm) => test(&helm),
        None => Ok(()),
    })());
}

/// Whether files are to be written instead of compared.
fn update() -> bool {
    env::var_os("ADIT_UPDATE_GOLDEN").is_some()
}

/// A file that is kept beside what makes it.
fn compare(path: &Path, made: &str) -> Result<()> {
    if update() {
        return fs::write(path, made).with_context(|| format!("write {}", path.display()));
    }
    let kept = fs::read_to_string(path).unwrap_or_default();
    let differs = kept.lines().zip(made.lines()).position(|(a, b)| a != b);
    let line = differs.unwrap_or(kept.lines().count().min(made.lines().count()));
    let at = |text: &str| text.lines().nth(line).unwrap_or("(end)").to_owned();
    ensure!(
        kept == made,
        "{} is not what is made now; first in line {}:\n  kept {}\n  made {}\nlook at it, and if it \
         is right: ADIT_UPDATE_GOLDEN=1 cargo xtask helm",
        path.display(),
        line + 1,
        at(&kept),
        at(made)
    );
    Ok(())
}

fn helms_own_lint_finds_nothing(helm: &Helm) -> Result<()> {
    let chart = text_of(&helm::chart());
    for (_, values) in helm::values()? {
        let values = text_of(&values);
        helm.run(&["lint", "--strict", "--quiet", &chart, "--values", &values])?;
    }
    Ok(())
}

fn each_rendering_is_the_one_that_was_looked_at(helm: &Helm) -> Result<()> {
    let golden = root().join("helm/golden");
    let mut names = Vec::new();
    for (name, values) in helm::values()? {
        let documents = helm.template(&values)?;
        let shown = documents.iter().filter(|d| !is_crd(d));
        let text = shown.map(|d| format!("---\n{}", d.text));
        let file = golden.join(format!("{name}.yaml"));
        compare(&file, &text.collect::<String>())?;
        names.push(file);
    }
    let kept = helm::files("helm/golden")?;
    ensure!(kept == names, "one for each of helm/values: {kept:#?}");
    Ok(())
}

fn the_crds_are_those_of_the_api(helm: &Helm) -> Result<()> {
    let (ours, theirs) = (
        helm::files("helm/adit/files/crds")?,
        helm::files("api/crds")?,
    );
    let names = |all: &[std::path::PathBuf]| -> Vec<_> {
        all.iter()
            .filter_map(|f| f.file_name())
            .map(ToOwned::to_owned)
            .collect()
    };
    ensure!(names(&ours) == names(&theirs), "{ours:#?}");
    for (our, their) in ours.iter().zip(&theirs) {
        compare(our, &fs::read_to_string(their)?)?;
    }
    let rendered = helm.template(&helm::values_of("default")?)?;
    let rendered: Vec<_> = rendered.iter().filter(|d| is_crd(d)).collect();
    ensure!(rendered.len() == theirs.len());
    for crd in rendered {
        let file = theirs.iter().find(|f| {
            f.to_string_lossy()
                .ends_with(&crd_file(&crd.object).unwrap_or_default())
        });
        let file = file.with_context(|| format!("whose is {}?", crd.name()))?;
        let mut wanted: Value = serde_saphyr::from_str(&fs::read_to_string(file)?)?;
        wanted["metadata"]["annotations"] = json!({"helm.sh/resource-policy": "keep"});
        wanted["metadata"]["labels"] = crd.object["metadata"]["labels"].clone();
        let rendered = same_numbers(crd.object.clone());
        let name = crd.name();
        ensure!(
            rendered == same_numbers(wanted),
            "{name} differs from the file"
        );
    }
    let bare = helm.template(&helm::values_of("bare")?)?;
    ensure!(!bare.iter().any(is_crd), "crds.create=false");
    Ok(())
}

/// Helm writes 1.0 as 1, which is the same in a schema.
fn same_numbers(value: Value) -> Value {
    match value {
        Value::Number(number) => json!(number.as_f64()),
        Value::Array(all) => all.into_iter().map(same_numbers).collect(),
        Value::Object(all) => all.into_iter().map(|(k, v)| (k, same_numbers(v))).collect(),
        other => other,
    }
}

fn is_crd(document: &Document) -> bool {
    document.kind() == "CustomResourceDefinition"
}

/// As in `api/crds/<group>_<plural>.yaml`.
fn crd_file(crd: &Value) -> Option<String> {
    let plural = crd["spec"]["names"]["plural"].as_str()?;
    Some(format!("{}_{plural}.yaml", crd["spec"]["group"].as_str()?))
}
