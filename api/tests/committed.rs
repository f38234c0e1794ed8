//! `api/crds/` holds what `adit crds` prints, one file for each kind, so that
//! a change of the API is seen in review.

use std::{collections::BTreeMap, env, fs, path::Path};

use adit_api::crds;

/// Set, the files are written instead of compared.
const UPDATE: &str = "ADIT_UPDATE_CRDS";

#[test]
fn the_committed_crds_are_those_of_the_types() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds");
    let wanted: BTreeMap<String, String> = crds()
        .into_iter()
        .map(|crd| {
            let file = format!("{}_{}.yaml", crd.spec.group, crd.spec.names.plural);
            let text = serde_saphyr::to_string(&crd).expect("a CRD is YAML");
            (file, format!("{}\n", text.trim_end()))
        })
        .collect();
    if env::var_os(UPDATE).is_some() {
        fs::create_dir_all(&folder).expect("the folder");
        for (file, text) in &wanted {
            fs::write(folder.join(file), text).expect("written");
        }
    }
    let committed: BTreeMap<String, String> = fs::read_dir(&folder)
        .expect("api/crds")
        .map(|entry| {
            let entry = entry.expect("an entry");
            let text = fs::read_to_string(entry.path()).expect("a text");
            (entry.file_name().to_string_lossy().into_owned(), text)
        })
        .collect();
    let again = format!("write them anew: {UPDATE}=1 cargo test -p adit-api --test committed");
    let names = |files: &BTreeMap<String, String>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&committed), names(&wanted), "{again}");
    for (file, text) in &wanted {
        let old = &committed[file];
        let line = text
            .lines()
            .zip(old.lines())
            .position(|(new, old)| new != old)
            .unwrap_or_else(|| text.lines().count().min(old.lines().count()));
        assert!(
            text == old,
            "api/crds/{file} differs from the types at line {}; {again}",
            line + 1
        );
    }
}
