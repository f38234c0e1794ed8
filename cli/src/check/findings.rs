//! What a check has found, in the form that compilers made known: place, severity,
//! what is wrong.

use std::fmt;

use crate::options::Entry;

/// All of it, in the order it was found.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// What was looked at.
    pub subject: String,
    /// What the file of options says.
    pub entries: Vec<Entry>,
    lines: Vec<String>,
    errors: usize,
}

impl Findings {
    /// For a command.
    pub fn of(subject: impl Into<String>) -> Self {
        Self {
            subject: subject.into(),
            ..Self::default()
        }
    }

    /// It would not start, or not do what was asked for. A text that begins with
    /// an option's name gets the line of the file that has it.
    pub fn error(&mut self, what: impl fmt::Display) {
        let what = what.to_string();
        let place = self.place(&what);
        self.error_at(place.as_deref(), what);
    }

    /// An error at `FILE:LINE`.
    pub fn error_at(&mut self, place: Option<&str>, what: impl fmt::Display) {
        self.errors += 1;
        self.line(place, "error", &what);
    }

    /// It would start, and somebody may be surprised.
    pub fn warning(&mut self, what: impl fmt::Display) {
        let what = what.to_string();
        let place = self.place(&what);
        self.line(place.as_deref(), "warning", &what);
    }

    /// A line that has its own place and severity.
    pub fn diagnostic(&mut self, is_error: bool, line: &impl fmt::Display) {
        self.errors += usize::from(is_error);
        self.lines.push(line.to_string());
    }

    /// How many errors.
    pub fn errors(&self) -> usize {
        self.errors
    }

    fn place(&self, what: &str) -> Option<String> {
        let named = what.split([' ', ':']).next()?.trim_start_matches("--");
        let entry = self.entries.iter().find(|entry| entry.key == named)?;
        Some(entry.place.clone())
    }

    fn line(&mut self, place: Option<&str>, severity: &str, what: &dyn fmt::Display) {
        let place = place.map(|p| format!("{p}: ")).unwrap_or_default();
        self.lines.push(format!("{place}{severity}: {what}"));
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.lines {
            writeln!(f, "{line}")?;
        }
        let warnings = self.lines.len() - self.errors;
        writeln!(
            f,
            "{}; {} errors, {warnings} warnings",
            self.subject, self.errors
        )
    }
}
