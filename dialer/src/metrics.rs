//! What Prometheus gets. Labels are closed lists: never a connector, never a
//! target; those are in `/status`.

use std::{sync::Arc, time::Duration};

use adit_control::Contact;
use adit_tunnel::status::selected_path;
use adit_wire::{ErrorClass, Path};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use crate::pool::Pool;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Direction {
    direction: &'static str,
}

/// Counters and histograms.
#[derive(Debug, Clone)]
pub struct Metrics {
    accepted: Counter,
    accept_failures: Counter,
    preface_failures: Family<Outcome, Counter>,
    verdicts: Family<Outcome, Counter>,
    verdict_seconds: Histogram,
    ended: Family<Outcome, Counter>,
    dials: Family<Outcome, Counter>,
    dial_seconds: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        // From a stream on a live connection of a LAN to a relayed dial that
        // fails.
        let seconds = || {
            Histogram::new([
                0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
            ])
        };
        let own = Self {
            accepted: Counter::default(),
            accept_failures: Counter::default(),
            preface_failures: Family::default(),
            verdicts: Family::default(),
            verdict_seconds: seconds(),
            ended: Family::default(),
            dials: Family::default(),
            dial_seconds: seconds(),
        };
        own.start_at_zero();
        own
    }
}

impl Metrics {
    /// A series that is there before its first event: rates and alerts see
    /// that event too.
    fn start_at_zero(&self) {
        let start = |family: &Family<Outcome, Counter>, outcome| {
            drop(family.get_or_create(&Outcome { outcome }));
        };
        for outcome in ["ok", "left"]
            .into_iter()
            .chain(ErrorClass::ALL.map(ErrorClass::as_str))
        {
            start(&self.verdicts, outcome);
        }
        for outcome in ["invalid", "closed", "timeout", "io"] {
            start(&self.preface_failures, outcome);
        }
        for outcome in ["clean", "cut"] {
            start(&self.ended, outcome);
        }
        for outcome in ["ok", "failed"] {
            start(&self.dials, outcome);
        }
    }

    /// A connection was accepted.
    pub fn accepted(&self) {
        self.accepted.inc();
    }

    /// An accept failed.
    pub fn accept_failed(&self) {
        self.accept_failures.inc();
    }

    /// A connection had no preface.
    pub fn preface_failed(&self, outcome: &'static str) {
        self.preface_failures
            .get_or_create(&Outcome { outcome })
            .inc();
    }

    /// A stream has its verdict.
    pub fn verdict(&self, class: Option<ErrorClass>, after: Duration) {
        let outcome = class.map_or("ok", ErrorClass::as_str);
        self.verdicts.get_or_create(&Outcome { outcome }).inc();
        self.verdict_seconds.observe(after.as_secs_f64());
    }

    /// A client left before its verdict.
    pub fn left(&self) {
        let outcome = "left";
        self.verdicts.get_or_create(&Outcome { outcome }).inc();
    }

    /// A tunnel ended.
    pub fn ended(&self, clean: bool) {
        let outcome = if clean { "clean" } else { "cut" };
        self.ended.get_or_create(&Outcome { outcome }).inc();
    }

    /// A dial ended.
    pub fn dialled(&self, ok: bool, after: Duration) {
        let outcome = if ok { "ok" } else { "failed" };
        self.dials.get_or_create(&Outcome { outcome }).inc();
        self.dial_seconds.observe(after.as_secs_f64());
    }

    /// The OpenMetrics text.
    pub fn encode(&self, pool: &Arc<Pool>, contact: Option<&Contact>) -> String {
        let mut registry = Registry::with_prefix("adit_dialer");
        let mut add = |name: &str, help: &str, metric: &dyn Fn(&mut Registry, String, String)| {
            metric(&mut registry, name.into(), help.into());
        };
        add(
            "connections_accepted",
            "Connections to the socket",
            &|r, n, h| r.register(n, h, self.accepted.clone()),
        );
        add("accept_failures", "Accepts that failed", &|r, n, h| {
            r.register(n, h, self.accept_failures.clone())
        });
        add(
            "preface_failures",
            "Connections without a valid preface",
            &|r, n, h| r.register(n, h, self.preface_failures.clone()),
        );
        add("verdicts", "Streams by their verdict", &|r, n, h| {
            r.register(n, h, self.verdicts.clone())
        });
        add("verdict_seconds", "From preface to verdict", &|r, n, h| {
            r.register(n, h, self.verdict_seconds.clone())
        });
        add("tunnels_ended", "Tunnels by their end", &|r, n, h| {
            r.register(n, h, self.ended.clone())
        });
        add("dials", "Dials by their result", &|r, n, h| {
            r.register(n, h, self.dials.clone())
        });
        add("dial_seconds", "Time of a dial", &|r, n, h| {
            r.register(n, h, self.dial_seconds.clone())
        });

        let (sent, received) = bytes(pool);
        let moved = Family::<Direction, Counter>::default();
        for (direction, bytes) in [("sent", sent), ("received", received)] {
            moved.get_or_create(&Direction { direction }).inc_by(bytes);
        }
        registry.register("bytes", "Payload moved", moved);
        for (name, help, value) in [
            ("streams", "Tunnels open", pool.open_streams()),
            ("queued", "Streams waiting for a connector", pool.queued()),
            (
                "links",
                "Connections to connectors",
                pool.live.load(std::sync::atomic::Ordering::Relaxed),
            ),
            (
                "links_relayed",
                "Connections to connectors that go through a relay now",
                relayed(pool),
            ),
            ("connectors", "Connectors known", pool.connectors().len()),
        ] {
            let gauge: Gauge = Gauge::default();
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
            registry.register(name, help, gauge);
        }
        if let Some(contact) = contact {
            contact.register(&mut registry);
        }
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &registry);
        text
    }
}

/// How many links go through a relay.
fn relayed(pool: &Pool) -> usize {
    let links = pool
        .connectors()
        .into_iter()
        .filter_map(|c| c.snapshot().link);
    let paths = links.filter_map(|link| selected_path(&link.connection));
    paths.filter(|(kind, _, _)| *kind == Path::Relay).count()
}

/// Totals of all connectors, also of forgotten ones.
fn bytes(pool: &Pool) -> (u64, u64) {
    let start = (pool.forgotten.sent(), pool.forgotten.received());
    pool.connectors().iter().fold(start, |(sent, received), c| {
        (sent + c.meter.sent(), received + c.meter.received())
    })
}
