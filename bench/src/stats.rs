//! Figures of one round, and what several rounds come to.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

/// Numbers by name.
pub type Figures = BTreeMap<String, f64>;

/// What one load came to on one path, in one round or as the median of many.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Sample {
    /// Rates and times; the name says the unit.
    pub figures: Figures,
    /// CPU time of each role; the load says of what.
    pub cpu: Figures,
}

impl Sample {
    /// With these figures.
    pub fn of<const N: usize>(figures: [(&str, f64); N]) -> Self {
        let named = figures.map(|(name, value)| (name.to_owned(), value));
        Self {
            figures: named.into(),
            cpu: Figures::new(),
        }
    }

    /// The median of each figure over the rounds that have it.
    pub fn median(rounds: &[Self]) -> Self {
        Self {
            figures: medians(rounds.iter().map(|r| &r.figures)),
            cpu: medians(rounds.iter().map(|r| &r.cpu)),
        }
    }

    /// A figure.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.figures.get(name).copied()
    }

    /// The CPU time of all roles but the load generator and the service.
    pub fn cpu_on_the_way(&self) -> f64 {
        self.cpu
            .iter()
            .filter(|(r, _)| *r != "service")
            .map(|(_, v)| v)
            .sum()
    }
}

fn medians<'a>(rounds: impl Iterator<Item = &'a Figures>) -> Figures {
    let mut all: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for (name, value) in rounds.flatten() {
        all.entry(name).or_default().push(*value);
    }
    let medians = all
        .into_iter()
        .filter_map(|(name, values)| Some((name.to_owned(), median(values)?)));
    medians.collect()
}

/// The middle value, or the mean of the two middle ones; none of none.
pub fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.len() {
        0 => None,
        n if n % 2 == 1 => values.get(half).copied(),
        _ => Some((values[half - 1] + values[half]) / 2.0),
    }
}

/// How long each of many things took.
#[derive(Debug, Default)]
pub struct Times(Vec<f64>);

impl Times {
    /// One more, in milliseconds.
    pub fn push(&mut self, took: Duration) {
        self.0.push(took.as_secs_f64() * 1000.0);
    }

    /// One more, begun then and done now.
    pub fn since(&mut self, begun: Instant) {
        self.push(begun.elapsed());
    }

    /// All of another.
    pub fn join(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The value that this part of all does not exceed, in milliseconds.
    pub fn quantile(&mut self, part: f64) -> f64 {
        self.0.sort_by(f64::total_cmp);
        // Nearest rank: the p99 of 100 values is the 99th.
        let rank = (self.0.len() as f64 * part).ceil() as usize;
        self.0
            .get(rank.saturating_sub(1))
            .copied()
            .unwrap_or(f64::NAN)
    }

    /// Rate and quantiles of what was done in `span`.
    pub fn sample(mut self, span: Duration) -> Sample {
        Sample::of([
            ("per_second", self.count() as f64 / span.as_secs_f64()),
            ("p50_ms", self.quantile(0.5)),
            ("p99_ms", self.quantile(0.99)),
            ("count", self.count() as f64),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_rounds_is_taken_figure_by_figure() {
        let round = |a, b| Sample::of([("a", a), ("b", b)]);
        let mut rounds = vec![round(1.0, 9.0), round(5.0, 7.0), round(2.0, 8.0)];
        rounds.push(Sample::of([("a", 4.0)]));
        let median = Sample::median(&rounds);
        assert_eq!(median.get("a"), Some(3.0));
        assert_eq!(median.get("b"), Some(8.0));
        assert_eq!(median.get("c"), None);
    }

    #[test]
    fn the_p99_of_a_hundred_is_the_ninety_ninth() {
        let mut times = Times::default();
        for ms in (1..=100).rev() {
            times.push(Duration::from_millis(ms));
        }
        assert_eq!(times.quantile(0.99).round(), 99.0);
        assert_eq!(times.quantile(0.5).round(), 50.0);
    }
}
