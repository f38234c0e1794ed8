//! A stand-in for an OpenTelemetry collector: takes spans over gRPC and keeps
//! them. The messages are written by hand, with the fields that are looked at
//! (opentelemetry-proto, `trace/v1/trace.proto` and `common/v1/common.proto`).

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Result;
use http::Request;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::task::AbortOnDropHandle;
use tonic::{
    Status,
    codegen::BoxFuture,
    server::{Grpc, UnaryService},
};
use tonic_prost::ProstCodec;

const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// A running collector.
pub struct Collector {
    /// Where it listens.
    pub addr: SocketAddr,
    spans: Kept,
    _task: AbortOnDropHandle<()>,
}

/// A span as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Of the service that made it.
    pub service: String,
    /// 32 hex digits.
    pub trace: String,
    /// 16 hex digits.
    pub id: String,
    /// 16 hex digits, or nothing.
    pub parent: String,
    /// As in `ingress`.
    pub name: String,
    /// Its attributes that are texts.
    pub attributes: BTreeMap<String, String>,
}

type Kept = Arc<Mutex<Vec<Span>>>;

#[derive(Clone, PartialEq, prost::Message)]
struct Export {
    #[prost(message, repeated, tag = "1")]
    resources: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scopes: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ScopeSpans {
    #[prost(message, repeated, tag = "2")]
    spans: Vec<SpanMessage>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SpanMessage {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

/// `string_value` of a oneof; a value of another kind is empty.
#[derive(Clone, PartialEq, prost::Message)]
struct AnyValue {
    #[prost(string, tag = "1")]
    text: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Exported {}

struct Keep(Kept);

impl Collector {
    /// Starts one on a free port of loopback.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let addr = listener.local_addr()?;
        let spans = Kept::default();
        let kept = spans.clone();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                while connections.try_join_next().is_some() {}
                let kept = kept.clone();
                connections.spawn(async move {
                    let answer = service_fn(move |request: Request<Incoming>| {
                        let mut grpc = Grpc::new(ProstCodec::<Exported, Export>::default());
                        let keep = Keep(kept.clone());
                        async move {
                            if request.uri().path() != EXPORT {
                                return Ok(Status::unimplemented("no such method").into_http());
                            }
                            Ok::<_, std::convert::Infallible>(grpc.unary(keep, request).await)
                        }
                    });
                    let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    let _ = builder.serve_connection(TokioIo::new(tcp), answer).await;
                });
            }
        });
        Ok(Self {
            addr,
            spans,
            _task: AbortOnDropHandle::new(task),
        })
    }

    /// The spans of a trace so far.
    pub fn trace(&self, trace: &str) -> Vec<Span> {
        let spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        spans.iter().filter(|s| s.trace == trace).cloned().collect()
    }
}

impl UnaryService<Export> for Keep {
    type Response = Exported;
    type Future = BoxFuture<tonic::Response<Exported>, Status>;

    fn call(&mut self, request: tonic::Request<Export>) -> Self::Future {
        let spans = self.0.clone();
        Box::pin(async move {
            let mut spans = spans.lock().unwrap_or_else(PoisonError::into_inner);
            for resource in request.into_inner().resources {
                let own = texts(resource.resource.unwrap_or_default().attributes);
                let service = own.get("service.name").cloned().unwrap_or_default();
                let all = resource.scopes.into_iter().flat_map(|scope| scope.spans);
                spans.extend(all.map(|span| Span::new(&service, span)));
            }
            Ok(tonic::Response::new(Exported {}))
        })
    }
}

impl Span {
    fn new(service: &str, span: SpanMessage) -> Self {
        let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
        Self {
            service: service.to_owned(),
            trace: hex(&span.trace_id),
            id: hex(&span.span_id),
            parent: hex(&span.parent_span_id),
            name: span.name,
            attributes: texts(span.attributes),
        }
    }
}

fn texts(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let pair = |a: KeyValue| (a.key, a.value.unwrap_or_default().text);
    attributes.into_iter().map(pair).collect()
}
