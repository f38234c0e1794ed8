//! Connectors in DNS: by signed updates of a real server, and by DNSEndpoints.

use std::fs;

use adit_reconciler::dns::{self, RecordSet, claim::Claim};
use adit_tests::{
    kube::{
        Kind, Objects, external_dns,
        objects::{condition, is_true},
    },
    name_server::{KEY, NameServer, Software, ZONE},
    process::until,
};
use adit_wire::EndpointId;
use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{on_the_api_server, site::Site, until_told};

on_the_api_server!(
    a_connector_is_published_and_removed_by_signed_updates,
    of_two_connectors_with_one_key_the_second_defers_by_update,
    records_of_a_connector_that_went_unseen_are_swept,
    a_claim_of_nobody_is_swept_now_and_then,
    a_server_that_does_not_answer_is_named,
    a_server_that_refuses_is_named_and_a_person_is_told,
    of_two_connectors_with_one_key_the_older_has_the_endpoint,
);

fn software() -> Option<Software> {
    [Software::Knot, Software::Bind]
        .into_iter()
        .find(|s| s.is_there())
}

fn options(name_server: &NameServer, dir: &std::path::Path) -> Result<Value> {
    use std::os::unix::fs::PermissionsExt as _;
    let key = dir.join("tsig.key");
    fs::write(&key, KEY)?;
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
    Ok(json!({
        "dns-server": name_server.addr,
        "dns-zone": ZONE,
        "dns-origin": format!("{{project}}.{ZONE}"),
        "dns-project": "shop",
        "dns-tsig-key-file": key,
    }))
}

fn name(byte: u8) -> String {
    let id = EndpointId::from_bytes([byte; 32]);
    format!("_iroh.{}.shop.{ZONE}", id.to_z32())
}

async fn until_texts(name_server: &NameServer, byte: u8, wanted: &[&str]) -> Result<()> {
    let name = name(byte);
    until(&format!("{wanted:?} at {name}"), async || {
        let texts = name_server.texts(&name).await.ok()?.0;
        (texts == wanted).then_some(())
    })
    .await
}

async fn until_published(objects: &Objects, ns: &str, name: &str, reason: &str) -> Result<Value> {
    objects
        .until(Kind::CONNECTOR, ns, name, reason, |o| {
            condition(o, "DNSPublished").is_some_and(|c| c["reason"] == reason)
        })
        .await
}

async fn a_connector_is_published_and_removed_by_signed_updates() -> Result<()> {
    let Some(software) = software() else {
        return Ok(());
    };
    let name_server = NameServer::start(software).await?;
    let dir = tempfile::tempdir()?;
    let site = Site::with("dns-update", options(&name_server, dir.path())?).await?;
    let (objects, ns) = (&site.objects, &site.namespace);
    site.connector(ns, "till").await?;
    until_published(objects, ns, "till", "Pending").await?;
    site.report(ns, "till", 7, &["192.0.2.2:7", "192.0.2.1:7"])
        .await?;
    let relay = "relay=https://relay.example/";
    until_texts(
        &name_server,
        7,
        &["addr=192.0.2.1:7", "addr=192.0.2.2:7", relay],
    )
    .await?;
    let published = until_published(objects, ns, "till", "Published").await?;
    assert!(is_true(&published, "DNSPublished"), "{published:#}");

    site.report(ns, "till", 7, &["[2001:db8::1]:9"]).await?;
    until_texts(&name_server, 7, &["addr=[2001:db8::1]:9", relay]).await?;
    // Another key is another name; the old one goes.
    site.report(ns, "till", 8, &["192.0.2.1:7"]).await?;
    until_texts(&name_server, 8, &["addr=192.0.2.1:7", relay]).await?;
    until_texts(&name_server, 7, &[]).await?;

    objects.delete(Kind::CONNECTOR, ns, "till").await?;
    until_texts(&name_server, 8, &[]).await?;
    site.end().await
}

async fn of_two_connectors_with_one_key_the_second_defers_by_update() -> Result<()> {
    let Some(software) = software() else {
        return Ok(());
    };
    let name_server = NameServer::start(software).await?;
    let dir = tempfile::tempdir()?;
    let site = Site::with("dns-two", options(&name_server, dir.path())?).await?;
    let (objects, ns, other) = (&site.objects, &site.namespace, &site.second);
    site.connector(ns, "first").await?;
    site.report(ns, "first", 7, &["192.0.2.1:7"]).await?;
    until_published(objects, ns, "first", "Published").await?;
    site.connector(other, "second").await?;
    site.report(other, "second", 7, &["192.0.2.2:7"]).await?;
    let deferred = until_published(objects, other, "second", "DeferredToOwner").await?;
    let message = condition(&deferred, "DNSPublished").context("a condition")?["message"].clone();
    assert!(
        message.to_string().contains(&format!("{ns}/first")),
        "{message}"
    );
    let owner = format!("{ns}/first");
    until_told(objects, other, ("second", "DeferredToOwner"), &owner).await?;
    let relay = "relay=https://relay.example/";
    until_texts(&name_server, 7, &["addr=192.0.2.1:7", relay]).await?;

    objects.delete(Kind::CONNECTOR, ns, "first").await?;
    until_published(objects, other, "second", "Published").await?;
    until_texts(&name_server, 7, &["addr=192.0.2.2:7", relay]).await?;
    site.end().await
}

async fn records_of_a_connector_that_went_unseen_are_swept() -> Result<()> {
    let Some(software) = software() else {
        return Ok(());
    };
    let name_server = NameServer::start(software).await?;
    let dir = tempfile::tempdir()?;
    let options = options(&name_server, dir.path())?;
    let mut site = Site::with("dns-sweep", options.clone()).await?;
    let ns = site.namespace.clone();
    for (name, byte) in [("gone", 7), ("stays", 8)] {
        site.connector(&ns, name).await?;
        site.report(&ns, name, byte, &["192.0.2.1:7"]).await?;
        until_published(&site.objects, &ns, name, "Published").await?;
    }
    site.stop().await?;
    site.objects.delete(Kind::CONNECTOR, &ns, "gone").await?;
    site.objects
        .until_gone(Kind::CONNECTOR, &ns, "gone")
        .await?;
    site.start(options).await?;
    until_texts(&name_server, 7, &[]).await?;
    let relay = "relay=https://relay.example/";
    until_texts(&name_server, 8, &["addr=192.0.2.1:7", relay]).await?;
    site.end().await
}

async fn a_claim_of_nobody_is_swept_now_and_then() -> Result<()> {
    let Some(software) = software() else {
        return Ok(());
    };
    let name_server = NameServer::start(software).await?;
    let dir = tempfile::tempdir()?;
    let mut options = options(&name_server, dir.path())?;
    options["dns-sweep-interval"] = json!("1s");
    let site = Site::with("dns-again", options).await?;
    let (objects, ns) = (&site.objects, &site.namespace);
    site.connector(ns, "stays").await?;
    site.report(ns, "stays", 8, &["192.0.2.1:7"]).await?;
    until_published(objects, ns, "stays", "Published").await?;
    // As another reconciler may leave them behind that is killed: of a
    // Connector that is not there, in this cluster and in another one.
    let cluster = objects
        .get(Kind::NAMESPACE, "", "kube-system")
        .await?
        .context("kube-system")?;
    let cluster = cluster["metadata"]["uid"].as_str().context("a UID")?;
    let key = dns::Key::read(&dir.path().join("tsig.key"))?;
    let server = dns::Server::new(name_server.addr, ZONE, key)?;
    let origin = format!("shop.{ZONE}");
    let layout = dns::Layout::new(&origin, None, std::time::Duration::from_secs(5))?;
    for (byte, cluster) in [(9, "another"), (7, cluster)] {
        let id = EndpointId::from_bytes([byte; 32]);
        let claim = Claim {
            uid: "gone".into(),
            cluster: cluster.into(),
            namespace: ns.clone(),
            connector: "gone".into(),
        };
        let records = RecordSet {
            name: layout.name(id),
            ttl: 5,
            texts: vec!["addr=192.0.2.9:9".into()],
        };
        server
            .create(&layout.claim_name(id), &claim, &records)
            .await?;
    }
    until_texts(&name_server, 7, &[]).await?;
    until_texts(&name_server, 9, &["addr=192.0.2.9:9"]).await?;
    let relay = "relay=https://relay.example/";
    until_texts(&name_server, 8, &["addr=192.0.2.1:7", relay]).await?;
    site.end().await
}

async fn a_server_that_does_not_answer_is_named() -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir()?;
    let key = dir.path().join("tsig.key");
    fs::write(&key, KEY)?;
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
    // Bound and silent by UDP, refusing by TCP.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0")?;
    let addr = silent.local_addr()?;
    let options = json!({"dns-server": addr, "dns-zone": ZONE, "dns-tsig-key-file": key});
    let site = Site::with("dns-silent", options).await?;
    let (objects, ns) = (&site.objects, &site.namespace);
    site.connector(ns, "till").await?;
    site.report(ns, "till", 7, &["192.0.2.1:7"]).await?;
    let seen = until_published(objects, ns, "till", "Unreachable").await?;
    let message = condition(&seen, "DNSPublished").context("a condition")?["message"].clone();
    assert!(message.to_string().contains(&addr.to_string()), "{message}");
    // It stands in nobody's way.
    site.renew(ns, "till", Some("agent-a")).await?;
    objects
        .until(Kind::CONNECTOR, ns, "till", "Ready", |o| {
            is_true(o, "Ready")
        })
        .await?;
    site.end().await
}

async fn a_server_that_refuses_is_named_and_a_person_is_told() -> Result<()> {
    let Some(software) = software() else {
        return Ok(());
    };
    let name_server = NameServer::start(software).await?;
    let dir = tempfile::tempdir()?;
    let mut options = options(&name_server, dir.path())?;
    // A zone that it has not.
    options["dns-zone"] = json!("elsewhere.test");
    options["dns-origin"] = json!("elsewhere.test");
    let site = Site::with("dns-refused", options).await?;
    let (objects, ns) = (&site.objects, &site.namespace);
    site.connector(ns, "till").await?;
    site.report(ns, "till", 7, &["192.0.2.1:7"]).await?;
    let refused = until_published(objects, ns, "till", "ServerRefused").await?;
    let said = condition(&refused, "DNSPublished").context("a condition")?;
    assert_eq!(said["status"], "False");
    let server = name_server.addr.to_string();
    assert!(said["message"].to_string().contains(&server), "{said}");
    until_told(objects, ns, ("till", "ServerRefused"), &server).await?;
    site.end().await
}

async fn of_two_connectors_with_one_key_the_older_has_the_endpoint() -> Result<()> {
    let options = json!({"dns-publish": "endpoint", "dns-origin": "example.com"});
    let site = Site::with("dns-endpoint", options).await?;
    let (objects, ns, other) = (&site.objects, &site.namespace, &site.second);
    let kind = Kind::DNS_ENDPOINT;
    site.connector(ns, "first").await?;
    site.report(ns, "first", 7, &["192.0.2.1:7"]).await?;
    // Until external-dns is installed, that is what is missing.
    let waits = until_published(objects, ns, "first", "Pending").await?;
    let message = condition(&waits, "DNSPublished").context("a condition")?["message"].clone();
    assert!(message.to_string().contains("external-dns"), "{message}");
    external_dns::install(objects).await?;
    let name = format!(
        "_iroh.{}.example.com",
        EndpointId::from_bytes([7; 32]).to_z32()
    );
    let texts = |address: &str| json!(["relay=https://relay.example/", format!("addr={address}")]);
    let wanted = |address: &str| {
        let (name, texts) = (name.clone(), texts(address));
        move |o: &Value| {
            let set = &o["spec"]["endpoints"][0];
            set["dnsName"] == name && set["recordTTL"] == 5 && set["targets"] == texts
        }
    };
    let made = objects
        .until(kind, ns, "first", "the records", wanted("192.0.2.1:7"))
        .await?;
    assert_eq!(made["metadata"]["ownerReferences"][0]["name"], "first");

    // Kubernetes counts the age in seconds.
    let first = objects
        .get(Kind::CONNECTOR, ns, "first")
        .await?
        .context("it")?;
    site.connector(other, "second").await?;
    site.report(other, "second", 7, &["192.0.2.2:7"]).await?;
    let second = objects
        .get(Kind::CONNECTOR, other, "second")
        .await?
        .context("it")?;
    let age = |o: &Value| o["metadata"]["creationTimestamp"].to_string();
    assert!(age(&first) <= age(&second));
    let deferred = until_published(objects, other, "second", "DeferredToOwner").await?;
    let message = condition(&deferred, "DNSPublished").context("a condition")?["message"].clone();
    assert!(
        message.to_string().contains(&format!("{ns}/first")),
        "{message}"
    );
    let owner = format!("{ns}/first");
    until_told(objects, other, ("second", "DeferredToOwner"), &owner).await?;
    assert_eq!(objects.get(kind, other, "second").await?, None);
    objects.delete(Kind::CONNECTOR, ns, "first").await?;
    objects
        .until(kind, other, "second", "the records", wanted("192.0.2.2:7"))
        .await?;
    objects.until_gone(kind, ns, "first").await?;
    until_published(objects, other, "second", "Published").await?;
    site.end().await
}
