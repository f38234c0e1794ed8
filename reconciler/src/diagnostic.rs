//! What is wrong, and where a person finds it.

use std::{fmt, path::PathBuf};

use adit_api::{Problem, Severity};

use crate::ObjectKey;

/// A file and a line in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The file, relative to the directory that is read.
    pub file: PathBuf,
    /// The line, from 1; 0 when the whole file is meant.
    pub line: u64,
}

/// A problem with its place and object, as far as they are known.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Diagnostic {
    /// Where it was written.
    pub place: Option<Place>,
    /// The object concerned.
    pub object: Option<ObjectKey>,
    /// What is wrong.
    pub problem: Problem,
}

impl Diagnostic {
    /// Whether something does not take effect as written.
    pub fn is_error(&self) -> bool {
        self.problem.severity == Severity::Error
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}", self.file.display()),
            line => write!(f, "{}:{line}", self.file.display()),
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        write!(f, "{}: ", self.problem.severity)?;
        if let Some(object) = &self.object {
            write!(f, "{object}: ")?;
        }
        if !self.problem.path.is_empty() {
            write!(f, "{}: ", self.problem.path)?;
        }
        write!(f, "{} ({})", self.problem.message, self.problem.reason)
    }
}
