//! The pages of the book that are made from the code: options from the help of
//! `adit`, metrics from what its processes serve, kinds from their schemas.

mod commands;
mod kinds;
mod metrics;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// What stands below each heading.
const MADE: &str = "<!-- Made by `cargo xtask docs`: change the code instead. -->\n";

/// Every page: its file name in `docs/reference/`, and its text.
pub async fn pages() -> Result<BTreeMap<String, String>> {
    let mut pages = commands::pages().context("the options")?;
    pages.extend(kinds::pages().context("the kinds")?);
    let metrics = metrics::page().await.context("the metrics")?;
    pages.insert("metrics.md".to_owned(), metrics);
    Ok(pages)
}

/// What differs between `folder` and the pages; with `write` it is changed.
pub async fn differences(folder: &Path, write: bool) -> Result<Vec<String>> {
    let pages = pages().await?;
    let mut differences = Vec::new();
    fs::create_dir_all(folder)?;
    for (name, text) in &pages {
        let file = folder.join(name);
        let found = fs::read_to_string(&file).unwrap_or_default();
        if found != *text {
            differences.push(first_difference(name, &found, text));
            if write {
                fs::write(&file, text)?;
            }
        }
    }
    for entry in fs::read_dir(folder)? {
        let file: PathBuf = entry?.path();
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        if !pages.contains_key(&*name) {
            differences.push(format!("{name}: nothing makes this page"));
            if write {
                fs::remove_file(&file)?;
            }
        }
    }
    Ok(differences)
}

fn first_difference(name: &str, found: &str, made: &str) -> String {
    let mut lines = found.lines();
    let at = made.lines().position(|line| lines.next() != Some(line));
    let at = at.unwrap_or_else(|| made.lines().count());
    let line = |text: &str| text.lines().nth(at).unwrap_or("(the end)").to_owned();
    format!(
        "{name}:{}: {:?} should be {:?}",
        at + 1,
        line(found),
        line(made)
    )
}

/// Text for a cell of a table, without what markdown would take for its own.
fn cell(text: &str) -> String {
    let mut parts = text.split('`');
    let mut cell = plain(parts.next().unwrap_or_default());
    let mut code = true;
    for part in parts {
        cell.push('`');
        match code {
            true => cell += &part.replace('|', "\\|"),
            false => cell += &plain(part),
        }
        code = !code;
    }
    cell
}

fn plain(text: &str) -> String {
    let mut plain = String::new();
    for c in text.chars() {
        match c {
            '<' => plain += "&lt;",
            '>' => plain += "&gt;",
            '*' | '_' | '|' | '[' | ']' | '~' | '\\' => {
                plain.push('\\');
                plain.push(c);
            }
            '\n' => plain.push(' '),
            c => plain.push(c),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_markdown_would_take_for_its_own_is_escaped_but_for_code() {
        assert_eq!(
            cell("*.x or <id>|y, `_z.<a>|b`, c_d"),
            r"\*.x or &lt;id&gt;\|y, `_z.<a>\|b`, c\_d"
        );
    }

    #[test]
    fn the_first_line_that_differs_is_named() {
        assert_eq!(
            first_difference("a.md", "one\ntwo\n", "one\n2\n"),
            r#"a.md:2: "two" should be "2""#
        );
        assert_eq!(
            first_difference("a.md", "one\ntwo\n", "one\n"),
            r#"a.md:2: "two" should be "(the end)""#
        );
    }
}
