//! A client that writes the fields by which other gateways choose a target.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use adit_tests::{
    client::{http::get, patiently},
    stage::{Plan, Stage},
};
use anyhow::{Result, ensure};
use bytes::Bytes;
use futures_util::future::try_join_all;
use h2::{RecvStream, server::SendResponse};
use http::Response;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::task::AbortOnDropHandle;

use super::{
    frames::{self, Field},
    judge::{Sending, exchange, is_reserved},
    witness::Witness,
};
use crate::scenario::Context;

/// Reserved, in spellings that are one name to HTTP.
const RESERVED: [&str; 19] = [
    "x-adit-target",
    "x-adit-",
    "X-Adit-Error",
    "X-ADIT-CLASS",
    "x-adit-Ünicode",
    "x-iroh-endpoint-id",
    "X-Iroh-Relay",
    "x-iroh-",
    "x-datum-target-host",
    "X-DATUM-NODE-ID",
    "datum-node-id",
    "Datum-Node-Id",
    "DATUM-NODE-ID",
    "datum-target-host",
    "Datum-Target-Port",
    "datum-target-",
    // One variable with the others to CGI and its heirs (RFC 3875, 4.1.18).
    "x_adit_target",
    "DATUM_NODE_ID",
    "datum-target_host",
];
/// Near misses: they are the client's own and must arrive.
const FREE: [&str; 5] = [
    "x-aditional",
    "x-irohs",
    "datum-node-identity",
    "datum-targets",
    "my-x-adit-target",
];

/// An HTTP/2 service that keeps fields and trailers.
struct Trailers {
    addr: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
    _task: AbortOnDropHandle<()>,
}

pub(super) async fn run(context: &Context) -> Result<String> {
    let (raw, canary) = (Witness::start().await?, Witness::start().await?);
    let trailers = Trailers::start().await?;
    // The canary is advertised too: only the fields could lead to it.
    let stage = Plan::of(&context.version)
        .service("raw", raw.endpoint())
        .service("canary", canary.endpoint())
        .service("trailers", format!("h2c://{}", trailers.addr))
        .start()
        .await?;
    let addr = stage.addr();
    for host in ["raw.test", "canary.test", "trailers.test"] {
        let answer = patiently(host, get(addr, host, "/first")).await?;
        ensure!(answer.status == 200, "{host}: {}", answer.text());
    }
    let before = canary.seen().len();
    let value = |name: &str| aim(name, &stage, canary.addr);
    let mut all = Vec::new();
    for (n, name) in RESERVED.iter().chain(&FREE).enumerate() {
        let value = value(name);
        let head = format!("POST /h1-{n}- HTTP/1.1\r\nHost: raw.test\r\n");
        let end = "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n";
        // As a field, twice, named by Connection, and as a trailer.
        let requests = [
            format!("{head}{name}: {value}\r\nX: y\r\n{name}:{value}\r\n{end}\r\n"),
            format!("{head}Connection: {name}\r\n{name}: {value}\r\n{end}\r\n"),
            format!("{head}Trailer: {name}\r\n{end}{name}: {value}\r\n\r\n"),
        ];
        let lower = name.to_ascii_lowercase();
        let field = (lower.as_str(), value.as_str());
        all.extend(requests.map(String::into_bytes));
        all.push(http2("raw.test", &format!("/h2-{n}-"), &[field], &[]));
        all.push(http2("raw.test", &format!("/h2-{n}-"), &[], &[field]));
        all.push(http2("trailers.test", "/", &[field], &[]));
        all.push(http2(
            "trailers.test",
            "/",
            &[],
            &[("free-trailer", "1"), field],
        ));
    }
    let exchanges = all
        .iter()
        .map(|bytes| exchange(addr, bytes, Sending::AtOnce));
    try_join_all(exchanges).await?;
    let answer = get(addr, "raw.test", "/last").await?;
    ensure!(answer.status == 200, "afterwards: {}", answer.text());
    raw.until_seen("/last").await?;

    let (mut arrived, mut free) = (0, 0);
    for seen in raw.seen() {
        arrived += 1;
        let reserved = seen.names().into_iter().find(|name| is_reserved(name));
        ensure!(reserved.is_none(), "{reserved:?} arrived: {}", seen.text());
        free += seen.names().iter().filter(|n| is_free(n)).count();
    }
    let at_h2 = trailers.names();
    let reserved = at_h2.iter().find(|name| is_reserved(name));
    ensure!(reserved.is_none(), "{reserved:?} arrived by HTTP/2");
    free += at_h2.iter().filter(|n| is_free(n)).count();
    ensure!(
        canary.seen().len() == before,
        "a field has chosen the target: {:?}",
        canary.seen().last().map(super::witness::Seen::text)
    );
    ensure!(
        at_h2.iter().any(|name| name == "free-trailer"),
        "no trailer arrives at all, so none could have been removed"
    );
    ensure!(free >= FREE.len(), "only {free} free fields arrived");
    Ok(format!(
        "{} requests with {} names: {arrived} at the service and {} fields by HTTP/2, none of them reserved; \
         {free} that only look so arrived; nothing went to the target that they named",
        all.len(),
        RESERVED.len(),
        at_h2.len(),
    ))
}

/// A value that would lead to the canary, were the field believed.
fn aim(name: &str, stage: &Stage, canary: SocketAddr) -> String {
    let name = name.to_ascii_lowercase();
    if name.contains("id") {
        stage.connector.key.id.clone()
    } else if name.contains("port") {
        canary.port().to_string()
    } else if name.contains("host") {
        canary.ip().to_string()
    } else {
        canary.to_string()
    }
}

fn is_free(name: &str) -> bool {
    FREE.contains(&name)
}

fn http2(host: &str, path: &str, fields: &[(&str, &str)], trailers: &[(&str, &str)]) -> Vec<u8> {
    let usual = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", host),
        ("te", "trailers"),
    ];
    let bytes = |fields: &[(&str, &str)], last| {
        let fields: Vec<Field<'_>> = fields
            .iter()
            .map(|(name, value)| (name.as_bytes(), value.as_bytes()))
            .collect();
        frames::headers(&fields, last)
    };
    let mut all = frames::preface();
    all.extend(bytes(&[&usual[..], fields].concat(), false));
    all.extend(frames::data(b"x", trailers.is_empty()));
    if !trailers.is_empty() {
        all.extend(bytes(trailers, true));
    }
    all
}

impl Trailers {
    async fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let addr = listener.local_addr()?;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let shared = seen.clone();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                let seen = shared.clone();
                connections.spawn(async move {
                    let mut h2 = h2::server::handshake(tcp).await?;
                    while let Some(request) = h2.accept().await {
                        let (request, respond) = request?;
                        tokio::spawn(keep(request, respond, seen.clone()));
                    }
                    anyhow::Ok(())
                });
            }
        });
        Ok(Self {
            addr,
            seen,
            _task: AbortOnDropHandle::new(task),
        })
    }

    /// The names of all fields and trailers so far.
    fn names(&self) -> Vec<String> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.clone()
    }
}

/// Keeps the names of a request, and answers it once it is whole: Envoy sends on
/// nothing more of a request that has been answered.
async fn keep(
    request: http::Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    seen: Arc<Mutex<Vec<String>>>,
) {
    let (head, mut body) = request.into_parts();
    while let Some(Ok(piece)) = body.data().await {
        let _ = body.flow_control().release_capacity(piece.len());
    }
    let trailers = body.trailers().await.ok().flatten().unwrap_or_default();
    let names = head.headers.keys().chain(trailers.keys());
    seen.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .extend(names.map(ToString::to_string));
    // Its client may have gone.
    let _ = respond.send_response(Response::new(()), true);
}
