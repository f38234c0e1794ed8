//! A panic in any hook of the module ends one request or one connection, with
//! a line in the log, and Envoy goes on. `libadit_fault.so` is the module with
//! a panic to order (`ADIT_FAULT=hook:times`).
//!
//! | hooks | what a panic becomes |
//! |---|---|
//! | loading, configuration | the configuration is refused |
//! | request | 500 |
//! | response | the stream is cut |
//! | local reply | 503 without Envoy's text |
//! | transport socket | 503, or the connection closes |
//! | ends and destruction | nothing |
//!
//! Envoy never asks this module for its protocol, for STARTTLS, or (in a
//! cluster) whether it can flush: those three hooks have the same guard, tested
//! beside it.

use std::{net::SocketAddr, path::Path};

use adit_tests::{
    client::{
        grpc,
        http::{Body, Client, empty},
        patiently,
    },
    envoy::{Envoy, validate},
    filter_stage::{self as stage, FakeDialer, SECRET, target},
    on_each_envoy, process,
    services::{grpc::Note, http::HttpService},
};
use adit_wire::ErrorClass;
use anyhow::{Result, ensure};
use futures_util::stream;
use http::{HeaderMap, Method};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};

on_each_envoy!(
    a_panic_in_a_request_hook_is_a_500,
    a_panic_in_a_response_hook_cuts_the_stream,
    a_panic_in_a_local_reply_shows_nothing_of_envoys,
    a_panic_in_the_transport_socket_closes_its_connection,
    a_panic_at_an_end_is_only_logged,
    a_panic_at_shutdown_is_only_logged,
);

/// How one exchange ended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Ended {
    Status(u16, String),
    Broken,
}

impl From<Result<(u16, String)>> for Ended {
    fn from(result: Result<(u16, String)>) -> Self {
        match result {
            Ok((status, body)) => Self::Status(status, body),
            Err(_) => Self::Broken,
        }
    }
}

/// What each of the exchanges became.
#[derive(Debug)]
struct Exchanges {
    /// POST with a body and trailers.
    post: Ended,
    /// GET of a service that is offline.
    offline: Ended,
    /// A gRPC call, answered with trailers.
    grpc: Ended,
}

impl Exchanges {
    async fn run(addr: SocketAddr) -> Result<Self> {
        let post = async {
            let mut trailers = HeaderMap::new();
            trailers.insert("x-adit-late", "1".parse()?);
            let frames = [Frame::data("a body".into()), Frame::trailers(trailers)];
            let body: Body = BodyExt::boxed(StreamBody::new(stream::iter(frames.map(Ok))));
            let mut client = Client::http2(addr, "h2.test").await?;
            // The service answers after the trailers and not before.
            let answer = client.send(Method::POST, "/hash", &[], body).await?;
            Ok((answer.status.as_u16(), answer.text()))
        };
        let offline = async {
            let mut client = Client::http1(addr, "off.test").await?;
            let answer = client.send(Method::GET, "/", &[], empty()).await?;
            Ok((answer.status.as_u16(), answer.text()))
        };
        let grpc = async {
            let mut stub = grpc::Client::connect(addr, "h2.test").await?;
            let answer = stub.unary(Note::default()).await?;
            Ok((200, format!("{:?}", answer.into_inner())))
        };
        // Each of them ends: nothing hangs, whatever it becomes.
        Ok(Self {
            post: patiently("the POST ends", async { Ok(post.await.into()) }).await?,
            offline: patiently("the GET ends", async { Ok(offline.await.into()) }).await?,
            grpc: patiently("the call ends", async { Ok(grpc.await.into()) }).await?,
        })
    }

    fn check_all_well(&self, hook: &str) {
        assert!(self.post.is(200), "{hook}: {self:?}");
        assert!(self.offline.is(503), "{hook}: {self:?}");
        assert!(self.offline.says("(offline)"), "{hook}: {self:?}");
        assert!(self.grpc.is(200), "{hook}: {self:?}");
    }
}

impl Ended {
    fn is(&self, expected: u16) -> bool {
        matches!(self, Self::Status(status, _) if *status == expected)
    }

    fn says(&self, text: &str) -> bool {
        matches!(self, Self::Status(_, body) if body.contains(text))
    }
}

fn resources(module: &Path, socket: &Path) -> Value {
    let mut host = stage::host("h2");
    host["routes"][1]["typed_per_filter_config"] = stage::route_filter(module, json!({}));
    json!({
        "listeners": [stage::listener(module, &[host, stage::host("off")])],
        "clusters": [
            stage::cluster(module, "h2", socket, &target("h2"), true),
            stage::cluster(module, "off", socket, &target("off"), false),
        ],
    })
}

fn contained(envoy: &Envoy, hook: &str) -> usize {
    let line = format!("a panic in the hook {hook} was contained");
    envoy.process.log().matches(&line).count()
}

/// Runs the exchanges with one panic in `hook`, and once more without.
async fn with_panic(version: &str, hook: &str) -> Result<Exchanges> {
    let dir = tempfile::tempdir()?;
    let socket = dir.path().join("dialer.sock");
    let module = stage::faulty_module()?;
    let web = HttpService::start()?;
    let service = web.addr;
    let _dialer = FakeDialer::start(&socket, move |opened| async move {
        match opened.target.name.as_str() {
            "off" => opened.refuse(ErrorClass::Offline).await,
            _ => opened.join(service).await,
        }
    })?;
    let order = format!("{hook}:1");
    let env = [("ADIT_FAULT", order.as_str())];
    let resources = resources(&module, &socket);
    let mut envoy = Envoy::start_with(version, dir.path(), 1, &resources, &env).await?;
    let addr = envoy.listener("main").await?;

    let first = Exchanges::run(addr).await?;
    // Some hooks run only when a connection is gone.
    process::until(&format!("the panic in {hook}"), async || {
        (contained(&envoy, hook) == 1).then_some(())
    })
    .await?;
    Exchanges::run(addr).await?.check_all_well(hook);
    ensure!(contained(&envoy, hook) == 1, "{hook}: more than one panic");
    ensure!(envoy.process.is_running(), "{hook}: Envoy is dead");
    ensure!(
        envoy.process.log().contains("ordered by ADIT_FAULT"),
        "{hook}: the panic's own message is not in the log"
    );
    Ok(first)
}

async fn a_panic_in_a_request_hook_is_a_500(version: &str) -> Result<()> {
    for hook in [
        "http_new",
        "http_request_headers",
        "http_request_body",
        "http_request_trailers",
    ] {
        let got = with_panic(version, hook).await?;
        assert!(got.post.is(500), "{hook}: {got:?}");
        assert!(got.offline.says("(offline)"), "{hook}: {got:?}");
    }
    Ok(())
}

async fn a_panic_in_a_response_hook_cuts_the_stream(version: &str) -> Result<()> {
    for hook in ["http_response_headers", "http_response_body"] {
        let got = with_panic(version, hook).await?;
        assert_eq!(got.post, Ended::Broken, "{hook}: {got:?}");
    }
    let got = with_panic(version, "http_response_trailers").await?;
    assert_eq!(got.grpc, Ended::Broken, "{got:?}");
    Ok(())
}

async fn a_panic_in_a_local_reply_shows_nothing_of_envoys(version: &str) -> Result<()> {
    let got = with_panic(version, "http_local_reply").await?;
    assert!(got.offline.is(503), "{got:?}");
    assert!(got.offline.says("(internal)"), "{got:?}");
    assert!(!got.offline.says("upstream"), "{got:?}");
    assert!(!got.offline.says(SECRET), "{got:?}");
    Ok(())
}

async fn a_panic_in_the_transport_socket_closes_its_connection(version: &str) -> Result<()> {
    for hook in [
        "transport_new",
        "transport_set_callbacks",
        "transport_on_connected",
        "transport_do_read",
        "transport_do_write",
    ] {
        let got = with_panic(version, hook).await?;
        assert!(got.post.is(503), "{hook}: {got:?}");
        assert!(got.post.says("(internal)"), "{hook}: {got:?}");
    }
    Ok(())
}

async fn a_panic_at_an_end_is_only_logged(version: &str) -> Result<()> {
    for hook in [
        "http_stream_complete",
        "http_destroy",
        "transport_close",
        "transport_destroy",
    ] {
        with_panic(version, hook).await?.check_all_well(hook);
    }
    // The answer to a question cannot be trusted after a panic: empty, and the
    // connection closes. Whatever was on it ends.
    with_panic(version, "transport_get_failure_reason").await?;
    Ok(())
}

async fn a_panic_at_shutdown_is_only_logged(version: &str) -> Result<()> {
    let module = stage::faulty_module()?;
    for hook in [
        "transport_factory_config_destroy",
        "http_config_destroy",
        "http_per_route_config_destroy",
    ] {
        let dir = tempfile::tempdir()?;
        let socket = dir.path().join("dialer.sock");
        let resources = resources(&module, &socket);
        let env = [("ADIT_FAULT", hook)];
        let mut envoy = Envoy::start_with(version, dir.path(), 1, &resources, &env).await?;
        let status = envoy.process.terminate().await?;
        assert!(status.success(), "{hook}: {status}");
        assert!(contained(&envoy, hook) > 0, "{hook}: not called");
    }
    Ok(())
}

#[test]
fn a_panic_while_loading_refuses_the_configuration() {
    let module = stage::faulty_module().unwrap();
    for version in adit_tests::binaries::ENVOYS {
        for hook in [
            "program_init",
            "http_config_new",
            "http_per_route_config_new",
            "transport_factory_config_new",
        ] {
            let dir = tempfile::tempdir().unwrap();
            let socket = dir.path().join("dialer.sock");
            let resources = resources(&module, &socket);
            let env = [("ADIT_FAULT", hook)];
            let output = validate(version, dir.path(), &resources, &env).unwrap();
            let text = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{hook}: {text}");
            let line = format!("a panic in the hook {hook} was contained");
            assert!(text.contains(&line), "{hook}: {text}");
        }
    }
}
