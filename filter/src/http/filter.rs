//! One HTTP stream, in the order in which Envoy calls.
//!
//! `send_response` may call back into this object before it returns: the state
//! is made of cells and nothing is borrowed across it.

use std::{
    cell::{Cell, OnceCell, RefCell},
    sync::Arc,
    time::Instant,
};

use super::{
    accept::{self, Form},
    fault::{self, Fault},
    page::Page,
    policy::{self, Declared, NAMESPACE, Named, Request},
    reply::Reply,
};
use crate::{
    abi::http::{Definer, Map, Source, Status, Stream},
    config::{self, ConfigError},
    cut,
    log::Brake,
    metrics::Metrics,
    off, served,
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
    /// For the access log, until it is written.
    entry: RefCell<Option<Entry>>,
    answer: RefCell<Answer>,
    outcome: Cell<&'static str>,
    poisoned: Cell<bool>,
}

/// What is known of a request when its headers come. Envoy copies each write of
/// dynamic metadata, entry by entry: it is written once, with the answer.
#[derive(Debug)]
struct Entry {
    name: String,
    /// The target's service, as `host:port`; none if the request was not admitted.
    service: Option<String>,
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

/// The key of a target's connectors.
const NODES: &str = "datum-node-id";
/// What Envoy's router retries on, beside what the route says; it goes no
/// further than the router.
const RETRY_ON: &str = "x-envoy-retry-on";
/// How often Envoy's router tries again, in place of what the route says.
const MAX_RETRIES: &str = "x-envoy-max-retries";
/// `outcome` of a request whose client left before there was an answer.
const NO_ANSWER: &str = "no_answer";
/// `outcome` of a request that the service answered.
const ANSWERED: &str = "answered";
/// `outcome` of a request whose answer broke off with the connection.
const CUT: &str = "cut";
/// `outcome` of a request that Envoy answered for reasons of its own.
const ENVOY: &str = "envoy";

impl Config {
    /// Reads the filter's configuration, as Envoy hands it over.
    pub fn new(name: &[u8], config: &[u8], envoy: Definer<'_>) -> Result<Self, ConfigError> {
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
            entry: RefCell::default(),
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

    /// Whether a hook of this stream has panicked.
    pub fn is_poisoned(&self) -> bool {
        self.poisoned.get()
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
        let now = Instant::now();
        self.started.set(Some(now));
        if let Some(page) = route_config.and_then(|config| config.page.clone()) {
            // Headers come once a stream; a second page would change nothing.
            let _ = self.page.set(page);
        }
        let source = if on_route {
            Source::Route
        } else {
            Source::Cluster
        };
        let name = envoy
            .metadata_text(source, NAMESPACE, "name")
            .or_else(|| envoy.metadata_text(Source::Cluster, NAMESPACE, "name"))
            .unwrap_or_default()
            .to_owned();
        let admitted = self.admit(&envoy, source, on_cluster, &name);
        let service = admitted.as_ref().ok().map(|to| to.service.to_string());
        self.entry.replace(Some(Entry { name, service }));
        match &admitted {
            Ok(target) => {
                strip(&mut envoy, Map::Request);
                if envoy.metadata_bool(source, NAMESPACE, "retry") == Some(true) {
                    if off::were(&target.connectors, now) {
                        envoy.set_header(Map::Request, MAX_RETRIES, "0");
                    } else {
                        offer_retry(&mut envoy);
                    }
                }
                Status::Continue
            }
            Err(fault) => {
                self.refuse(&mut envoy, *fault);
                Status::Stop
            }
        }
    }

    /// Decides whether the request may go to the target, and which that is.
    fn admit(
        &self,
        envoy: &Stream<'_>,
        source: Source,
        on_cluster: bool,
        name: &str,
    ) -> Result<Named, Fault> {
        let route = (source == Source::Route).then(|| declared(envoy, Source::Route));
        let cluster = on_cluster.then(|| declared(envoy, Source::Cluster));
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
        let connect = envoy.metadata_bool(source, NAMESPACE, "connect");
        policy::admit(request, connect.unwrap_or(false), &target)?;
        Ok(target)
    }

    /// Answers in the router's place. Envoy does not show a filter the reply
    /// it sends itself, so this one leaves in its final form.
    fn refuse(&self, envoy: &mut Stream<'_>, fault: Fault) {
        self.note(envoy, fault);
        let content_type = envoy.header(Map::Request, "content-type", 0);
        let reply = if content_type.is_some_and(is_grpc) {
            Reply::grpc(fault)
        } else {
            Reply::http(fault, form(envoy), self.page())
        };
        envoy.send_response(&reply, fault.status(), fault.details());
    }

    /// For metrics and the access log.
    fn note(&self, envoy: &mut Stream<'_>, fault: Fault) {
        self.fault.set(Some(fault));
        self.outcome.set(fault.word());
        self.record_wait(envoy);
        self.log(envoy, Some(fault));
    }

    /// Writes the access log's entry, if it is not written yet.
    fn log(&self, envoy: &mut Stream<'_>, fault: Option<Fault>) {
        let Some(Entry { name, service }) = self.entry.take() else {
            return;
        };
        let nodes = nodes(envoy).unwrap_or_default();
        let answered = self.outcome.get() == ANSWERED;
        let (connector, path) = match answered.then(|| served::by(nodes)).flatten() {
            Some((node, path)) => (node, Some(path)),
            // Where none of them has answered, all that may.
            None => (nodes, None),
        };
        let connector = connector.to_owned();
        let mut entries = Vec::with_capacity(4);
        entries.push(("name", name.as_str()));
        if let Some(service) = &service {
            entries.push(("target", service));
            entries.push(("connector", &connector));
        }
        entries.extend(path.map(|path| ("path", path.as_str())));
        entries.extend(fault.map(|fault| ("error", fault.word())));
        envoy.set_dynamic_metadata(NAMESPACE, &entries);
    }

    fn page(&self) -> &Page {
        self.page.get().unwrap_or(&self.config.page)
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
            self.log(&mut envoy, None);
            self.record_wait(&envoy);
            return;
        };
        self.note(&mut envoy, fault);
        let content_type = envoy.header(Map::Response, "content-type", 0);
        let reply = if content_type.is_some_and(is_grpc) {
            // Envoy has made it a trailers-only reply; `:status` stays 200.
            Reply::grpc(fault)
        } else {
            let reply = Reply::http(fault, form(&envoy), self.page());
            envoy.set_header(Map::Response, ":status", &fault.status().to_string());
            envoy.set_header(
                Map::Response,
                "content-length",
                &reply.body.len().to_string(),
            );
            reply
        };
        for (name, value) in &reply.headers {
            envoy.set_header(Map::Response, name, value);
        }
        // A reply without a body is one to HEAD, or gRPC's.
        if !end_stream {
            *self.answer.borrow_mut() = Answer::Due(reply.body);
        }
    }

    /// A piece of the response's body.
    pub fn response_body(&self, mut envoy: Stream<'_>, end_stream: bool) -> Status {
        if !self.is_ours() {
            return Status::Continue;
        }
        // Envoy's own reply about a cut is made within the same call, and whole.
        if end_stream && cut::is_cut() && self.outcome.get() == ANSWERED {
            self.outcome.set(CUT);
            envoy.reset("adit_cut");
            return Status::Stop;
        }
        let answer = std::mem::take(&mut *self.answer.borrow_mut());
        match answer {
            Answer::Original => return Status::Continue,
            Answer::Due(body) => envoy.replace_response_body(&body),
            Answer::Done => envoy.replace_response_body(&[]),
        }
        *self.answer.borrow_mut() = Answer::Done;
        Status::Continue
    }

    /// The stream is over.
    pub fn end(&self, mut envoy: Stream<'_>) {
        if self.started.get().is_some() {
            // For want of an answer. Envoy writes the access log after this.
            self.log(&mut envoy, None);
            self.config.metrics.count(&envoy, self.outcome.get());
        }
    }

    fn record_wait(&self, envoy: &Stream<'_>) {
        if let Some(started) = self.started.get() {
            self.config.metrics.record_wait(envoy, started.elapsed());
        }
    }
}

/// The connectors of the route's target, or of its cluster's.
fn nodes<'a>(envoy: &'a Stream<'_>) -> Option<&'a str> {
    let of = |source| envoy.metadata_text(source, NAMESPACE, NODES);
    of(Source::Route).or_else(|| of(Source::Cluster))
}

fn declared<'a>(envoy: &'a Stream<'_>, source: Source) -> Declared<'a> {
    let text = |key| envoy.metadata_text(source, NAMESPACE, key);
    Declared {
        nodes: text(NODES),
        host: text("datum-target-host"),
        port: envoy.metadata_number(source, NAMESPACE, "datum-target-port"),
        proto: text("datum-target-proto"),
    }
}

/// The form that the client asked for.
fn form(envoy: &Stream<'_>) -> Form {
    accept::negotiate((0..).map_while(|i| envoy.header(Map::Request, "accept", i)))
}

/// Envoy's own rule for what is gRPC.
fn is_grpc(content_type: &[u8]) -> bool {
    content_type
        .strip_prefix(b"application/grpc")
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+')))
}

/// A tunnel may be cut under a request, as at the end of a connector's grace
/// period; one that may be sent twice is then sent through another. A route's
/// own policy cannot tell them apart: it is for every method.
fn offer_retry(envoy: &mut Stream<'_>) {
    let method = envoy.header(Map::Request, ":method", 0).unwrap_or_default();
    if policy::is_idempotent(method) && envoy.header(Map::Request, RETRY_ON, 0).is_none() {
        envoy.set_header(Map::Request, RETRY_ON, "reset");
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
