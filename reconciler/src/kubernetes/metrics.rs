//! What Prometheus gets. Labels are closed lists: kinds, verbs, classes of
//! errors, types of conditions; never an object's name.

use std::{collections::BTreeMap, time::Duration};

use adit_control::Class;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Failure {
    kind: String,
    class: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Write {
    kind: String,
    verb: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Condition {
    kind: String,
    condition: String,
    status: String,
}

/// Counters, histograms and what is read when it is asked for.
#[derive(Debug, Clone)]
pub struct Metrics {
    reconciles: Family<Kind, Counter>,
    seconds: Family<Kind, Histogram>,
    failures: Family<Failure, Counter>,
    writes: Family<Write, Counter>,
    watch_errors: Family<Kind, Counter>,
    leader: Gauge,
}

/// What is counted when metrics are asked for.
#[derive(Debug, Clone, Default)]
pub struct Picture {
    /// Objects by kind, type of a condition, and its status.
    pub conditions: BTreeMap<(String, String, String), i64>,
    /// Names that wait to be looked at, by kind.
    pub queued: BTreeMap<String, i64>,
}

impl Default for Metrics {
    fn default() -> Self {
        // From a look that finds nothing to do to a slow API server.
        let seconds: fn() -> Histogram = || {
            Histogram::new([
                0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
                15.0,
            ])
        };
        Self {
            reconciles: Family::default(),
            seconds: Family::new_with_constructor(seconds),
            failures: Family::default(),
            writes: Family::default(),
            watch_errors: Family::default(),
            leader: Gauge::default(),
        }
    }
}

impl Metrics {
    /// An object was looked at.
    pub fn reconciled(&self, kind: &str, took: Duration, failed: Option<Class>) {
        let label = Kind { kind: kind.into() };
        let before = self.reconciles.get_or_create(&label).inc();
        if before == 0 {
            // There before their first event: rates and alerts see that too.
            for class in Class::ALL.map(Class::as_str) {
                let kind = kind.into();
                drop(self.failures.get_or_create(&Failure { kind, class }));
            }
        }
        self.seconds
            .get_or_create(&label)
            .observe(took.as_secs_f64());
        if let Some(class) = failed {
            let label = Failure {
                kind: kind.into(),
                class: class.as_str(),
            };
            self.failures.get_or_create(&label).inc();
        }
    }

    /// How often objects of a kind were looked at.
    pub fn reconciles(&self, kind: &str) -> u64 {
        let label = Kind { kind: kind.into() };
        self.reconciles.get_or_create(&label).get()
    }

    /// Something was written.
    pub fn wrote(&self, kind: &str, verb: &'static str) {
        let label = Write {
            kind: kind.into(),
            verb,
        };
        self.writes.get_or_create(&label).inc();
    }

    /// A watch begins: its errors are counted from zero.
    pub fn watches(&self, kind: &str) {
        drop(self.watch_errors.get_or_create(&Kind { kind: kind.into() }));
    }

    /// A watch ended with an error.
    pub fn watch_failed(&self, kind: &str) {
        let label = Kind { kind: kind.into() };
        self.watch_errors.get_or_create(&label).inc();
    }

    /// Whether this process leads.
    pub fn leads(&self, leads: bool) {
        self.leader.set(leads.into());
    }

    /// The OpenMetrics text.
    pub fn encode(&self, picture: &Picture) -> String {
        let mut registry = Registry::with_prefix("adit_reconciler");
        let queued = Family::<Kind, Gauge>::default();
        for (kind, count) in &picture.queued {
            let label = Kind { kind: kind.clone() };
            queued.get_or_create(&label).set(*count);
        }
        let conditions = Family::<Condition, Gauge>::default();
        for ((kind, condition, status), count) in &picture.conditions {
            let label = Condition {
                kind: kind.clone(),
                condition: condition.clone(),
                status: status.clone(),
            };
            conditions.get_or_create(&label).set(*count);
        }
        registry.register("reconciles", "Looks at objects", self.reconciles.clone());
        registry.register(
            "reconcile_seconds",
            "Time of a look at an object",
            self.seconds.clone(),
        );
        registry.register(
            "reconcile_failures",
            "Looks that failed, by the class of the error",
            self.failures.clone(),
        );
        registry.register(
            "writes",
            "Requests to the API server that change something",
            self.writes.clone(),
        );
        registry.register(
            "watch_errors",
            "Watches that ended with an error",
            self.watch_errors.clone(),
        );
        registry.register(
            "leader",
            "1 if this process leads, else 0",
            self.leader.clone(),
        );
        registry.register("queued", "Objects that wait to be looked at", queued);
        registry.register("objects", "Objects by condition and status", conditions);
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_names_kinds_and_classes_and_no_object() {
        let metrics = Metrics::default();
        metrics.reconciled("HTTPProxy", Duration::from_millis(3), Some(Class::Conflict));
        metrics.watches("HTTPProxy");
        metrics.wrote("HTTPRoute", "apply");
        let mut picture = Picture::default();
        let key = ("HTTPProxy".into(), "Programmed".into(), "True".into());
        picture.conditions.insert(key, 7);
        let text = metrics.encode(&picture);
        for line in [
            "adit_reconciler_reconciles_total{kind=\"HTTPProxy\"} 1",
            "adit_reconciler_reconcile_failures_total{kind=\"HTTPProxy\",class=\"conflict\"} 1",
            "adit_reconciler_reconcile_failures_total{kind=\"HTTPProxy\",class=\"forbidden\"} 0",
            "adit_reconciler_watch_errors_total{kind=\"HTTPProxy\"} 0",
            "adit_reconciler_writes_total{kind=\"HTTPRoute\",verb=\"apply\"} 1",
            "adit_reconciler_objects{kind=\"HTTPProxy\",condition=\"Programmed\",status=\"True\"} 7",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }
}
