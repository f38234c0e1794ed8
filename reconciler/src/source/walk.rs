//! The files of a directory, with limits.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use adit_api::{Problem, Reason};

use crate::{Diagnostic, Place};

/// The largest manifest that is read, in bytes. A Kubernetes object has at
/// most 1.5 MiB (etcd's limit for a request).
const MAX_FILE: u64 = 4 << 20;
/// The most files that are read.
const MAX_FILES: usize = 10_000;
/// The deepest folder.
const MAX_DEPTH: usize = 16;

/// A file that was found: its path below the root, and its text or why not.
pub(super) struct Found {
    pub path: PathBuf,
    pub text: Result<String, Problem>,
}

/// What was found below a root.
#[derive(Default)]
pub(super) struct Walk {
    pub files: Vec<Found>,
    /// Folders that could not be read: what was known of them is kept.
    pub blind: Vec<PathBuf>,
    pub diagnostics: Vec<Diagnostic>,
}

/// Reads all manifests below `root` in the order of their paths. Names that
/// begin with a dot are left out: editors and Kubernetes' mounted volumes use
/// them for what is not meant to be read.
pub(super) fn walk(root: &Path) -> Walk {
    let mut walk = Walk::default();
    folder(root, Path::new(""), &mut Vec::new(), &mut walk);
    walk.files.sort_by(|a, b| a.path.cmp(&b.path));
    walk
}

fn folder(root: &Path, below: &Path, above: &mut Vec<(u64, u64)>, walk: &mut Walk) {
    let path = root.join(below);
    let seen = fs::metadata(&path).map(|m| (m.dev(), m.ino()));
    let listed = seen.and_then(|id| {
        if above.contains(&id) {
            return Err(io::Error::other(
                "a symbolic link leads back to a folder above it",
            ));
        }
        if above.len() >= MAX_DEPTH {
            return Err(io::Error::other(format!(
                "folders are read {MAX_DEPTH} deep"
            )));
        }
        let mut entries = fs::read_dir(&path)?.collect::<Result<Vec<_>, _>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        Ok((id, entries))
    });
    let (id, entries) = match listed {
        Ok(listed) => listed,
        Err(e) => {
            walk.blind.push(below.to_owned());
            let shown = if below.as_os_str().is_empty() {
                &path
            } else {
                below
            };
            return walk.report(shown, format!("cannot read this folder: {e}"));
        }
    };
    above.push(id);
    for entry in entries {
        let name = entry.file_name();
        if name.as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let below = below.join(&name);
        let manifest = matches!(
            below.extension().and_then(|e| e.to_str()),
            Some("yaml" | "yml" | "json")
        );
        match fs::metadata(entry.path()) {
            Ok(metadata) if metadata.is_dir() => folder(root, &below, above, walk),
            Ok(_) | Err(_) if !manifest => {}
            Ok(metadata) => {
                if walk.files.len() == MAX_FILES {
                    walk.blind.push(below.clone());
                    walk.report(
                        &below,
                        format!(
                            "more than {MAX_FILES} files; this one and those after it are not read"
                        ),
                    );
                    break;
                }
                let text = file(&entry.path(), &metadata);
                walk.files.push(Found { path: below, text });
            }
            Err(e) => {
                let text = Err(unreadable(format!("cannot read this file: {e}")));
                walk.files.push(Found { path: below, text });
            }
        }
    }
    above.pop();
}

fn file(path: &Path, metadata: &fs::Metadata) -> Result<String, Problem> {
    if !metadata.is_file() {
        return Err(unreadable("not a regular file".into()));
    }
    let too_long = || unreadable(format!("the file is larger than {} MiB", MAX_FILE >> 20));
    if metadata.len() > MAX_FILE {
        return Err(too_long());
    }
    let bytes = fs::File::open(path)
        .and_then(|file| {
            let mut bytes = Vec::new();
            // It may have grown since.
            io::Read::read_to_end(&mut io::Read::take(file, MAX_FILE + 1), &mut bytes)?;
            Ok(bytes)
        })
        .map_err(|e| unreadable(format!("cannot read this file: {e}")))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(too_long());
    }
    String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        unreadable(format!(
            "not UTF-8: the byte at position {at} begins no character"
        ))
    })
}

fn unreadable(message: String) -> Problem {
    Problem::error("", Reason::Unreadable, message)
}

impl Walk {
    fn report(&mut self, path: &Path, message: String) {
        self.diagnostics.push(Diagnostic {
            place: Some(Place {
                file: path.to_owned(),
                line: 0,
            }),
            object: None,
            problem: unreadable(message),
        });
    }
}
