//! Listeners of one Gateway that do not work, beside some that do.

use std::{net::SocketAddr, sync::Arc};

use adit_tests::{
    client::patiently,
    kube::{Kind, Stack, certs::Authority, site::rule},
    process::until,
};
use anyhow::{Context, Result, bail, ensure};
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use super::ground::*;

/// Number 4, and the second half of 18. A listener without its certificate has
/// no route configuration in Envoy; one whose certificate has expired might be
/// refused with all on its port. Our policies name clusters only, so the other
/// listeners serve.
pub async fn a_listener_without_a_valid_certificate_stops_no_other(stack: &Stack) -> Result<()> {
    let ground = Ground::start(stack, "listeners").await?;
    let site = &ground.site;
    let authority = Authority::new()?;
    let good = authority.server(&["good.test"])?;
    let mut params = CertificateParams::new(vec!["old.test".to_owned()])?;
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2021, 1, 1);
    let key = KeyPair::generate()?;
    let old = params.self_signed(&key)?.pem();
    for (name, cert, key) in [
        ("good", good.cert, good.key),
        ("old", old, key.serialize_pem()),
    ] {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name},
            "type": "kubernetes.io/tls", "stringData": {"tls.crt": cert, "tls.key": key},
        });
        site.objects.apply("listeners", secret).await?;
    }
    let free = std::net::TcpListener::bind("0.0.0.0:0")?;
    let port = free.local_addr()?.port();
    drop(free);
    let https = |name: &str| {
        json!({"name": name, "port": port, "protocol": "HTTPS", "hostname": format!("{name}.test"),
            "tls": {"mode": "Terminate", "certificateRefs": [{"name": name}]}})
    };
    let gateway = site
        .objects
        .get(Kind::GATEWAY, "listeners", "edge")
        .await?
        .context("the Gateway")?;
    let mut listeners = gateway["spec"]["listeners"].clone();
    let list = listeners.as_array_mut().context("listeners")?;
    // The ones that do not work come first.
    list.splice(0..0, [https("missing"), https("old"), https("good")]);
    let patch = json!({"spec": {"listeners": listeners}});
    site.objects
        .merge(Kind::GATEWAY, "listeners", "edge", None, &patch)
        .await?;

    for name in ["missing", "old", "good"] {
        let host = format!("{name}.test");
        site.proxy(name, &host, json!([rule("/", "edge", &ground.url())]))
            .await?;
    }
    // Each is served where it can be: all of them without TLS, one with.
    for name in ["missing", "old", "good"] {
        site.until_true(name, "Programmed").await?;
        answers(site, &format!("{name}.test"), 200).await?;
    }
    let addr = SocketAddr::from(([127, 0, 0, 1], port));
    let trusted = authority.pem().to_owned();
    let served = until("200 by TLS", async || {
        let answer = by_tls(addr, "good.test", &trusted).await.ok()?;
        answer.starts_with("HTTP/1.1 200").then_some(())
    });
    served.await.with_context(|| stack.last_words())?;
    // The statuses of those that do not work are the Gateway's.
    let programmed = |g: &Value, name: &str| {
        let all = g["status"]["listeners"].as_array();
        let listener = all.and_then(|all| all.iter().find(|l| l["name"] == name));
        let conditions = listener.and_then(|l| l["conditions"].as_array());
        conditions.is_some_and(|c| {
            c.iter()
                .any(|c| c["type"] == "Programmed" && c["status"] == "True")
        })
    };
    let now = site
        .objects
        .get(Kind::GATEWAY, "listeners", "edge")
        .await?
        .context("the Gateway")?;
    ensure!(
        programmed(&now, "good") && !programmed(&now, "missing") && !programmed(&now, "old"),
        "{:#}",
        now["status"]
    );
    envoy_took_everything(stack, site).await?;
    ground.site.end().await
}

/// A GET of `/echo` by TLS: the whole answer as text.
async fn by_tls(addr: SocketAddr, host: &str, trusted: &str) -> Result<String> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(trusted.as_bytes())?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    patiently("an answer by TLS", async {
        let tcp = TcpStream::connect(addr).await?;
        let name = ServerName::try_from(host.to_owned())?;
        let mut tls = TlsConnector::from(Arc::new(config))
            .connect(name, tcp)
            .await?;
        let request = format!("GET /echo HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        tls.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        // Some end without a closing alert.
        let ended = tls.read_to_end(&mut answer).await;
        if answer.is_empty() {
            bail!("no answer: {ended:?}");
        }
        Ok(String::from_utf8_lossy(&answer).into_owned())
    })
    .await
}
