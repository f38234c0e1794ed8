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

/// The sum of the "test result:" lines of cargo's test binaries, and what the
/// chaos table says last.
#[derive(Default, Clone)]
pub struct Closing {
    pub binaries: usize,
    pub passed: u64,
    pub failed: u64,
    pub ignored: u64,
    /// Its sums, and the scenarios that failed or were left out.
    pub chaos: Vec<String>,
    /// What the failed tests printed, as the runner shows it under "failures:".
    failures: Vec<String>,
    in_failures: bool,
}

/// Lines of failed tests that a summary repeats. With backtraces about ten tests;
/// all of it is further up.
const FAILURES_MAX: usize = 600;

impl Closing {
    /// Whether a scenario could not be tried here.
    pub fn leaves_out(&self) -> bool {
        self.chaos.iter().any(|line| line.starts_with("left out: "))
    }

    fn add(&mut self, line: &str) {
        // The table's own lines come before its sums.
        let sums = line.starts_with("chaos: ");
        let named = line.starts_with("FAIL: ") || line.starts_with("left out: ");
        if sums || (named && !self.chaos.is_empty()) {
            self.chaos.push(line.trim().to_owned());
        }
        match line.trim_end() {
            "failures:" => self.in_failures = true,
            line if line == "successes:" || line.starts_with("test result:") => {
                self.in_failures = false;
            }
            line if self.in_failures && self.failures.len() < FAILURES_MAX => {
                self.failures.push(line.to_owned());
            }
            _ => {}
        }
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

/// A row for each step, with what its test runners said last; whether all are
/// green. What failed tests printed comes before, once more: where it was printed
/// first is thousands of lines up.
pub fn summary(steps: &[Step]) -> bool {
    for step in steps.iter().filter(|s| !s.closing.failures.is_empty()) {
        println!("\n=== {}: what failed, once more", step.name);
        for line in &step.closing.failures {
            println!("{line}");
        }
        if step.closing.failures.len() == FAILURES_MAX {
            println!("... the rest is further up");
        }
    }
    println!("\n=== summary");
    for step in steps {
        let word = if step.ok { "ok    " } else { "FAILED" };
        println!("{word} {:>7.1} s  {}", step.took.as_secs_f64(), step.name);
        if step.closing.binaries > 0 {
            println!("                  {}", step.closing);
        }
        for line in &step.closing.chaos {
            println!("                  {line}");
        }
    }
    steps.iter().all(|step| step.ok)
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

    fn closing(lines: &[&str]) -> Closing {
        let mut closing = Closing::default();
        lines.iter().for_each(|line| closing.add(line));
        closing
    }

    #[test]
    fn what_the_chaos_table_says_last_is_kept() {
        let closing = closing(&[
            "left out clock                   0.1 s  libfaketime is missing\n",
            "\n",
            "chaos: 3 passed, 0 failed, 1 left out\n",
            "left out: clock: no request fails\n",
        ]);
        assert_eq!(
            closing.chaos,
            [
                "chaos: 3 passed, 0 failed, 1 left out",
                "left out: clock: no request fails"
            ]
        );
    }

    #[test]
    fn what_failed_is_kept_and_what_passed_is_not() {
        let closing = closing(&[
            "test good ... ok\n",
            "test bad ... FAILED\n",
            "successes:\n",
            "---- good stdout ----\n",
            "a panic that was meant\n",
            "failures:\n",
            "---- bad stdout ----\n",
            "left: 1\n",
            "failures:\n",
            "    bad\n",
            "test result: FAILED. 1 passed; 1 failed; 0 ignored\n",
            "running 1 test\n",
        ]);
        assert_eq!(
            closing.failures,
            ["---- bad stdout ----", "left: 1", "    bad"]
        );
    }

    #[test]
    fn the_closing_lines_of_two_binaries_add_up() {
        let closing = closing(&[
            "running 3 tests",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s",
            "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.20s",
        ]);
        assert_eq!(
            closing.to_string(),
            "4 tests passed, 2 failed, 1 ignored, in 2 test binaries"
        );
    }
}
