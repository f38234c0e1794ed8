//! What became of a load's requests.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Result, ensure};

/// A request that has no answer after this long is lost: longer than any
/// deadline in the path.
pub(super) const LOST: Duration = Duration::from_secs(20);
/// What is said of an answer that belongs to another request.
pub(super) const WRONG: &str = "wrong answer";

/// What became of the requests.
#[derive(Debug, Default)]
pub struct Tally {
    /// How many were answered by 200.
    pub ok: usize,
    /// How long those took, sorted.
    pub times: Vec<Duration>,
    /// When those that failed were sent, and how they failed.
    pub failures: Vec<(Duration, String)>,
    /// When the requests were sent that were answered by 200, sorted.
    pub good: Vec<Duration>,
    /// The longest that any request took, to its answer or its failure.
    pub slowest: Duration,
}

impl Tally {
    /// Every request.
    pub fn sent(&self) -> usize {
        self.ok + self.failures.len()
    }

    /// So many in a hundred of the good ones were at most this slow.
    pub fn percentile(&self, part: f64) -> Duration {
        let last = self.times.len().saturating_sub(1);
        let at = (last as f64 * part / 100.0) as usize;
        self.times.get(at).copied().unwrap_or_default()
    }

    /// From the first request that failed to the first good one that was sent
    /// after the last failed one.
    pub fn outage(&self) -> Duration {
        let times = self.failures.iter().map(|(at, _)| *at);
        let (Some(first), Some(last)) = (times.clone().min(), times.max()) else {
            return Duration::ZERO;
        };
        let again = self.good.iter().find(|at| **at > last);
        again.copied().unwrap_or(last).saturating_sub(first)
    }

    /// How long after `cure`, on [`elapsed`](super::Load::elapsed)'s clock, the last request was
    /// sent that failed.
    pub fn settled(&self, cure: Duration) -> Duration {
        let last = self.failures.iter().map(|(at, _)| *at).max();
        last.map_or(Duration::ZERO, |at| at.saturating_sub(cure))
    }

    /// The failures, alike ones together: `12 × 503, 1 × connection closed`.
    pub fn failed(&self) -> String {
        let mut kinds = BTreeMap::new();
        for (_, what) in &self.failures {
            *kinds.entry(what.as_str()).or_insert(0) += 1;
        }
        let kinds: Vec<_> = kinds
            .iter()
            .map(|(what, n)| format!("{n} × {what}"))
            .collect();
        kinds.join(", ")
    }

    /// No request failed.
    pub fn none_failed(&self) -> Result<()> {
        ensure!(
            self.failures.is_empty(),
            "of {} requests failed: {}",
            self.sent(),
            self.failed()
        );
        Ok(())
    }

    /// No request hung and none got another's answer: each has its own, or an
    /// error, or a closed connection.
    pub fn none_lost(&self) -> Result<()> {
        let wrong = self.failures.iter().find(|(_, what)| what == WRONG);
        ensure!(wrong.is_none(), "a wrong answer: {}", self.failed());
        let lost = self
            .failures
            .iter()
            .filter(|(_, what)| what.starts_with("lost"))
            .count();
        ensure!(
            lost == 0,
            "{lost} of {} requests had no answer after {LOST:?}",
            self.sent()
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(list: &[u64]) -> Vec<Duration> {
        list.iter().copied().map(Duration::from_secs).collect()
    }

    #[test]
    fn an_outage_ends_with_the_first_good_request_after_the_last_bad_one() {
        let failures = seconds(&[2, 4]);
        let mut tally = Tally {
            good: seconds(&[1, 3, 7, 8]),
            failures: failures.into_iter().map(|at| (at, "503".into())).collect(),
            ..Tally::default()
        };
        assert_eq!(tally.outage(), Duration::from_secs(5));
        assert_eq!(
            tally.settled(Duration::from_secs(3)),
            Duration::from_secs(1)
        );
        assert_eq!(tally.settled(Duration::from_secs(5)), Duration::ZERO);
        assert_eq!(tally.failed(), "2 × 503");
        assert!(tally.none_failed().is_err());
        assert!(tally.none_lost().is_ok());
        tally.failures.push((Duration::ZERO, WRONG.into()));
        assert!(tally.none_lost().is_err());
    }
}
