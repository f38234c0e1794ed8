//! What a PromQL expression asks for: its selectors and the labels it groups by.
//!
//! No parser of the language: Prometheus itself says whether an expression is
//! right. This only finds names in one that is.

use std::iter::Peekable;

/// A selector as it is written, without its range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    /// As in `up{job="x"}`.
    pub text: String,
    /// The labels of its matchers.
    pub labels: Vec<String>,
}

/// What an expression names.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Its selectors, in order.
    pub selectors: Vec<Selector>,
    /// The labels of `by`, `on` and the like, in order.
    pub labels: Vec<String>,
}

const GROUPING: [&str; 6] = [
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
];
const WORDS: [&str; 6] = ["and", "or", "unless", "bool", "offset", "atan2"];

impl Names {
    /// Reads an expression.
    pub fn of(expression: &str) -> Self {
        let mut names = Self::default();
        let mut chars = expression.chars().peekable();
        while let Some(&c) = chars.peek() {
            match c {
                '"' => drop(string(&mut chars)),
                '[' => drop(until(&mut chars, ']')),
                '{' => {
                    let matchers = matchers(&mut chars);
                    names.selectors.push(selector("", &matchers));
                }
                c if c.is_ascii_digit() => {
                    drop(taken(&mut chars, |c| c.is_ascii_alphanumeric() || c == '.'));
                }
                c if c.is_ascii_alphabetic() || c == '_' => names.word(&mut chars),
                _ => drop(chars.next()),
            }
        }
        names
    }

    fn word(&mut self, chars: &mut Peekable<impl Iterator<Item = char> + Clone>) {
        let word = taken(chars, |c| c.is_ascii_alphanumeric() || "_:".contains(c));
        drop(taken(chars, char::is_whitespace));
        let next = chars.peek().copied();
        if GROUPING.contains(&word.as_str()) {
            if next == Some('(') {
                let list = until(chars, ')');
                let list = list.trim_matches(['(', ')']).split(',').map(str::trim);
                let labels = list.filter(|l| !l.is_empty()).map(str::to_owned);
                self.labels.extend(labels);
            }
        } else if next == Some('{') {
            let matchers = matchers(chars);
            self.selectors.push(selector(&word, &matchers));
        } else if !WORDS.contains(&word.as_str()) && next != Some('(') && !is_aggregation(chars) {
            self.selectors.push(selector(&word, ""));
        }
    }
}

/// Whether `by (…)` or `without (…)` follows the word.
fn is_aggregation(chars: &Peekable<impl Iterator<Item = char> + Clone>) -> bool {
    let mut ahead = chars.clone();
    let next = taken(&mut ahead, |c| c.is_ascii_alphabetic());
    next == "by" || next == "without"
}

fn selector(name: &str, matchers: &str) -> Selector {
    let mut labels = Vec::new();
    let mut chars = matchers.chars().peekable();
    while let Some(&c) = chars.peek() {
        if c == '"' {
            drop(string(&mut chars));
        } else if c.is_ascii_alphabetic() || c == '_' {
            labels.push(taken(&mut chars, |c| c.is_ascii_alphanumeric() || c == '_'));
        } else {
            chars.next();
        }
    }
    labels.retain(|label| label != "__name__");
    Selector {
        text: format!("{name}{matchers}"),
        labels,
    }
}

fn taken(
    chars: &mut Peekable<impl Iterator<Item = char>>,
    mut wanted: impl FnMut(char) -> bool,
) -> String {
    let mut text = String::new();
    while let Some(c) = chars.next_if(|c| wanted(*c)) {
        text.push(c);
    }
    text
}

/// A quoted text with its quotes.
fn string(chars: &mut Peekable<impl Iterator<Item = char>>) -> String {
    let mut text = String::new();
    text.extend(chars.next());
    while let Some(c) = chars.next() {
        text.push(c);
        match c {
            '\\' => text.extend(chars.next()),
            '"' => break,
            _ => {}
        }
    }
    text
}

fn until(chars: &mut Peekable<impl Iterator<Item = char>>, end: char) -> String {
    let mut text = taken(chars, |c| c != end);
    text.extend(chars.next());
    text
}

/// `{…}`, in whose texts a brace means nothing.
fn matchers(chars: &mut Peekable<impl Iterator<Item = char>>) -> String {
    let mut text = String::new();
    while let Some(&c) = chars.peek() {
        if c == '"' {
            text.push_str(&string(chars));
            continue;
        }
        chars.next();
        text.push(c);
        if c == '}' {
            break;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_from_functions_words_and_texts() {
        let names = Names::of(
            r#"histogram_quantile(0.95, sum by (le, kind) (rate(a_bucket{x=~"}|y",z!=""}[5m]))) > 2
               or on (job) {__name__=~"b|c"} unless d offset 5m"#,
        );
        let text: Vec<_> = names.selectors.iter().map(|s| s.text.as_str()).collect();
        assert_eq!(
            text,
            [r#"a_bucket{x=~"}|y",z!=""}"#, r#"{__name__=~"b|c"}"#, "d"]
        );
        assert_eq!(names.selectors[0].labels, ["x", "z"]);
        assert_eq!(names.labels, ["le", "kind", "job"]);
    }
}
