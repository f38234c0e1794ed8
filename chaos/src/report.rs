//! What a person reads: a line when a scenario has ended, a closing line, and a
//! page of the book.

use std::{fmt::Write as _, io::Write as _, time::Duration};

use serde_json::{Value, json};

use crate::{
    scenario::{Scenario, Verdict},
    scenarios,
};

/// A scenario that was run.
pub struct Row {
    /// Which.
    pub scenario: &'static Scenario,
    /// How it ended.
    pub verdict: Verdict,
    /// How long it took, its preparations included.
    pub took: Duration,
}

impl Row {
    fn word(&self) -> &'static str {
        match self.verdict {
            Verdict::Held(_) => "pass",
            Verdict::Broken(_) => "FAIL",
            Verdict::LeftOut(_) => "left out",
        }
    }

    fn seen(&self) -> String {
        match &self.verdict {
            Verdict::Held(text) | Verdict::LeftOut(text) => text.clone(),
            Verdict::Broken(error) => format!("{error:#}"),
        }
    }

    fn json(&self) -> Value {
        json!({
            "name": self.scenario.name, "fault": self.scenario.fault,
            "promise": self.scenario.promise, "verdict": self.word(),
            "seen": self.seen(), "seconds": self.took.as_secs_f64(),
        })
    }
}

/// One line of `--list`.
pub fn listed(one: &Scenario, as_json: bool) {
    if as_json {
        let line = json!({"name": one.name, "fault": one.fault, "promise": one.promise, "quick": one.quick});
        println!("{line}");
    } else {
        let quick = if one.quick { "quick" } else { "" };
        println!("{:<28} {quick:<6} {}: {}", one.name, one.fault, one.promise);
    }
}

/// Says what is under way.
pub fn begins(one: &Scenario) {
    // In one write: `eprintln!` makes one of each piece, and rows of other
    // scenarios come between them.
    let line = format!("         {:<28} {} …\n", one.name, one.fault);
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// One line when it has ended.
pub fn row(row: &Row, as_json: bool) {
    if as_json {
        println!("{}", row.json());
    } else {
        let seconds = row.took.as_secs_f64();
        println!(
            "{:<8} {:<28} {seconds:>6.1} s  {}",
            row.word(),
            row.scenario.name,
            row.seen()
        );
    }
    // A pipe holds it back otherwise.
    let _ = std::io::stdout().flush();
}

/// The last line.
pub fn closing(rows: &[Row]) {
    let count = |word: &str| rows.iter().filter(|row| row.word() == word).count();
    let (pass, fail, left) = (count("pass"), count("FAIL"), count("left out"));
    println!("\nchaos: {pass} passed, {fail} failed, {left} left out");
    for row in rows.iter().filter(|row| row.word() != "pass") {
        let said = match &row.verdict {
            Verdict::LeftOut(why) => why,
            _ => row.scenario.promise,
        };
        println!("{}: {}: {said}", row.word(), row.scenario.name);
    }
}

/// `docs/reliability.md`.
pub fn page(rows: &[Row], envoy: &str) -> String {
    let mut page = format!(
        "# What breaks, and what holds then\n\n\
         `cargo xtask chaos` does each of these on the real parts (Envoy {envoy} with our module, dialer, connector,\n\
         iroh; all on one machine) and writes this page; nothing here is written by hand. The figures are of one run on\n\
         two cores that everything shared: the promise is what is checked, the figures are only what was seen.\n"
    );
    for (title, part) in scenarios::PARTS {
        let _ = write!(
            page,
            "\n## {title}\n\n| scenario | what is done | what must hold | | seen |\n|---|---|---|---|---|\n"
        );
        for row in rows
            .iter()
            .filter(|row| part.iter().any(|one| one.name == row.scenario.name))
        {
            let Scenario {
                name,
                fault,
                promise,
                ..
            } = row.scenario;
            let _ = writeln!(
                page,
                "| {} | {} | {} | {} | {} |",
                cell(name),
                cell(fault),
                cell(promise),
                row.word(),
                cell(&row.seen())
            );
        }
    }
    page
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
        .replace('<', "&lt;")
        .replace('\n', " ")
}
