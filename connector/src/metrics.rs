//! The connector's counters. Labels come from closed lists: nothing that a
//! dialer sends becomes one.

use std::sync::{
    Arc,
    atomic::{AtomicI64, AtomicU64, Ordering},
};

use adit_control::Contact;
use adit_wire::ErrorClass;
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

/// How a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum End {
    /// Both sides said that they were done.
    Clean,
    /// One side cut it.
    Aborted,
    /// The dialer left before the service was reached.
    Left,
    /// A list no longer allows it.
    Revoked,
    /// It was still open when the grace period was over.
    Shutdown,
    /// The dialer's head was late, broken or cut.
    BadHead,
    /// Answered with a class.
    Failed(ErrorClass),
}

/// Why a connection was turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Rejected {
    /// Its key is not on the list.
    NotAllowed,
    /// Too many handshakes at once.
    HandshakeLimit,
    /// The handshake failed or took too long.
    Handshake,
    /// Too many connections.
    ConnectionLimit,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndLabel {
    result: End,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RejectedLabel {
    reason: Rejected,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReloadLabel {
    result: Word,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DirectionLabel {
    direction: Word,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Word(&'static str);

/// What is read at a scrape, because others hold it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Snapshot {
    pub(crate) connections: usize,
    pub(crate) streams: usize,
    pub(crate) queued: usize,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) relay_connected: Option<bool>,
    pub(crate) endpoint_rebuilds: u64,
}

#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    ends: Family<EndLabel, Counter>,
    rejected: Family<RejectedLabel, Counter>,
    reloads: Family<ReloadLabel, Counter>,
    accepted: Counter,
    connect_seconds: Histogram,
    connections: Gauge<i64, AtomicI64>,
    streams: Gauge<i64, AtomicI64>,
    queued: Gauge<i64, AtomicI64>,
    relay_connected: Gauge<i64, AtomicI64>,
    bytes: Family<DirectionLabel, Counter<u64, AtomicU64>>,
    rebuilds: Counter<u64, AtomicU64>,
}

impl Metrics {
    pub(crate) fn new(relays_configured: bool) -> Arc<Self> {
        let mut own = Self {
            registry: Registry::with_prefix("adit_connector"),
            ends: Family::default(),
            rejected: Family::default(),
            reloads: Family::default(),
            accepted: Counter::default(),
            // From a service on this machine to the default timeout of 5 s.
            connect_seconds: Histogram::new([
                0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
            ]),
            connections: Gauge::default(),
            streams: Gauge::default(),
            queued: Gauge::default(),
            relay_connected: Gauge::default(),
            bytes: Family::default(),
            rebuilds: Counter::default(),
        };
        let r = &mut own.registry;
        r.register(
            "streams_ended",
            "Streams by how they ended",
            own.ends.clone(),
        );
        r.register(
            "connections_rejected",
            "Connections turned away, by reason",
            own.rejected.clone(),
        );
        r.register(
            "connections_accepted",
            "Connections of allowed dialers",
            own.accepted.clone(),
        );
        r.register("reloads", "Readings of a changed file", own.reloads.clone());
        r.register(
            "service_connect_seconds",
            "Time to reach a service, its name's lookup included",
            own.connect_seconds.clone(),
        );
        r.register(
            "connections",
            "Connections open now",
            own.connections.clone(),
        );
        r.register(
            "streams",
            "Streams that hold a place now",
            own.streams.clone(),
        );
        r.register(
            "streams_queued",
            "Streams waiting for a place now",
            own.queued.clone(),
        );
        r.register(
            "bytes",
            "Payload bytes into (sent) and out of (received) tunnels",
            own.bytes.clone(),
        );
        r.register(
            "endpoint_rebuilds",
            "Times the relay watchdog replaced the iroh endpoint",
            own.rebuilds.clone(),
        );
        if relays_configured {
            r.register(
                "relay_connected",
                "Whether the home relay is connected",
                own.relay_connected.clone(),
            );
        }
        own.start_at_zero();
        Arc::new(own)
    }

    /// A series that is there before its first event: rates and alerts see
    /// that event too.
    fn start_at_zero(&self) {
        let failed = ErrorClass::ALL.map(End::Failed);
        for result in End::OTHERS.into_iter().chain(failed) {
            drop(self.ends.get_or_create(&EndLabel { result }));
        }
        for reason in Rejected::ALL {
            drop(self.rejected.get_or_create(&RejectedLabel { reason }));
        }
        for result in ["ok", "error"].map(Word) {
            drop(self.reloads.get_or_create(&ReloadLabel { result }));
        }
    }

    pub(crate) fn ended(&self, end: End) {
        self.ends.get_or_create(&EndLabel { result: end }).inc();
    }

    pub(crate) fn ended_total(&self, end: End) -> u64 {
        self.ends.get_or_create(&EndLabel { result: end }).get()
    }

    pub(crate) fn rejected(&self, reason: Rejected) {
        self.rejected.get_or_create(&RejectedLabel { reason }).inc();
    }

    pub(crate) fn accepted(&self) {
        self.accepted.inc();
    }

    pub(crate) fn reached(&self, seconds: f64) {
        self.connect_seconds.observe(seconds);
    }

    pub(crate) fn reloaded(&self, ok: bool) {
        let result = Word(if ok { "ok" } else { "error" });
        self.reloads.get_or_create(&ReloadLabel { result }).inc();
    }

    /// The OpenMetrics text.
    pub(crate) fn encode(&self, now: Snapshot, contact: Option<&Contact>) -> String {
        let gauge = |gauge: &Gauge<i64, AtomicI64>, value: usize| {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        gauge(&self.connections, now.connections);
        gauge(&self.streams, now.streams);
        gauge(&self.queued, now.queued);
        gauge(
            &self.relay_connected,
            now.relay_connected.unwrap_or(false).into(),
        );
        for (direction, value) in [("sent", now.sent), ("received", now.received)] {
            let label = DirectionLabel {
                direction: Word(direction),
            };
            let counter = self.bytes.get_or_create(&label);
            counter.inner().store(value, Ordering::Relaxed);
        }
        self.rebuilds
            .inner()
            .store(now.endpoint_rebuilds, Ordering::Relaxed);
        let mut out = String::new();
        let mut control = Registry::with_prefix("adit_connector");
        if let Some(contact) = contact {
            contact.register(&mut control);
        }
        // Writing into a String fails only when an encoder of ours does.
        let encoded = text::encode_registry(&mut out, &control)
            .and_then(|()| text::encode(&mut out, &self.registry));
        if encoded.is_err() {
            tracing::error!("the metrics could not be encoded");
        }
        out
    }
}

impl Rejected {
    const ALL: [Self; 4] = [
        Self::NotAllowed,
        Self::HandshakeLimit,
        Self::Handshake,
        Self::ConnectionLimit,
    ];
}

impl End {
    /// All but the failures.
    const OTHERS: [Self; 6] = [
        Self::Clean,
        Self::Aborted,
        Self::Left,
        Self::Revoked,
        Self::Shutdown,
        Self::BadHead,
    ];

    fn word(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Aborted => "aborted",
            Self::Left => "left",
            Self::Revoked => "revoked",
            Self::Shutdown => "shutdown",
            Self::BadHead => "bad-head",
            Self::Failed(class) => class.as_str(),
        }
    }
}

impl EncodeLabelValue for End {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> std::fmt::Result {
        self.word().encode(encoder)
    }
}

impl EncodeLabelValue for Rejected {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> std::fmt::Result {
        match self {
            Self::NotAllowed => "not-allowed",
            Self::HandshakeLimit => "handshake-limit",
            Self::Handshake => "handshake",
            Self::ConnectionLimit => "connection-limit",
        }
        .encode(encoder)
    }
}

impl EncodeLabelValue for Word {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> std::fmt::Result {
        self.0.encode(encoder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_shows_counters_and_what_others_hold() {
        let metrics = Metrics::new(true);
        metrics.ended(End::Failed(ErrorClass::Denied));
        metrics.rejected(Rejected::NotAllowed);
        let now = Snapshot {
            connections: 2,
            streams: 3,
            queued: 1,
            sent: 10,
            received: 20,
            relay_connected: Some(true),
            endpoint_rebuilds: 0,
        };
        let text = metrics.encode(now, Some(&Contact::new("shops/edge".into())));
        for line in [
            "adit_connector_streams_ended_total{result=\"denied\"} 1",
            "adit_connector_connections_rejected_total{reason=\"not-allowed\"} 1",
            "adit_connector_connections 2",
            "adit_connector_streams_queued 1",
            "adit_connector_bytes_total{direction=\"received\"} 20",
            "adit_connector_relay_connected 1",
            "adit_connector_control_plane_connected 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
        }
    }
}
