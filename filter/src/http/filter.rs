//! One HTTP stream, in the order in which Envoy calls.
//!
//! `send_response` calls back into this object before it returns (`local_reply`,
//! then the response hooks): the state is made of cells and nothing is borrowed
//! across it. That re-entry is also the plan: a refusal of ours and a failed
//! connect become the same local reply, and are given their form in one place.

use std::{
    cell::{Cell, OnceCell, RefCell},
    sync::Arc,
    time::Instant,
};

use super::{
    accept,
    fault::{self, Fault},
    page::{self, Page},
    policy::{self, Declared, NAMESPACE, Request},
};
use crate::{
    abi::http::{Map, MetricsHandle, Source, Status, Stream},
    config::{self, ConfigError},
    log::Brake,
    metrics::Metrics,
};
use adit_wire::ErrorClass;

/// What all streams of one filter in Envoy's configuration share.
#[derive(Debug)]
pub struct Config {
    page: Arc<Page>,
    metrics: Metrics,
    misconfigured: Brake,
}

/// What a route may change (`typed_per_filter_config`).
#[derive(Debug)]
pub struct RouteConfig {
    page: Option<Arc<Page>>,
}

/// One stream.
#[derive(Debug)]
pub struct Filter {
    config: Arc<Config>,
    /// The route's page, where it has one.
    page: OnceCell<Arc<Page>>,
    /// When the request came, on a route of ours; never set elsewhere.
    started: Cell<Option<Instant>>,
    fault: Cell<Option<Fault>>,
    answer: RefCell<Answer>,
    outcome: Cell<&'static str>,
    poisoned: Cell<bool>,
}

/// The body of a rewritten reply.
#[derive(Debug, Default)]
enum Answer {
    /// Not rewritten.
    #[default]
    Original,
    /// Comes with the first piece of the original.
    Due(Vec<u8>),
    /// Has come; what is left of the original goes.
    Done,
}

/// `outcome` of a request whose client left before there was an answer.
const NO_ANSWER: &str = "no_answer";
/// `outcome` of a request that the service answered.
const ANSWERED: &str = "answered";
/// `outcome` of a request that Envoy answered for reasons of its own.
const ENVOY: &str = "envoy";

impl Config {
    /// Reads the filter's configuration, as Envoy hands it over.
    pub fn new(name: &[u8], config: &[u8], envoy: MetricsHandle) -> Result<Self, ConfigError> {
        config::check_name("filter_name", name)?;
        Ok(Self {
            page: Arc::new(config::http(config)?.unwrap_or_default()),
            metrics: Metrics::define(envoy),
            misconfigured: Brake::default(),
        })
    }
}

impl RouteConfig {
    /// Reads a route's configuration, as Envoy hands it over.
    pub fn new(name: &[u8], config: &[u8]) -> Result<Self, ConfigError> {
        config::check_name("filter_name", name)?;
        Ok(Self {
            page: config::http(config)?.map(Arc::new),
        })
    }
}

impl Filter {
    /// For one stream.
    pub fn new(config: Arc<Config>) -> Self {
        Self {
            config,
            page: OnceCell::new(),
            started: Cell::new(None),
            fault: Cell::new(None),
            answer: RefCell::default(),
            outcome: Cell::new(NO_ANSWER),
            poisoned: Cell::new(false),
        }
    }

    /// A hook of this stream panicked: the rest of it passes untouched.
    pub fn poison(&self) {
        self.poisoned.set(true);
        self.outcome.set(ErrorClass::Internal.as_str());
    }

    fn is_ours(&self) -> bool {
        self.started.get().is_some() && !self.poisoned.get()
    }

    /// The request's headers.
    pub fn request_headers(&self, mut envoy: Stream<'_>) -> Status {
        // First of all: this call refreshes the route. After a filter before
        // us has cleared the route cache, metadata would still be the old
        // route's, while the router takes the new one.
        let route_config = envoy.refresh_route();
        let on_route = envoy.has_metadata(Source::Route, NAMESPACE);
        let on_cluster = envoy.has_metadata(Source::Cluster, NAMESPACE);
        if !on_route && !on_cluster {
            return Status::Continue;
        }
        self.started.set(Some(Instant::now()));
        if let Some(page) = route_config.and_then(|config| config.page.clone()) {
            // Headers come once a stream; a second page would change nothing.
            let _ = self.page.set(page);
        }
        match self.admit(&envoy, on_route, on_cluster) {
            Ok(entries) => {
                let entries = entries
                    .each_ref()
                    .map(|(key, value)| (*key, value.as_str()));
                envoy.set_dynamic_metadata(NAMESPACE, &entries);
                strip(&mut envoy, Map::Request);
                Status::Continue
            }
            Err(fault) => {
                self.fault.set(Some(fault));
                // Ends in our own response hooks, which give it its form.
                envoy.send_response(fault.status(), fault.message(), fault.details());
                Status::Stop
            }
        }
    }

    /// Decides, and says what the access log may know of it.
    fn admit(
        &self,
        envoy: &Stream<'_>,
        on_route: bool,
        on_cluster: bool,
    ) -> Result<[(&'static str, String); 2], Fault> {
        let route = on_route.then(|| declared(envoy, Source::Route));
        let cluster = on_cluster.then(|| declared(envoy, Source::Cluster));
        let source = if on_route {
            Source::Route
        } else {
            Source::Cluster
        };
        let text = |key| {
            envoy
                .metadata_text(source, NAMESPACE, key)
                .or_else(|| envoy.metadata_text(Source::Cluster, NAMESPACE, key))
        };
        let name = text("name").unwrap_or_default();
        let target = policy::target(route, cluster).map_err(|reason| {
            if let Some(held_back) = self.config.misconfigured.pass() {
                tracing::warn!(name, held_back, "a request is refused: {reason}");
            }
            Fault::Class(ErrorClass::Misconfigured)
        })?;
        let header = |name| envoy.header(Map::Request, name, 0).unwrap_or_default();
        let request = Request {
            method: header(":method"),
            authority: header(":authority"),
            upgrade: header("upgrade"),
        };
        let connect = envoy
            .metadata_bool(source, NAMESPACE, "connect")
            .unwrap_or(false);
        policy::admit(request, connect, &target)?;
        Ok([
            ("name", name.to_owned()),
            ("target", target.service.to_string()),
        ])
    }

    /// The request's trailers.
    pub fn request_trailers(&self, mut envoy: Stream<'_>) {
        if self.is_ours() {
            strip(&mut envoy, Map::RequestTrailers);
        }
    }

    /// Envoy is about to answer by itself. There is nothing to change yet: the
    /// reply's headers do not exist.
    pub fn local_reply(&self, details: &[u8]) {
        if !self.is_ours() || self.fault.get().is_some() {
            return;
        }
        self.outcome.set(ENVOY);
        if let Some(class) = fault::class_of_details(details) {
            self.fault.set(Some(Fault::Class(class)));
        }
    }

    /// Envoy is about to answer, and why is not known.
    pub fn local_reply_unread(&self) {
        if self.is_ours() && self.fault.get().is_none() {
            self.fault.set(Some(Fault::Class(ErrorClass::Internal)));
        }
    }

    /// The response's headers, the service's or a local reply's.
    pub fn response_headers(&self, mut envoy: Stream<'_>, end_stream: bool) {
        if !self.is_ours() {
            return;
        }
        let Some(fault) = self.fault.get() else {
            if self.outcome.get() == NO_ANSWER {
                self.outcome.set(ANSWERED);
            }
            self.record_wait();
            return;
        };
        self.outcome.set(fault.word());
        self.record_wait();
        envoy.set_dynamic_metadata(NAMESPACE, &[("error", fault.word())]);
        let content_type = envoy.header(Map::Response, "content-type", 0);
        if content_type.is_some_and(|value| value.starts_with(b"application/grpc")) {
            // Envoy has made it a trailers-only reply; `:status` stays 200.
            let set = |envoy: &mut Stream<'_>, name, value: &str| {
                envoy.set_header(Map::Response, name, value);
            };
            set(&mut envoy, "grpc-status", &fault.grpc_status().to_string());
            set(&mut envoy, "grpc-message", fault.message());
            return;
        }
        let form = accept::negotiate((0..).map_while(|i| envoy.header(Map::Request, "accept", i)));
        let page = self.page.get().unwrap_or(&self.config.page);
        let body = page::body(fault, form, page);
        let set = |envoy: &mut Stream<'_>, name, value: &str| {
            envoy.set_header(Map::Response, name, value);
        };
        set(&mut envoy, ":status", &fault.status().to_string());
        set(&mut envoy, "content-type", form.content_type());
        set(&mut envoy, "content-length", &body.len().to_string());
        // The answer is the form's, and only for now.
        set(&mut envoy, "vary", "accept");
        set(&mut envoy, "cache-control", "no-store");
        if let Some(seconds) = fault.retry_after() {
            set(&mut envoy, "retry-after", &seconds.to_string());
        }
        // A reply without a body is one to HEAD.
        if !end_stream {
            *self.answer.borrow_mut() = Answer::Due(body);
        }
    }

    /// A piece of the response's body.
    pub fn response_body(&self, mut envoy: Stream<'_>) {
        if self.poisoned.get() {
            return;
        }
        let answer = std::mem::take(&mut *self.answer.borrow_mut());
        match answer {
            Answer::Original => return,
            Answer::Due(body) => envoy.replace_response_body(&body),
            Answer::Done => envoy.replace_response_body(&[]),
        }
        *self.answer.borrow_mut() = Answer::Done;
    }

    /// The stream is over.
    pub fn end(&self) {
        if self.started.get().is_some() {
            self.config.metrics.count(self.outcome.get());
        }
    }

    fn record_wait(&self) {
        if let Some(started) = self.started.get() {
            self.config.metrics.record_wait(started.elapsed());
        }
    }
}

fn declared<'a>(envoy: &'a Stream<'_>, source: Source) -> Declared<'a> {
    let text = |key| envoy.metadata_text(source, NAMESPACE, key);
    Declared {
        nodes: text("datum-node-id"),
        host: text("datum-target-host"),
        port: envoy.metadata_number(source, NAMESPACE, "datum-target-port"),
        proto: text("datum-target-proto"),
    }
}

/// Removes reserved headers.
fn strip(envoy: &mut Stream<'_>, map: Map) {
    let mut found: Vec<Vec<u8>> = Vec::new();
    envoy.header_names(map, |name| {
        if policy::is_reserved(name) {
            found.push(name.to_vec());
        }
    });
    for name in found {
        envoy.remove_header(map, &name);
    }
}
