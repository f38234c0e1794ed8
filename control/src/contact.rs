//! How a process stands with the API server: said once in the log, shown in
//! `/status`, counted.
//!
//! Several things go on at once (a watch, a Lease, writes); each has its own
//! last word, so that a working watch does not hide a Lease that is refused.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use adit_tunnel::status::ControlPlane;
use kube::runtime::watcher;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use crate::Class;

/// The longest error text that is kept: it may hold what others wrote.
const MAX_TEXT: usize = 500;

/// A failed step: its class, and what to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What it means.
    pub class: Class,
    /// In words.
    pub text: String,
}

/// The shared record. Clones share it.
#[derive(Debug, Clone)]
pub struct Contact(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// What this process is there, as `namespace/name`.
    object: String,
    state: Mutex<State>,
    errors: Family<ErrorLabel, Counter>,
    writes: Family<WriteLabel, Counter>,
}

#[derive(Debug, Default)]
struct State {
    failing: BTreeMap<&'static str, (Failure, Instant)>,
    /// Whether the server has answered at all.
    reached: bool,
    renewed: Option<Instant>,
    notice: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ErrorLabel {
    class: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WriteLabel {
    kind: &'static str,
}

impl Failure {
    /// A request took longer than it may.
    pub fn timed_out(after: Duration) -> Self {
        Self {
            class: Class::Unreachable,
            text: format!("no answer within {after:?}"),
        }
    }
}

impl From<&kube::Error> for Failure {
    fn from(error: &kube::Error) -> Self {
        let class = Class::of(error);
        let text = match error {
            kube::Error::Api(status) if status.code == 401 => format!(
                "the API server does not accept these credentials ({}): renew the kubeconfig or the token",
                status.message
            ),
            kube::Error::Api(status) if status.code == 403 => format!(
                "not permitted: {}; grant it as in envoy/kubernetes/rbac-*.yaml",
                status.message
            ),
            kube::Error::Api(status) => status.message.clone(),
            error => chain(error),
        };
        Self {
            class,
            text: bounded(text),
        }
    }
}

impl From<kube::Error> for Failure {
    fn from(error: kube::Error) -> Self {
        Self::from(&error)
    }
}

impl From<&watcher::Error> for Failure {
    fn from(error: &watcher::Error) -> Self {
        match error {
            watcher::Error::InitialListFailed(error)
            | watcher::Error::WatchStartFailed(error)
            | watcher::Error::WatchFailed(error) => error.into(),
            watcher::Error::WatchError(status) => (&kube::Error::Api(status.clone())).into(),
            watcher::Error::NoResourceVersion => Self {
                class: Class::Other,
                text: error.to_string(),
            },
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Contact {
    /// Of a process that is `object` there, as `namespace/name`.
    pub fn new(object: String) -> Self {
        let inner = Inner {
            object,
            state: Mutex::default(),
            errors: Family::default(),
            writes: Family::default(),
        };
        for class in Class::ALL {
            let label = ErrorLabel {
                class: class.as_str(),
            };
            drop(inner.errors.get_or_create(&label));
        }
        Self(Arc::new(inner))
    }

    /// A step worked. A watch that could not reach the server goes on in
    /// silence when it can again, so any answer speaks for it.
    pub fn ok(&self, step: &'static str) {
        let mut state = self.lock();
        state.reached = true;
        let solved = state.failing.extract_if(.., |other, (failure, _)| {
            let watch = other.starts_with("watch ") && failure.class == Class::Unreachable;
            *other == step || watch
        });
        for (step, _) in solved {
            tracing::info!(object = self.0.object, step, "works again");
        }
    }

    /// A step failed; it is said when it is news.
    pub fn failed(&self, step: &'static str, failure: Failure) {
        let label = ErrorLabel {
            class: failure.class.as_str(),
        };
        self.0.errors.get_or_create(&label).inc();
        let mut state = self.lock();
        state.reached |= failure.class != Class::Unreachable;
        let known = state.failing.get(step);
        if known.is_none_or(|(old, _)| old.class != failure.class) {
            tracing::warn!(
                object = self.0.object, step, class = %failure.class, error = failure.text,
                "this does not work with the Kubernetes API now; it is tried again, and tunnels go on"
            );
        }
        state.failing.insert(step, (failure, Instant::now()));
    }

    /// The Lease was renewed.
    pub fn renewed(&self) {
        self.lock().renewed = Some(Instant::now());
    }

    /// Something that a person must know, until it is `None`. Said when it is
    /// news.
    pub fn notice(&self, notice: Option<String>) {
        let mut state = self.lock();
        if state.notice != notice {
            match &notice {
                Some(text) => tracing::warn!(object = self.0.object, "{text}"),
                None => {
                    tracing::info!(object = self.0.object, "solved: nothing to act on any more")
                }
            }
            state.notice = notice;
        }
    }

    /// An object was written.
    pub fn wrote(&self, kind: &'static str) {
        self.0.writes.get_or_create(&WriteLabel { kind }).inc();
    }

    /// For `/status`.
    pub fn status(&self) -> ControlPlane {
        let state = self.lock();
        let newest = state.failing.iter().max_by_key(|(_, (_, at))| *at);
        let unreachable = state
            .failing
            .values()
            .any(|(failure, _)| failure.class == Class::Unreachable);
        ControlPlane {
            object: self.0.object.clone(),
            connected: state.reached && !unreachable,
            lease_renewed_seconds: state.renewed.map(|at| at.elapsed().as_secs()),
            notice: state.notice.clone(),
            last_error: newest.map(|(step, (failure, _))| format!("{step}: {failure}")),
            last_error_seconds: newest.map(|(_, (_, at))| at.elapsed().as_secs()),
        }
    }

    /// Adds `control_plane_*` to a process's metrics.
    pub fn register(&self, registry: &mut Registry) {
        let status = self.status();
        let gauge = |value: i64| {
            let gauge: Gauge = Gauge::default();
            gauge.set(value);
            gauge
        };
        registry.register(
            "control_plane_connected",
            "Whether the Kubernetes API answers",
            gauge(status.connected.into()),
        );
        registry.register(
            "control_plane_attention",
            "Whether there is something to act on: see /status",
            gauge((status.notice.is_some() || status.last_error.is_some()).into()),
        );
        let age = status.lease_renewed_seconds;
        registry.register(
            "control_plane_lease_age_seconds",
            "Since the Lease was renewed; -1 before the first time",
            gauge(age.map_or(-1, |age| i64::try_from(age).unwrap_or(i64::MAX))),
        );
        registry.register(
            "control_plane_errors",
            "Requests to the Kubernetes API that failed",
            self.0.errors.clone(),
        );
        registry.register(
            "control_plane_writes",
            "Objects written",
            self.0.writes.clone(),
        );
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An error with its causes, each once: kube's say only "ServiceError".
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        next = cause.source();
    }
    text
}

fn bounded(text: String) -> String {
    let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    clean.take(MAX_TEXT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(class: Class) -> Failure {
        Failure {
            class,
            text: "why".into(),
        }
    }

    #[test]
    fn a_working_step_does_not_hide_one_that_fails() {
        let contact = Contact::new("a/b".into());
        assert!(!contact.status().connected, "nothing has answered yet");
        contact.ok("watch");
        contact.failed("lease", failure(Class::Forbidden));
        let status = contact.status();
        assert!(status.connected);
        assert_eq!(status.last_error.as_deref(), Some("lease: why"));
        contact.failed("lease", failure(Class::Unreachable));
        assert!(!contact.status().connected);
        contact.ok("lease");
        let status = contact.status();
        assert!(status.connected);
        assert_eq!(status.last_error, None);
    }

    #[test]
    fn an_answer_speaks_for_a_watch_that_had_lost_the_server() {
        let contact = Contact::new("a/b".into());
        contact.failed("watch x", failure(Class::Unreachable));
        contact.failed("watch y", failure(Class::Forbidden));
        contact.ok("lease");
        let status = contact.status();
        assert!(status.connected);
        assert_eq!(status.last_error.as_deref(), Some("watch y: why"));
    }

    #[test]
    fn refused_credentials_and_missing_rights_say_what_to_do() {
        let said = |code: u16| {
            let status = serde_json::from_value(serde_json::json!({
                "status": "Failure", "message": "m\u{1b}\n", "reason": "r", "code": code,
            }));
            let status: kube::core::Status = status.unwrap();
            Failure::from(&kube::Error::Api(Box::new(status)))
        };
        assert_eq!(said(401).class, Class::Forbidden);
        assert!(said(401).text.contains("renew the kubeconfig"));
        assert!(said(403).text.contains("grant it"));
        assert_eq!(said(500).text, "m  ");
    }

    #[test]
    fn errors_and_writes_are_counted_by_closed_lists() {
        let contact = Contact::new("a/b".into());
        contact.failed("x", failure(Class::Busy));
        contact.wrote("Connector");
        contact.renewed();
        let mut registry = Registry::with_prefix("t");
        contact.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            "t_control_plane_errors_total{class=\"busy\"} 1",
            "t_control_plane_errors_total{class=\"forbidden\"} 0",
            "t_control_plane_writes_total{kind=\"Connector\"} 1",
            "t_control_plane_lease_age_seconds 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
        }
    }
}
