//! The links of the HTML that mdBook made: what a reader clicks on is there. The
//! markdown's own links are checked as they are written (`page`); this sees what
//! became of them, and of the headings that they name.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Component, Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

/// Every link and picture of a folder of HTML that leads to nothing in it.
pub fn broken_links(folder: &Path) -> Result<Vec<String>> {
    let mut pages = BTreeMap::new();
    for file in files(folder)? {
        let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        pages.insert(file, text);
    }
    ensure!(pages.len() > 1, "{} has no pages", folder.display());
    let ids: BTreeMap<_, BTreeSet<_>> = pages
        .iter()
        .map(|(file, text)| (file.clone(), values(text, "id").collect()))
        .collect();
    let mut broken = Vec::new();
    for (file, text) in &pages {
        // The page for "not found" is served from anywhere.
        if file.ends_with("404.html") {
            continue;
        }
        for to in values(text, "href").chain(values(text, "src")) {
            if to.contains("://") || to.starts_with("data:") {
                continue;
            }
            let (path, anchor) = to.split_once('#').unwrap_or((to, ""));
            let at = match path {
                "" => file.clone(),
                path => resolve(file.parent().unwrap_or(folder), path),
            };
            let known = ids.get(&at).is_none_or(|ids| ids.contains(anchor));
            if !at.exists() || (!anchor.is_empty() && !known) {
                let page = file.strip_prefix(folder).unwrap_or(file);
                broken.push(format!("{}: {to}: leads nowhere", page.display()));
            }
        }
    }
    Ok(broken)
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else if path
            .extension()
            .is_some_and(|extension| extension == "html")
        {
            found.push(path);
        }
    }
    Ok(found)
}

/// The values of an attribute, as mdBook writes them.
fn values<'t>(text: &'t str, attribute: &str) -> impl Iterator<Item = &'t str> {
    let opening = format!(" {attribute}=\"");
    let parts: Vec<_> = text.split(&*opening).skip(1).collect();
    parts
        .into_iter()
        .filter_map(|rest| rest.split('"').next())
        .filter(|value| !value.is_empty())
}

fn resolve(folder: &Path, path: &str) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in folder.join(path).components() {
        match part {
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir => {}
            part => plain.push(part),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_to_a_missing_page_picture_or_heading_is_found() {
        let dir = std::env::temp_dir().join(format!("adit-book-{}", std::process::id()));
        fs::create_dir_all(dir.join("in")).unwrap();
        fs::write(
            dir.join("a.html"),
            r##"<h1 id="one"></h1> <a href="in/b.html#two"></a> <a href="#one"></a>
                <a href="https://example.com/#x"></a> <img src="c.svg"> <a href="#three"></a>"##,
        )
        .unwrap();
        fs::write(
            dir.join("in/b.html"),
            r#"<a href="../a.html#one"></a> <a href="d.html">"#,
        )
        .unwrap();
        let broken = broken_links(&dir).unwrap();
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(
            broken,
            [
                "a.html: in/b.html#two: leads nowhere",
                "a.html: #three: leads nowhere",
                "a.html: c.svg: leads nowhere",
                "in/b.html: d.html: leads nowhere",
            ]
        );
    }
}
