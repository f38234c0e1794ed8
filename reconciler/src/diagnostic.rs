//! What is wrong, and where a person finds it.

use std::{
    fmt::{self, Write as _},
    path::PathBuf,
};

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
        let mut f = OneLine(f);
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

/// Escapes control characters: a message repeats what stands in the file, and
/// that must not forge another line or colour a terminal.
struct OneLine<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl fmt::Write for OneLine<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            if c.is_control() {
                write!(self.0, "{}", c.escape_default())?;
            } else {
                self.0.write_char(c)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use adit_api::Reason;

    use super::*;

    #[test]
    fn what_stands_in_a_file_forges_no_second_line() {
        let diagnostic = Diagnostic {
            place: Some(Place {
                file: "a\nb.yaml".into(),
                line: 7,
            }),
            object: None,
            problem: Problem::error("spec", Reason::Invalid, "kind \r\n\u{1b}[31m\u{e4}"),
        };
        assert_eq!(
            diagnostic.to_string(),
            "a\\nb.yaml:7: error: spec: kind \\r\\n\\u{1b}[31m\u{e4} (Invalid)"
        );
    }
}
