//! One line for each case, as it ends, for people or for programs.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;

/// What a case found.
pub struct Outcome {
    /// `direct`, `relay`, or nothing when no tunnel was made.
    pub path: Option<String>,
    /// What was compared.
    pub detail: String,
}

/// A case that has ended.
pub struct Line {
    name: &'static str,
    ok: bool,
    took: Duration,
    path: Option<String>,
    detail: String,
}

impl Line {
    /// Of what the case returned.
    pub fn new(name: &'static str, took: Duration, outcome: Result<Outcome>) -> Self {
        let (ok, path, detail) = match outcome {
            Ok(outcome) => (true, outcome.path, outcome.detail),
            Err(error) => (false, None, format!("{error:#}")),
        };
        Self {
            name,
            ok,
            took,
            path,
            detail,
        }
    }
}

/// Prints lines and counts.
pub struct Report {
    json: bool,
    all: usize,
    good: usize,
}

fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e5).round() / 100.0
}

impl Report {
    /// Nothing yet.
    pub fn new(json: bool) -> Self {
        Self {
            json,
            all: 0,
            good: 0,
        }
    }

    /// Prints a line.
    pub fn add(&mut self, line: &Line) {
        self.all += 1;
        self.good += usize::from(line.ok);
        if self.json {
            let object = json!({
                "name": line.name,
                "ok": line.ok,
                "ms": ms(line.took),
                "path": line.path,
                "detail": line.detail,
            });
            println!("{object}");
            return;
        }
        let word = if line.ok { "ok    " } else { "DIFFERS" };
        let path = line.path.as_deref().unwrap_or("-");
        let ms = format!("{:.1} ms", ms(line.took));
        println!(
            "{word} {:<36} {ms:>11}  {path:<6}  {}",
            line.name, line.detail
        );
    }

    /// Prints the closing line; true if every case was as expected.
    pub fn close(&self, version: &str, took: Duration) -> bool {
        let ok = self.good == self.all;
        let detail = format!("{} of {} as expected, Envoy {version}", self.good, self.all);
        if self.json {
            println!(
                "{}",
                json!({"name": "all", "ok": ok, "ms": ms(took), "detail": detail})
            );
        } else {
            println!("{detail}, {:.1} s with start-up", took.as_secs_f64());
        }
        ok
    }
}
