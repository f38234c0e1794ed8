//! Runs the commands of a page in the order in which they stand, in one shell,
//! as a reader pastes them, and compares what they print with what the page says.

use std::{
    fmt::Write as _,
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};

use super::page::{Block, Fate, Page};
use crate::process::Process;

/// Longer than a page takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(240);
/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// Runs a page. `shell` makes the command that runs a script by bash; files are
/// kept in `dir`.
pub async fn page(
    page: &Page,
    dir: &Path,
    shell: impl FnOnce(&Path) -> Result<Command>,
) -> Result<()> {
    let commands: Vec<_> = page.commands().collect();
    let script = dir.join("page.sh");
    fs::write(&script, text(&commands, dir)?)?;
    let mut bash = Process::start("page", dir, &mut shell(&script)?)?;
    let deadline = Instant::now() + PATIENCE;
    while bash.is_running() {
        if Instant::now() > deadline {
            bail!("it takes too long; {}", last(page, &commands, dir));
        }
        tokio::time::sleep(LOOK).await;
    }
    let status = bash.wait().await?;
    ensure!(
        status.success(),
        "{status}; {}\n{}",
        last(page, &commands, dir),
        bash.last_words()
    );
    compare(page, dir)
}

/// The script: what each block prints goes to a file of its own.
fn text(commands: &[&Block], dir: &Path) -> Result<String> {
    let mut script = "set -euo pipefail\n".to_owned();
    let dir = dir.display();
    for (at, block) in commands.iter().enumerate() {
        writeln!(script, "exec > '{dir}/{at}.out' 2>&1 < /dev/null")?;
        script += &block.text;
    }
    Ok(script)
}

/// Where the last block that began stands, and what it said.
fn last(page: &Page, commands: &[&Block], dir: &Path) -> String {
    let begun = commands
        .iter()
        .enumerate()
        .rev()
        .find_map(|(at, block)| Some((block, said(dir, at).ok()?)));
    match begun {
        Some((block, said)) => format!("{}: the block printed:\n{said}", place(page, block)),
        None => format!("{}: nothing ran", page.path.display()),
    }
}

fn said(dir: &Path, at: usize) -> Result<String> {
    let bytes = fs::read(dir.join(format!("{at}.out")))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn place(page: &Page, block: &Block) -> String {
    format!("{}:{}", page.path.display(), block.line)
}

fn compare(page: &Page, dir: &Path) -> Result<()> {
    let mut ran = 0;
    for block in &page.blocks {
        match block.fate {
            Fate::Run => ran += 1,
            Fate::Prints => {
                let said = said(dir, ran - 1)?;
                if let Some(line) = missing(&block.text, &said) {
                    bail!(
                        "{}: {line:?} was not printed, but:\n{said}",
                        place(page, block)
                    );
                }
            }
            Fate::NotRun(_) | Fate::Text => {}
        }
    }
    Ok(())
}

/// The first line of `expected` that does not stand in `said`, after the one
/// before it.
fn missing<'e>(expected: &'e str, said: &str) -> Option<&'e str> {
    let mut lines = said.lines();
    expected
        .lines()
        .find(|wanted| !lines.any(|line| fits(wanted.trim_end(), line.trim_end())))
}

/// Whether a line is as wanted, where `…` is anything.
fn fits(wanted: &str, line: &str) -> bool {
    let mut parts = wanted.split('…');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = line.strip_prefix(first) else {
        return false;
    };
    let mut parts: Vec<_> = parts.collect();
    let Some(last) = parts.pop() else {
        return rest.is_empty();
    };
    for part in parts {
        let Some((_, after)) = rest.split_once(part) else {
            return false;
        };
        rest = after;
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ellipsis_stands_for_anything_and_lines_may_be_left_out() {
        let said = "GET x: forwarded\nrule 7\nthrough laptop a51d, at 1.2.3.4:5\n";
        assert_eq!(
            missing("GET x: forwarded\nthrough laptop …, at …:5\n", said),
            None
        );
        assert_eq!(missing("…lapt…4…\n", said), None);
        assert_eq!(missing("…\n…\n…\n", said), None);
        // Not in this order, not whole, not so often.
        assert_eq!(
            missing("rule 7\nGET x: forwarded\n", said),
            Some("GET x: forwarded")
        );
        assert_eq!(missing("rule\n", said), Some("rule"));
        assert_eq!(missing("…\n…\n…\n…\n", said), Some("…"));
        assert_eq!(missing("rule …8\n", said), Some("rule …8"));
    }

    #[tokio::test]
    async fn a_page_fails_where_a_command_does_and_where_it_prints_something_else() {
        async fn run(text: &str) -> Result<()> {
            let dir = tempfile::tempdir()?;
            let parsed = Page::parse(Path::new("a.md"), text);
            let shell = |script: &Path| {
                let mut bash = Command::new("bash");
                bash.arg(script);
                Ok(bash)
            };
            super::page(&parsed, dir.path(), shell).await
        }
        let good = "```sh\na=1\necho one\n```\n```sh\necho $a\n```\n\
                    <!-- prints -->\n```\n1\n```\n";
        run(good).await.unwrap();
        for (text, place) in [
            (good.replace("echo $a", "false; echo 1"), "a.md:5"),
            (good.replace("echo $a", "echo $b"), "a.md:5"),
            (good.replace("a=1", "a=2"), "a.md:9"),
        ] {
            let error = format!("{:#}", run(&text).await.unwrap_err());
            assert!(error.contains(place), "{text}\n{error}");
        }
    }
}
