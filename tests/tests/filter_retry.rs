//! A tunnel that is cut under a request, before any answer: who may be sent again
//! is, in real Envoy with a dialer that cuts.
//!
//! | method | `retry` in the metadata | answered |
//! |---|---|---|
//! | GET, HEAD, PUT, DELETE | yes | by the next tunnel |
//! | POST, PATCH | yes | 503, and the service has it once |
//! | GET | no | 503 |
//! | GET with `x-envoy-retry-on: reset` from its client | no | 503: Envoy believes no client |

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use adit_tests::{
    client::{
        http::{Client, full},
        patiently,
    },
    filter_stage::{self as stage, FakeDialer, Opened, host, target},
    on_each_envoy,
};
use anyhow::{Context, Result, ensure};
use http::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

on_each_envoy!(a_request_whose_tunnel_is_cut_is_sent_again_only_if_it_may);

/// The heads that came, and whether the next request's tunnel is to be cut.
#[derive(Clone, Default)]
struct Service {
    heads: Arc<Mutex<Vec<String>>>,
    cut: Arc<AtomicBool>,
}

impl Service {
    fn heads(&self) -> Vec<String> {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.heads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads one request (head, and four bytes of body); answers it or cuts.
    async fn serve(self, mut opened: Opened) -> Result<()> {
        opened.accept().await?;
        let mut got = Vec::new();
        let end = loop {
            if let Some(end) = got.windows(4).position(|w| w == b"\r\n\r\n")
                && got.len() >= end + 8
            {
                break end;
            }
            let n = opened.stream.read_buf(&mut got).await?;
            ensure!(n > 0, "no whole request");
        };
        let head = String::from_utf8_lossy(&got[..end]).into_owned();
        self.lock().push(head);
        if self.cut.swap(false, Ordering::SeqCst) {
            // Dropped without a shutdown: an abort.
            return Ok(());
        }
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        opened.stream.write_all(answer).await?;
        opened.end().await
    }
}

async fn a_request_whose_tunnel_is_cut_is_sent_again_only_if_it_may(version: &str) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let service = Service::default();
    let served = service.clone();
    let _dialer = FakeDialer::start(&dir.path().join("dialer.sock"), move |opened| {
        served.clone().serve(opened)
    })?;
    let mut with = host("with");
    for route in with["routes"].as_array_mut().context("routes")? {
        route["metadata"]["filter_metadata"]["adit"]["retry"] = json!(true);
    }
    let module = adit_tests::binaries::module()?;
    let socket = dir.path().join("dialer.sock");
    let names = ["with", "without"];
    let clusters = names.map(|name| stage::cluster(&module, name, &socket, &target(name), false));
    let hosts = [with, host("without")];
    let (_envoy, addr) = stage::start(version, dir.path(), &hosts, &clusters).await?;

    let ask = async |name: &str, method: &str, headers: &[(&str, &str)]| {
        service.cut.store(true, Ordering::SeqCst);
        let mut client = Client::http1(addr, &format!("{name}.test")).await?;
        let method: Method = method.parse()?;
        let asked = client.send(method, "/", headers, full("body"));
        let answer = patiently("an answer", asked).await?;
        service.cut.store(false, Ordering::SeqCst);
        anyhow::Ok((answer.status.as_u16(), service.heads()))
    };
    for method in ["GET", "HEAD", "PUT", "DELETE"] {
        let (status, heads) = ask("with", method, &[]).await?;
        assert_eq!((status, heads.len()), (200, 2), "{method}: {heads:?}");
        assert!(
            !heads.join("").contains("x-envoy-retry-on"),
            "the service is told: {heads:?}"
        );
    }
    for method in ["POST", "PATCH"] {
        let (status, heads) = ask("with", method, &[]).await?;
        assert_eq!((status, heads.len()), (503, 1), "{method}: {heads:?}");
    }
    let (status, heads) = ask("without", "GET", &[]).await?;
    assert_eq!((status, heads.len()), (503, 1), "{heads:?}");
    let own = [("x-envoy-retry-on", "reset")];
    let (status, heads) = ask("without", "GET", &own).await?;
    assert_eq!((status, heads.len()), (503, 1), "{heads:?}");
    Ok(())
}
