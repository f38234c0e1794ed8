//! `cargo xtask audit`: what is compiled in, from whom, and where it may do what
//! the compiler does not check.
//!
//! cargo-deny looks at licences, at crates that are there twice and at where they
//! come from (`deny.toml` says why); at known faults, where there is a copy of
//! RustSec's database. The rest is ours: `unsafe` stands in one folder, and each
//! Go program is pinned to a version and a hash.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use crate::{kube::cache, places, root};

/// What `cargo xtask audit` takes.
#[derive(clap::Args)]
pub struct Options {
    /// Compiles cargo-deny into the cache when it is missing (minutes)
    #[arg(long)]
    build: bool,
}

/// The cargo-deny that `deny.toml` is written for.
const CARGO_DENY: &str = "0.20.2";
/// The name that cargo-deny gives to its clone of RustSec's database.
const DATABASE: &str = "advisory-db-3157b0e258782691";
/// The one folder with `unsafe`.
const UNSAFE_IN: &str = "filter/src/abi";

/// Runs every check; true if nothing was found.
pub fn run(options: &Options) -> Result<bool> {
    let root = root();
    let mut found = unsafe_elsewhere(&root)?;
    found.extend(unpinned(&root)?);
    for line in &found {
        eprintln!("error: {line}");
    }
    println!(
        "unsafe only under {UNSAFE_IN}, Go programs pinned: {} faults",
        found.len()
    );
    let Some(deny) = cargo_deny(options.build)? else {
        println!(
            "left out (cargo xtask audit --build, minutes): cargo-deny {CARGO_DENY} is missing"
        );
        return Ok(found.is_empty());
    };
    let check = |arguments: &[&str]| -> Result<bool> {
        let status = Command::new(&deny)
            .current_dir(&root)
            .args(arguments)
            .status()
            .with_context(|| format!("run {}", deny.display()))?;
        Ok(status.success())
    };
    let mut ok = check(&["--locked", "check", "bans", "licenses", "sources"])?;
    match database() {
        Some(database) => {
            let temp = env::temp_dir().join(format!("adit-audit-{}", std::process::id()));
            let config = with_database(&root, &database, &temp);
            let checked = config.and_then(|config| {
                let config = config.to_string_lossy();
                check(&["--offline", "--config", &config, "check", "advisories"])
            });
            let _ = fs::remove_dir_all(&temp);
            ok &= checked?;
        }
        None => println!(
            "left out: known faults, because there is no copy of RustSec's database; where \
             GitHub can be reached, `git clone https://github.com/rustsec/advisory-db \
             ~/.cargo/advisory-db` makes one"
        ),
    }
    Ok(ok && found.is_empty())
}

/// cargo-deny, from `PATH` or the cache; compiles it if that is asked for.
fn cargo_deny(build: bool) -> Result<Option<PathBuf>> {
    tool("cargo-deny", CARGO_DENY, build)
}

/// A program that `cargo install` makes, from `PATH` or the cache.
pub fn tool(name: &str, version: &str, build: bool) -> Result<Option<PathBuf>> {
    let home = places::base().map_err(anyhow::Error::msg)?.join("tools");
    let find = || {
        let cached = home.join("bin").join(name);
        places::on_path(name)
            .next()
            .or_else(|| cached.is_file().then_some(cached))
    };
    if build && find().is_none() {
        eprintln!("{name} {version}: compiling (minutes) …");
        let status = crate::cargo()
            .args(["install", name, "--locked", "--version", version, "--root"])
            .arg(&home)
            .stdin(Stdio::null())
            .status()
            .context("run cargo install")?;
        ensure!(status.success(), "cargo install {name}: {status}");
    }
    Ok(find())
}

/// A clone of RustSec's database, cargo-audit's or cargo-deny's.
fn database() -> Option<PathBuf> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")))?;
    let clones = [
        home.join("advisory-db"),
        home.join("advisory-dbs").join(DATABASE),
    ];
    clones
        .into_iter()
        .find(|clone| clone.join("crates").is_dir())
}

/// A copy of `deny.toml` in `temp` that looks for the database there: without
/// network cargo-deny takes only a clone of the name it would give one.
fn with_database(root: &Path, database: &Path, temp: &Path) -> Result<PathBuf> {
    fs::create_dir_all(temp).with_context(|| format!("create {}", temp.display()))?;
    std::os::unix::fs::symlink(database, temp.join(DATABASE)).context("link the database")?;
    let text = fs::read_to_string(root.join("deny.toml")).context("read deny.toml")?;
    let place = format!("[advisories]\ndb-path = {:?}\n", temp.display().to_string());
    let config = temp.join("deny.toml");
    fs::write(&config, text.replacen("[advisories]\n", &place, 1))?;
    Ok(config)
}

/// Each use of `unsafe` that does not stand where it may.
fn unsafe_elsewhere(root: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut allowed = 0;
    for file in sources(root)? {
        let below = file.strip_prefix(root).unwrap_or(&file);
        let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        for (line, what) in unsafe_words(&text) {
            if below.starts_with(UNSAFE_IN) {
                allowed += 1;
            } else {
                found.push(format!("{}:{line}: {what}", below.display()));
            }
        }
    }
    // A scan that no longer sees what is there must not pass.
    ensure!(
        allowed > 50,
        "{UNSAFE_IN} seems to hold no unsafe code: is this scan right?"
    );
    Ok(found)
}

/// Every Rust file of the checkout, without what is built.
fn sources(root: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries =
            fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))?;
        for entry in entries {
            let entry = entry?;
            let (path, name) = (entry.path(), entry.file_name());
            let hidden = name.as_encoded_bytes().starts_with(b".");
            if entry.file_type()?.is_dir() {
                if !hidden && name != "target" {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|e| e == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// The lines of a Rust text with the keyword `unsafe`, or with an attribute that
/// lifts the ban on it. Comments and texts do not count.
fn unsafe_words(text: &str) -> Vec<(usize, &str)> {
    let code = code_only(text);
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let lines = code.lines().zip(text.lines()).enumerate();
    lines
        .filter(|(_, (code, _))| {
            let mut words = code.split(|c| !is_word(c));
            let keyword = words.any(|word| word == "unsafe");
            let lifted = [
                "allow(unsafe_code",
                "expect(unsafe_code",
                "warn(unsafe_code",
            ];
            keyword || lifted.iter().any(|text| code.contains(text))
        })
        .map(|(i, (_, line))| (i + 1, line.trim()))
        .collect()
}

/// The text with spaces in the place of comments and of what stands in quotes;
/// line breaks stay.
fn code_only(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skip = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            'r' if !out.ends_with(|c: char| c.is_alphanumeric() || c == '_') => raw_text(rest),
            '"' => quoted(rest),
            // A character, and not a lifetime.
            '\'' if rest[1..].starts_with('\\') => 2 + rest[3..].find('\'').map_or(1, |n| n + 2),
            '\'' if rest[1..].chars().nth(1) == Some('\'') => {
                2 + rest[1..].chars().next().map_or(0, char::len_utf8)
            }
            _ => 0,
        };
        if skip == 0 {
            out.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            let (gone, after) = rest.split_at(skip.min(rest.len()));
            out.extend(gone.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            rest = after;
        }
    }
    out
}

/// The length of the raw text that begins here, or 0.
fn raw_text(rest: &str) -> usize {
    let hashes = rest[1..].bytes().take_while(|b| *b == b'#').count();
    if !rest[1 + hashes..].starts_with('"') {
        return 0;
    }
    let begin = hashes + 2;
    let end = format!("\"{}", "#".repeat(hashes));
    let inside = rest[begin..].find(&end);
    inside.map_or(rest.len(), |n| begin + n + end.len())
}

/// The length of the text in quotes that begins here.
fn quoted(rest: &str) -> usize {
    let mut escaped = false;
    for (i, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return i + 1,
            _ => {}
        }
    }
    rest.len()
}

/// Go programs that could be another program tomorrow.
fn unpinned(root: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let folder = root.join("xtask/go");
    for entry in fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))? {
        let module = entry?.path();
        let name = module.strip_prefix(root).unwrap_or(&module).display();
        let read = |file: &str| {
            let path = module.join(file);
            fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
        };
        let (pins, hashes) = (read("go.mod")?, read("go.sum")?);
        found.extend(
            unpinned_in(&pins, &hashes)
                .iter()
                .map(|line| format!("{name}: {line}")),
        );
    }
    for program in cache::PROGRAMS.iter().chain(&cache::TOOLS) {
        let pins = fs::read_to_string(cache::module(root, program).join("go.mod"))?;
        let package = program.package;
        let pinned = required(&pins).iter().any(|(path, _)| {
            package == *path
                || package
                    .strip_prefix(path)
                    .is_some_and(|rest| rest.starts_with('/'))
        });
        if !pinned {
            found.push(format!("{}: no go.mod requires {package}", program.name));
        }
    }
    Ok(found)
}

/// What one module leaves open: a requirement without a hash, or one that is
/// replaced by a folder of this machine.
fn unpinned_in(pins: &str, hashes: &str) -> Vec<String> {
    let mut found = Vec::new();
    let replaced: BTreeMap<_, _> = replacements(pins).collect();
    for (path, version) in required(pins) {
        let (path, version) = replaced.get(path).copied().unwrap_or((path, version));
        if version.is_empty() {
            found.push(format!("{path} is a folder of this machine"));
            continue;
        }
        let entry = format!("{path} {version}/go.mod h1:");
        if !hashes.lines().any(|line| line.starts_with(&entry)) {
            found.push(format!("{path} {version} has no hash in go.sum"));
        }
    }
    found
}

/// The modules that a `go.mod` puts in the place of others; a folder has no
/// version.
fn replacements(pins: &str) -> impl Iterator<Item = (&str, (&str, &str))> {
    pins.lines().filter_map(|line| {
        let (old, new) = line
            .trim()
            .trim_start_matches("replace ")
            .split_once(" => ")?;
        let old = old.split(' ').next()?;
        Some((old, new.split_once(' ').unwrap_or((new, ""))))
    })
}

/// The modules that a `go.mod` requires, with their versions.
fn required(pins: &str) -> Vec<(&str, &str)> {
    let mut inside = false;
    let mut all = Vec::new();
    for line in pins.lines() {
        let line = line.split("//").next().unwrap_or_default().trim();
        let one = line.strip_prefix("require ");
        if one == Some("(") {
            inside = true;
        } else if line == ")" {
            inside = false;
        } else if let Some((path, version)) = one
            .or(inside.then_some(line))
            .and_then(|l| l.split_once(' '))
        {
            all.push((path, version.trim()));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsafe_code_stands_in_one_folder_only() {
        assert_eq!(unsafe_elsewhere(&root()).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn every_go_program_is_pinned() {
        assert_eq!(unpinned(&root()).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn only_code_is_searched() {
        let keyword = ["un", "safe"].concat();
        let text = format!(
            "// {keyword}\n/* {keyword}\n */ let a = \"{keyword} \\\" {keyword}\";\n\
             let b = r#\"{keyword} \"{keyword}\"#; let c = '\"'; {keyword} {{ }}\n\
             #![deny({keyword}_code)]\n#[allow({keyword}_code)]\nlet d: &'a str = '\\''; {keyword} fn\n"
        );
        let lines: Vec<_> = unsafe_words(&text).into_iter().map(|(n, _)| n).collect();
        assert_eq!(lines, [4, 6, 7]);
    }

    #[test]
    fn a_requirement_without_a_hash_is_found() {
        let pins = "module m\n\nrequire a.example/b v1.2.3\nrequire (\n\tc.example/d v0.1.0 // indirect\n\te.example/f v0.0.0\n)\nreplace a.example/b => ../b\nreplace e.example/f => e.example/f v2.0.0\n";
        let hashes = "a.example/b v1.2.3/go.mod h1:y=\ne.example/f v2.0.0/go.mod h1:z=\n";
        assert_eq!(
            unpinned_in(pins, hashes),
            [
                "../b is a folder of this machine",
                "c.example/d v0.1.0 has no hash in go.sum"
            ]
        );
    }
}
