//! What every controller of this process has in hand.

use std::{sync::Arc, time::Duration};

use kube::{
    Resource,
    runtime::events::{Event, EventType, Recorder},
};

use super::{metrics::Metrics, options::Config, stores::Stores, writer::Writer};
use crate::compile::{self, Classes};

/// For one event; they are told and forgotten.
const TIME: Duration = Duration::from_secs(5);
/// The API server's limit of an event's note is 1024 bytes.
const MAX_NOTE: usize = 1000;

/// Shared by all controllers.
pub struct Context {
    /// What is there.
    pub stores: Stores,
    /// How it is changed.
    pub writer: Writer,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What was chosen by whoever started the process.
    pub config: Config,
    /// Tells people.
    pub recorder: Recorder,
}

impl Config {
    /// How objects are compiled.
    pub(super) fn compile(&self) -> compile::Options {
        compile::Options {
            // Envoy Gateway decides where Envoy listens.
            listen: std::net::SocketAddr::from(([0, 0, 0, 0], 0)),
            deadline: self.deadline,
            output: compile::Output::EnvoyGateway,
            classes: Classes::Required,
        }
    }
}

impl Context {
    /// Tells a person about an object. Nothing depends on it.
    pub async fn tell<K>(&self, object: &K, warning: bool, reason: &str, note: &str)
    where
        K: Resource<DynamicType = ()>,
    {
        if !self.writer.may_write() {
            return;
        }
        let event = Event {
            type_: if warning {
                EventType::Warning
            } else {
                EventType::Normal
            },
            reason: reason.into(),
            note: Some(super::conditions::bounded(note, MAX_NOTE)),
            action: "Reconcile".into(),
            secondary: None,
        };
        let reference = object.object_ref(&());
        match tokio::time::timeout(TIME, self.recorder.publish(&event, &reference)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, reason, "an event was not recorded"),
            Err(_) => tracing::debug!(reason, "an event was not recorded in time"),
        }
    }
}
