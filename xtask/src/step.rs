//! One step of a longer run: shown while it runs, timed, and remembered.

use std::{
    fmt,
    io::{self, BufRead, BufReader, Write},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

/// What a step came to.
pub struct Step {
    pub name: &'static str,
    pub ok: bool,
    pub took: Duration,
    /// What the test runners said last, one line for each binary.
    pub closing: Closing,
}

/// The sum of the "test result:" lines of cargo's test binaries.
#[derive(Default, Clone, Copy)]
pub struct Closing {
    pub binaries: usize,
    pub passed: u64,
    pub failed: u64,
    pub ignored: u64,
}

impl Closing {
    fn add(&mut self, line: &str) {
        let Some(rest) = line.trim().strip_prefix("test result:") else {
            return;
        };
        self.binaries += 1;
        for part in rest.split([';', '.']) {
            let mut words = part.split_whitespace();
            let (Some(count), Some(kind)) = (words.next(), words.next()) else {
                continue;
            };
            let Ok(count) = count.parse::<u64>() else {
                continue;
            };
            match kind {
                "passed" => self.passed += count,
                "failed" => self.failed += count,
                "ignored" => self.ignored += count,
                _ => {}
            }
        }
    }
}

impl fmt::Display for Closing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} tests passed, {} failed, {} ignored, in {} test binaries",
            self.passed, self.failed, self.ignored, self.binaries
        )
    }
}

/// Runs a command as a step; its output passes through.
pub fn command(name: &'static str, command: &mut Command) -> Step {
    announce(name);
    let started = Instant::now();
    let mut closing = Closing::default();
    let ok = pass_through(command, &mut closing).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        false
    });
    finish(name, ok, started, closing)
}

/// Runs a function as a step.
pub fn function(name: &'static str, work: impl FnOnce() -> Result<bool>) -> Step {
    announce(name);
    let started = Instant::now();
    let ok = work().unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        false
    });
    finish(name, ok, started, Closing::default())
}

fn announce(name: &str) {
    println!("\n=== {name}");
}

fn finish(name: &'static str, ok: bool, started: Instant, closing: Closing) -> Step {
    let took = started.elapsed();
    let word = if ok { "ok" } else { "FAILED" };
    println!("=== {name}: {word} in {:.1} s", took.as_secs_f64());
    Step {
        name,
        ok,
        took,
        closing,
    }
}

fn pass_through(command: &mut Command, closing: &mut Closing) -> Result<bool> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {:?}", command.get_program()))?;
    if let Some(stdout) = child.stdout.take() {
        let mut reader = BufReader::new(stdout);
        let mut line = Vec::new();
        // Bytes, not text: a test may print anything.
        while reader.read_until(b'\n', &mut line)? > 0 {
            io::stdout().write_all(&line)?;
            closing.add(&String::from_utf8_lossy(&line));
            line.clear();
        }
    }
    Ok(child.wait()?.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closing_lines_of_two_binaries_add_up() {
        let mut closing = Closing::default();
        for line in [
            "running 3 tests",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s",
            "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.20s",
        ] {
            closing.add(line);
        }
        assert_eq!(
            closing.to_string(),
            "4 tests passed, 2 failed, 1 ignored, in 2 test binaries"
        );
    }
}
