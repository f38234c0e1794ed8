//! A directory of manifests that remembers the last good version of each object.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use adit_api::{Problem, Reason, ResourceExt as _};

use super::{
    manifest::{self, Document, Object},
    node::Node,
    walk,
};
use crate::{Diagnostic, ObjectKey, Place, Snapshot};

/// A directory and what is in effect of it.
///
/// ```no_run
/// let mut directory = adit_reconciler::source::Directory::new("manifests");
/// let scan = directory.scan();
/// for diagnostic in &scan.diagnostics {
///     eprintln!("{diagnostic}");
/// }
/// ```
#[derive(Debug)]
pub struct Directory {
    root: PathBuf,
    objects: BTreeMap<ObjectKey, Loaded>,
}

/// An object in effect and where it was written.
#[derive(Debug, Clone, PartialEq)]
struct Loaded {
    object: Object,
    document: Node,
    file: PathBuf,
    /// The document's position in its file.
    position: usize,
}

/// What one look at a directory gave.
#[derive(Debug, Default)]
pub struct Scan {
    /// The objects in effect.
    pub snapshot: Snapshot,
    /// What is wrong, by place.
    pub diagnostics: Vec<Diagnostic>,
    places: BTreeMap<ObjectKey, (PathBuf, Node)>,
}

impl Directory {
    /// A directory that was not looked at yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            objects: BTreeMap::new(),
        }
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Looks at the directory. What cannot be read now stays as it was.
    pub fn scan(&mut self) -> Scan {
        let walk = walk::walk(&self.root);
        let mut round = Round {
            diagnostics: walk.diagnostics,
            ..Round::default()
        };
        round.kept_folders = walk.blind;
        for found in walk.files {
            let documents = found
                .text
                .map_err(|p| (0, p))
                .and_then(|text| manifest::read(&text));
            match documents {
                Ok(documents) => {
                    for (position, document) in documents.into_iter().enumerate() {
                        round.take(&found.path, position, document);
                    }
                }
                Err((line, problem)) => {
                    round.report(&found.path, line, None, problem);
                    round.kept_files.insert(found.path);
                }
            }
        }
        round.keep_last_good(&self.objects);
        self.objects = round.objects;
        self.result(round.diagnostics)
    }

    fn result(&self, mut diagnostics: Vec<Diagnostic>) -> Scan {
        let mut scan = Scan::default();
        let mut proxies = Vec::new();
        for (key, loaded) in &self.objects {
            scan.places
                .insert(key.clone(), (loaded.file.clone(), loaded.document.clone()));
            match loaded.object.clone() {
                Object::HttpProxy(o) => {
                    // The older wins; without a time, what stands first.
                    let time = o.creation_timestamp().map(|t| t.0);
                    proxies.push(((time.is_none(), time, &loaded.file, loaded.position), o));
                }
                Object::Connector(o) => scan.snapshot.connectors.push(o),
                Object::Advertisement(o) => scan.snapshot.advertisements.push(o),
                Object::Class(o) => scan.snapshot.classes.push(o),
            }
        }
        proxies.sort_by_key(|(a, _)| *a);
        scan.snapshot.proxies = proxies.into_iter().map(|(_, o)| o).collect();
        diagnostics.sort();
        scan.diagnostics = diagnostics;
        scan
    }
}

impl Scan {
    /// A problem that was found later, with the place of its field.
    pub fn locate(&self, object: ObjectKey, problem: Problem) -> Diagnostic {
        let place = self.places.get(&object).map(|(file, document)| Place {
            file: file.clone(),
            line: document.line_of(&problem.path),
        });
        Diagnostic {
            place,
            object: Some(object),
            problem,
        }
    }
}

/// One look, half done.
#[derive(Default)]
struct Round {
    objects: BTreeMap<ObjectKey, Loaded>,
    diagnostics: Vec<Diagnostic>,
    /// Objects whose new version is bad.
    kept_keys: BTreeSet<ObjectKey>,
    /// Files of which a part or all cannot be read.
    kept_files: BTreeSet<PathBuf>,
    /// Folders that cannot be read.
    kept_folders: Vec<PathBuf>,
}

impl Round {
    fn take(&mut self, file: &Path, position: usize, document: Document) {
        match document {
            Document::Ignored(problems) => {
                for (line, problem) in problems {
                    self.report(file, line, None, problem);
                }
            }
            Document::Nameless(problems) => {
                self.kept_files.insert(file.to_owned());
                for (line, problem) in problems {
                    self.report(file, line, None, problem);
                }
            }
            Document::Bad(key, problems) => {
                for (line, problem) in problems {
                    self.report(file, line, Some(key.clone()), problem);
                }
                self.kept_keys.insert(key);
            }
            Document::Good(key, good) => {
                let (object, document) = *good;
                if let Some(first) = self.objects.get(&key) {
                    let place = Place {
                        file: first.file.clone(),
                        line: first.document.line,
                    };
                    let message =
                        format!("this object stands in {place} already; that one is in effect");
                    let problem = Problem::error("", Reason::Duplicate, message);
                    return self.report(file, document.line, Some(key), problem);
                }
                let loaded = Loaded {
                    object,
                    document,
                    file: file.to_owned(),
                    position,
                };
                self.objects.insert(key, loaded);
            }
        }
    }

    /// Takes over what was in effect and cannot be judged now, and says so.
    fn keep_last_good(&mut self, before: &BTreeMap<ObjectKey, Loaded>) {
        for (key, loaded) in before {
            let file = &loaded.file;
            let kept = self.kept_keys.contains(key)
                || self.kept_files.contains(file)
                || self
                    .kept_folders
                    .iter()
                    .any(|folder| file.starts_with(folder));
            if self.objects.contains_key(key) || !kept {
                continue;
            }
            let message = "its last good version stays in effect";
            let problem = Problem::warning("", Reason::Unreadable, message);
            self.report(file, 0, Some(key.clone()), problem);
            self.objects.insert(key.clone(), loaded.clone());
        }
    }

    fn report(&mut self, file: &Path, line: u64, object: Option<ObjectKey>, problem: Problem) {
        let place = Some(Place {
            file: file.to_owned(),
            line,
        });
        self.diagnostics.push(Diagnostic {
            place,
            object,
            problem,
        });
    }
}

#[cfg(test)]
#[path = "dir_tests.rs"]
mod tests;
