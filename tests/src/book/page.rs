//! A page of the book: its fenced blocks and what becomes of each, its links, its
//! anchors.
//!
//! Every ` ```sh ` block is run, in order, in one shell for each page. A comment
//! on the line above a fence says otherwise:
//!
//! | comment | the block below it |
//! |---|---|
//! | `<!-- not run: REASON -->` | is shown only, and counted |
//! | `<!-- prints -->` | is what the block above printed; `…` stands for anything |

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

/// The comment in a page whose commands need a cluster.
const CLUSTER: &str = "<!-- commands for a cluster -->";

/// One markdown file.
#[derive(Debug, Clone)]
pub struct Page {
    /// Where it is.
    pub path: PathBuf,
    /// Whether its commands need a cluster.
    pub cluster: bool,
    /// Its fenced blocks in order.
    pub blocks: Vec<Block>,
    /// Its links, without those inside of code.
    pub links: Vec<Link>,
    /// What a link may name after `#`.
    pub anchors: BTreeSet<String>,
    /// What is wrong with the page itself, with its line.
    pub faults: Vec<String>,
}

/// A fenced block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The line of its fence.
    pub line: usize,
    /// Its text, with the final line break.
    pub text: String,
    /// What becomes of it.
    pub fate: Fate,
}

/// What becomes of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It is run.
    Run,
    /// It is shown only, for this reason.
    NotRun(String),
    /// What the block above must have printed.
    Prints,
    /// Text that is no command.
    Text,
}

/// A link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its line.
    pub line: usize,
    /// Where it leads, as written.
    pub to: String,
}

impl Page {
    /// Reads a file.
    pub fn read(path: &Path) -> io::Result<Self> {
        Ok(Self::parse(path, &fs::read_to_string(path)?))
    }

    /// Takes a page apart.
    pub fn parse(path: &Path, text: &str) -> Self {
        let mut page = Self {
            path: path.to_owned(),
            cluster: text.lines().any(|line| line == CLUSTER),
            blocks: Vec::new(),
            links: Vec::new(),
            anchors: BTreeSet::new(),
            faults: Vec::new(),
        };
        let mut headings = BTreeMap::new();
        let mut above = "";
        let mut lines = text.lines().enumerate().map(|(at, line)| (at + 1, line));
        while let Some((line, content)) = lines.next() {
            let trimmed = content.trim_start();
            if let Some(info) = trimmed.strip_prefix("```") {
                let indent = content.len() - trimmed.len();
                let mut body = String::new();
                let mut closed = false;
                for (_, inner) in lines.by_ref() {
                    if inner.trim() == "```" {
                        closed = true;
                        break;
                    }
                    body.push_str(inner.get(indent..).unwrap_or(inner.trim_start()));
                    body.push('\n');
                }
                if !closed {
                    page.fault(line, "the block is not closed");
                }
                page.block(line, info, above, body);
            } else {
                if let Some(heading) = heading(content) {
                    let plain = anchor(heading);
                    let again = headings.entry(plain.clone()).or_insert(0);
                    page.anchors.insert(match *again {
                        0 => plain,
                        n => format!("{plain}-{n}"),
                    });
                    *again += 1;
                }
                let found = links(content).map(|to| Link { line, to });
                page.links.extend(found);
            }
            above = content;
        }
        page
    }

    /// The blocks that are run.
    pub fn commands(&self) -> impl Iterator<Item = &Block> {
        self.blocks.iter().filter(|block| block.fate == Fate::Run)
    }

    fn block(&mut self, line: usize, info: &str, above: &str, text: String) {
        let said = above
            .trim()
            .strip_prefix("<!--")
            .and_then(|rest| rest.strip_suffix("-->"))
            .map(str::trim);
        let fate = match (info, said) {
            ("sh", None) => Fate::Run,
            ("sh", Some(said)) => match said.split_once(':') {
                Some(("not run", reason)) if !reason.trim().is_empty() => {
                    Fate::NotRun(reason.trim().to_owned())
                }
                _ => {
                    self.fault(line, &format!("nobody knows what {said:?} above it means"));
                    Fate::Text
                }
            },
            (_, Some("prints")) => {
                let after = self.blocks.last().map(|block| &block.fate);
                if after != Some(&Fate::Run) {
                    self.fault(line, "no block above it is run, so nothing is printed");
                }
                Fate::Prints
            }
            ("bash" | "shell" | "console" | "zsh", _) => {
                self.fault(line, "commands stand in ```sh blocks, which are run");
                Fate::Text
            }
            _ if text.lines().any(|line| line.starts_with("$ ")) => {
                self.fault(line, "commands stand in ```sh blocks, without a prompt");
                Fate::Text
            }
            _ => Fate::Text,
        };
        self.blocks.push(Block { line, text, fate });
    }

    fn fault(&mut self, line: usize, what: &str) {
        let path = self.path.display();
        self.faults.push(format!("{path}:{line}: {what}"));
    }
}

/// The markdown files of a folder and the folders in it, sorted.
pub fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// What is wrong with the links of these pages, to `others` and elsewhere. A link
/// out of the folder `within` is refused: it would lead nowhere in the book.
pub fn broken_links(pages: &[Page], others: &[Page], within: &Path) -> Vec<String> {
    let mut broken = Vec::new();
    for page in pages {
        for link in &page.links {
            if let Err(why) = follow(page, &link.to, others, within) {
                let (path, line) = (page.path.display(), link.line);
                broken.push(format!("{path}:{line}: {}: {why}", link.to));
            }
        }
    }
    broken
}

fn follow(page: &Page, to: &str, pages: &[Page], within: &Path) -> Result<(), String> {
    if let Some((scheme, rest)) = to.split_once(':') {
        // What is outside is not asked: it may be away, and here is no network.
        let host = rest.strip_prefix("//").unwrap_or_default();
        let well_formed = host.starts_with(|c: char| c.is_ascii_alphanumeric())
            && !host.contains(char::is_whitespace);
        return match scheme {
            "https" if well_formed => Ok(()),
            _ => Err("only https://HOST/… may be linked".into()),
        };
    }
    let (file, anchor) = to.split_once('#').unwrap_or((to, ""));
    let folder = page.path.parent().unwrap_or(Path::new(""));
    let path = match file {
        "" => page.path.clone(),
        file => plain(&folder.join(file)),
    };
    if !path.exists() {
        return Err("there is no such file".into());
    }
    if !path.starts_with(plain(within)) {
        return Err("it leads out of the book; name the file instead".into());
    }
    if anchor.is_empty() {
        return Ok(());
    }
    let page = pages.iter().find(|page| plain(&page.path) == path);
    match page {
        Some(page) if page.anchors.contains(anchor) => Ok(()),
        Some(_) => Err("that page has no such heading".into()),
        None => Err("no heading can be named there".into()),
    }
}

/// A path without `.` and `..`.
fn plain(path: &Path) -> PathBuf {
    use std::path::Component;
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir => {}
            part => plain.push(part),
        }
    }
    plain
}

fn heading(line: &str) -> Option<&str> {
    let text = line.trim_start_matches('#');
    let depth = line.len() - text.len();
    ((1..=6).contains(&depth) && text.starts_with(' ')).then(|| text.trim())
}

/// The id that mdBook gives a heading, and so do forges.
fn anchor(heading: &str) -> String {
    // Of a link only its text stays.
    let mut text = String::new();
    let mut rest = heading;
    while let Some((before, after)) = rest.split_once("](") {
        text.push_str(before);
        rest = after.split_once(')').map_or("", |(_, rest)| rest);
    }
    text.push_str(rest);
    let kept = text.trim().chars().filter_map(|c| match c {
        c if c.is_alphanumeric() || c == '_' || c == '-' => Some(c.to_ascii_lowercase()),
        c if c.is_whitespace() => Some('-'),
        _ => None,
    });
    kept.collect()
}

/// Where the links of a line lead.
fn links(line: &str) -> impl Iterator<Item = String> + '_ {
    // Every second part between back quotes is code.
    let text: String = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
    let mut found = Vec::new();
    let mut rest = text.as_str();
    while let Some((_, after)) = rest.split_once("](") {
        let Some((to, after)) = after.split_once(')') else {
            break;
        };
        found.push(to.to_owned());
        rest = after;
    }
    found.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(text: &str) -> Page {
        Page::parse(Path::new("docs/a.md"), text)
    }

    #[test]
    fn a_block_of_commands_is_run_unless_a_comment_says_why_not() {
        let page = page(
            "# A\n```sh\nls\n```\n<!-- prints -->\n```\na …\n```\n\
             <!-- not run: no cloud here -->\n```sh\nbuy\n```\n\
             ```yaml\na: b\n```\n",
        );
        let fates: Vec<_> = page.blocks.iter().map(|b| b.fate.clone()).collect();
        assert_eq!(
            fates,
            [
                Fate::Run,
                Fate::Prints,
                Fate::NotRun("no cloud here".into()),
                Fate::Text,
            ]
        );
        assert!(page.faults.is_empty(), "{:?}", page.faults);
        assert_eq!(page.blocks[0].line, 2);
    }

    #[test]
    fn no_command_hides_from_being_run() {
        for text in [
            "```bash\nls\n```\n",
            "```console\n$ ls\n```\n",
            "```\n$ ls\n```\n",
            "<!-- not run: -->\n```sh\nls\n```\n",
            "<!-- some day -->\n```sh\nls\n```\n",
            "<!-- prints -->\n```\nnothing\n```\n",
            "```sh\nls\n",
        ] {
            assert_eq!(page(text).faults.len(), 1, "{text}");
        }
    }

    #[test]
    fn an_indented_block_loses_its_indent() {
        assert_eq!(
            page("  ```sh\n  a\n    b\n  ```\n").blocks[0].text,
            "a\n  b\n"
        );
    }

    #[test]
    fn headings_are_found_by_the_id_that_the_book_gives_them() {
        let page =
            page("# How do I, `adit run`?\n## Two [words](b.md)\n## Two words\n####### no\n");
        let anchors: Vec<_> = page.anchors.iter().map(String::as_str).collect();
        assert_eq!(anchors, ["how-do-i-adit-run", "two-words", "two-words-1"]);
    }

    #[test]
    fn a_link_that_leads_nowhere_or_out_of_the_book_is_broken() {
        let dir = tempfile::tempdir().unwrap();
        let book = dir.path().join("docs");
        fs::create_dir(&book).unwrap();
        for file in ["docs/a.md", "docs/b.svg", "c.md"] {
            fs::write(dir.path().join(file), "").unwrap();
        }
        let text = "# One\n[a](b.svg) [b](#one) [c](https://example.com/x)\n\
                    [d](#two) [e](nowhere.svg)\n[f](../c.md) `[g](code)`\n\
                    [h](http://example.com) [i](https:// x)\n";
        let page = Page::parse(&book.join("a.md"), text);
        let pages = [page];
        let broken = broken_links(&pages, &pages, &book);
        let named: Vec<_> = [
            "#two",
            "nowhere.svg",
            "../c.md",
            "http://example.com",
            "https:// x",
        ]
        .into_iter()
        .filter(|to| broken.iter().any(|b| b.contains(&format!(": {to}: "))))
        .collect();
        assert_eq!((broken.len(), named.len()), (5, 5), "{broken:#?}");
    }
}
