//! What Envoy's statistics say of the filter, under the module's
//! `metrics_namespace`.

use std::time::Duration;

use crate::abi::http::{Definer, Metric, Stream};

/// `requests_total{outcome}` and `response_wait_ms`.
///
/// `outcome` is a closed list: `answered` (by the service), a word of
/// [`Fault`](crate::http::fault::Fault), `envoy` (a reply of Envoy's own, such
/// as no healthy upstream), `cut` (the answer broke off) or `no_answer` (the
/// client left first). Requests are counted when Envoy completes the stream,
/// which it does not tell a filter in a cluster (`upstream_http_filters`).
#[derive(Debug)]
pub struct Metrics {
    requests: Option<Metric>,
    wait: Option<Metric>,
}

impl Metrics {
    /// Defines them. A metric that Envoy refuses is left out: requests matter
    /// more.
    pub fn define(envoy: Definer<'_>) -> Self {
        let missing = |name| {
            move || {
                tracing::warn!(name, "Envoy refused to define a metric; it will be missing");
                None
            }
        };
        let requests = envoy.counter("requests_total", "outcome");
        let wait = envoy.histogram("response_wait_ms");
        Self {
            requests: requests.or_else(missing("requests_total")),
            wait: wait.or_else(missing("response_wait_ms")),
        }
    }

    /// Counts a finished request.
    pub fn count(&self, envoy: &Stream<'_>, outcome: &'static str) {
        if let Some(requests) = self.requests {
            envoy.increment(requests, outcome);
        }
    }

    /// Records the time from the request's headers to the response's.
    pub fn record_wait(&self, envoy: &Stream<'_>, wait: Duration) {
        if let Some(metric) = self.wait {
            let ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            envoy.record(metric, ms);
        }
    }
}
