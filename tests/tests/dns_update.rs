//! Discovery records by signed updates, on real servers.
//!
//! Each case runs on Knot and on BIND: both implement RFC 2136 and TSIG by
//! themselves. A server that is not there is named as left out.
//!
//! | case | what the zone shows |
//! |---|---|
//! | publish | exactly the records, and the claim |
//! | change | old and new never mixed, the claim stays |
//! | two owners | the first one's records, whatever the second tries |
//! | takeover | the second one's, in one step |
//! | remove | nothing |
//! | a real dialer | reaches the connector, also where it moves |
//! | wrong key | nothing, and an error that says which key |

use std::time::Duration;

use adit_api::ConnectorHint;
use adit_reconciler::dns::{
    Key, Layout, Server,
    claim::{Claim, Decision, Owner, decide},
    rfc2136::ServerError,
};
use adit_tests::{
    client::http::get,
    expect_ok,
    name_server::{KEY, NameServer, Software, UNKNOWN_KEY, WRONG_SECRET, ZONE},
    process::until,
    stage::Plan,
};
use adit_wire::EndpointId;
use anyhow::{Context, Result, bail, ensure};

macro_rules! on_each_server {
    ($($name:ident),* $(,)?) => {$(
        mod $name {
            use super::*;

            #[tokio::test(flavor = "multi_thread")]
            async fn knot() {
                if Software::Knot.is_there() {
                    expect_ok(super::$name(Software::Knot).await);
                }
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn bind() {
                if Software::Bind.is_there() {
                    expect_ok(super::$name(Software::Bind).await);
                }
            }
        }
    )*};
}

on_each_server!(
    the_records_are_exactly_those_that_were_published,
    an_address_change_replaces_all_records_at_once,
    a_second_owner_changes_nothing_until_it_takes_over,
    an_update_decided_on_old_news_is_refused,
    a_removed_connector_leaves_nothing,
    a_key_that_is_wrong_is_refused_and_named,
    records_of_others_are_never_touched,
    a_transfer_lists_the_claims,
    sixteen_long_records_go_by_tcp,
    a_dialer_reaches_a_connector_by_what_is_published,
);

fn layout() -> Layout {
    Layout::new("shop.adit.test", None, Duration::from_secs(5)).expect("a layout")
}

fn server(name_server: &NameServer, key: &str) -> Server {
    let key: Key = key.parse().expect("a key");
    Server::new(name_server.addr, ZONE, key).expect("a server")
}

fn id(byte: u8) -> EndpointId {
    EndpointId::from_bytes([byte; 32])
}

fn hint(addresses: &[&str]) -> ConnectorHint {
    ConnectorHint {
        endpoint_id: id(7),
        relay: Some("https://relay.example/".into()),
        addresses: addresses
            .iter()
            .map(|a| a.parse().expect("valid"))
            .collect(),
    }
}

fn claim(connector: &str) -> Claim {
    Claim {
        uid: format!("uid-of-{connector}"),
        cluster: "cluster-1".into(),
        namespace: "shop".into(),
        connector: connector.into(),
    }
}

/// Publishes as a reconciler does: look, decide, write.
async fn publish(server: &Server, who: &Claim, addresses: &[&str]) -> Result<Decision> {
    let layout = layout();
    let records = layout.records(&hint(addresses)).context("records")?;
    let claim_name = layout.claim_name(id(7));
    let found = server.find(&records.name, &claim_name).await?;
    let decision = decide(&found, who, Some(&records));
    match decision {
        Decision::Create => server.create(&claim_name, who, &records).await?,
        Decision::Replace => server.replace(&claim_name, &found, who, &records).await?,
        _ => {}
    }
    Ok(decision)
}

async fn texts(name_server: &NameServer) -> Result<Vec<String>> {
    Ok(name_server.texts(&layout().name(id(7))).await?.0)
}

async fn the_records_are_exactly_those_that_were_published(software: Software) -> Result<()> {
    let name_server = NameServer::start(software).await?;
    let server = server(&name_server, KEY);
    let addresses = ["192.0.2.1:7", "[2001:db8::1]:9"];
    assert_eq!(
        publish(&server, &claim("till"), &addresses).await?,
        Decision::Create
    );
    let name = format!("_iroh.{}.shop.adit.test", id(7).to_z32());
    let (texts, ttl) = name_server.texts(&name).await?;
    assert_eq!(
        texts,
        [
            "addr=192.0.2.1:7",
            "addr=[2001:db8::1]:9",
            "relay=https://relay.example/"
        ]
    );
    assert_eq!(ttl, 5);
    let (claims, _) = name_server.texts(&format!("_adit-claim.{name}")).await?;
    assert_eq!(claims, [claim("till").strings().concat()]);
    // The same again is no update.
    assert_eq!(
        publish(&server, &claim("till"), &addresses).await?,
        Decision::Nothing
    );
    Ok(())
}

async fn an_address_change_replaces_all_records_at_once(software: Software) -> Result<()> {
    let name_server = NameServer::start(software).await?;
    let server = server(&name_server, KEY);
    let sets: [&[&str]; 2] = [
        &["192.0.2.1:1", "192.0.2.2:1", "192.0.2.3:1"],
        &["192.0.2.4:2", "192.0.2.5:2"],
    ];
    publish(&server, &claim("till"), sets[0]).await?;
    let writer = async {
        for round in 1..40 {
            let decision = publish(&server, &claim("till"), sets[round % 2]).await?;
            assert_eq!(decision, Decision::Replace);
        }
        anyhow::Ok(())
    };
    let whole: Vec<Vec<String>> = sets
        .iter()
        .map(|set| {
            let addresses = set.iter().map(|a| format!("addr={a}"));
            addresses
                .chain(["relay=https://relay.example/".into()])
                .collect()
        })
        .collect();
    let mut seen = [0, 0];
    tokio::pin!(writer);
    loop {
        tokio::select! {
            done = &mut writer => break done?,
            texts = texts(&name_server) => {
                let texts = texts?;
                match whole.iter().position(|set| *set == texts) {
                    Some(which) => seen[which] += 1,
                    None => bail!("a mixture: {texts:?}"),
                }
            }
        }
    }
    println!("{software:?}: both whole sets and nothing else were read: {seen:?}");
    assert_eq!(texts(&name_server).await?, whole[1]);
    Ok(())
}

async fn a_second_owner_changes_nothing_until_it_takes_over(software: Software) -> Result<()> {
    let name_server = NameServer::start(software).await?;
    let server = server(&name_server, KEY);
    publish(&server, &claim("first"), &["192.0.2.1:1"]).await?;
    let decision = publish(&server, &claim("second"), &["192.0.2.2:1"]).await?;
    assert_eq!(decision, Decision::AskAbout(claim("first")));
    let mut far = claim("second");
    far.cluster = "cluster-2".into();
    let decision = publish(&server, &far, &["192.0.2.2:1"]).await?;
    assert_eq!(decision, Decision::Leave(Owner::Elsewhere(claim("first"))));
    assert_eq!(texts(&name_server).await?[0], "addr=192.0.2.1:1");

    // The first is gone: the second takes its place in one step.
    let records = layout()
        .records(&hint(&["192.0.2.2:1"]))
        .context("records")?;
    let claim_name = layout().claim_name(id(7));
    let found = server.find(&records.name, &claim_name).await?;
    server
        .replace(&claim_name, &found, &claim("second"), &records)
        .await?;
    assert_eq!(texts(&name_server).await?[0], "addr=192.0.2.2:1");
    let (claims, _) = name_server.texts(&claim_name).await?;
    assert_eq!(claims, [claim("second").strings().concat()]);
    // And the first, which wakes up late, finds that out.
    let decision = publish(&server, &claim("first"), &["192.0.2.1:1"]).await?;
    assert_eq!(decision, Decision::AskAbout(claim("second")));
    Ok(())
}

async fn an_update_decided_on_old_news_is_refused(software: Software) -> Result<()> {
    let name_server = NameServer::start(software).await?;
    let server = server(&name_server, KEY);
    let records = layout()
        .records(&hint(&["192.0.2.1:1"]))
        .context("records")?;
    let claim_name = layout().claim_name(id(7));
    let empty = server.find(&records.name, &claim_name).await?;
    server
        .create(&claim_name, &claim("first"), &records)
        .await?;
    let first = server.find(&records.name, &claim_name).await?;
    let changed = |result: Result<(), ServerError>| {
        assert!(matches!(result, Err(ServerError::Changed(_))), "{result:?}");
    };
    changed(server.create(&claim_name, &claim("second"), &records).await);
    changed(
        server
            .replace(
                &claim_name,
                &empty_claim(&claim("x")),
                &claim("second"),
                &records,
            )
            .await,
    );
    server
        .replace(&claim_name, &first, &claim("second"), &records)
        .await?;
    changed(
        server
            .replace(&claim_name, &first, &claim("first"), &records)
            .await,
    );
    changed(server.remove(&records.name, &claim_name, &first).await);
    assert_eq!(empty, adit_reconciler::dns::claim::Found::default());
    assert_eq!(texts(&name_server).await?.len(), 2);
    Ok(())
}

fn empty_claim(claim: &Claim) -> adit_reconciler::dns::claim::Found {
    let strings = claim
        .strings()
        .into_iter()
        .map(String::into_bytes)
        .collect();
    adit_reconciler::dns::claim::Found {
        claim: vec![strings],
        ..Default::default()
    }
}

async fn a_removed_connector_leaves_nothing(software: Software) -> Result<()> {
    let name_server = NameServer::start(software).await?;
    let server = server(&name_server, KEY);
    publish(&server, &claim("till"), &["192.0.2.1:1"]).await?;
    let (name, claim_name) = (layout().name(id(7)), layout().claim_name(id(7)));
    let found = server.find(&name, &claim_name).await?;
    assert_eq!(decide(&found, &claim("till"), None), Decision::Remove);
    server.remove(&name, &claim_name, &found).await?;
    assert_eq!(texts(&name_server).await?, Vec::<String>::new());
    assert_eq!(
        name_server.texts(&claim_name).await?.0,
        Vec::<String>::new()
    );
    assert!(server.claims().await?.is_empty());
    Ok(())
}

async fn a_key_that_is_wrong_is_refused_and_named(software: Software) -> Result<()> {
    let name_server = NameServer::start(software).await?;
    for (key, word) in [(WRONG_SECRET, "BADSIG"), (UNKNOWN_KEY, "BADKEY")] {
        let server = server(&name_server, key);
        let records = layout()
            .records(&hint(&["192.0.2.1:1"]))
            .context("records")?;
        let claim_name = layout().claim_name(id(7));
        let error = server
            .create(&claim_name, &claim("till"), &records)
            .await
            .expect_err("the key is wrong");
        let text = error.to_string();
        assert!(text.contains(word), "{text}");
        assert!(
            text.contains(key.split(':').next().expect("a name")),
            "{text}"
        );
        assert!(text.contains(&name_server.addr.to_string()), "{text}");
        assert_eq!(error.reason(), "ServerRefused");
        assert!(server.find(&records.name, &claim_name).await.is_err());
        assert!(server.claims().await.is_err());
    }
    assert_eq!(texts(&name_server).await?, Vec::<String>::new());
    Ok(())
}

async fn records_of_others_are_never_touched(software: Software) -> Result<()> {
    let name_server = NameServer::start(software).await?;
    let server = server(&name_server, KEY);
    let name = format!("taken.{ZONE}");
    let found = server.find(&name, &format!("_adit-claim.{name}")).await?;
    let mut records = layout()
        .records(&hint(&["192.0.2.1:1"]))
        .context("records")?;
    records.name = name.clone();
    assert_eq!(
        decide(&found, &claim("till"), Some(&records)),
        Decision::Leave(Owner::Unknown)
    );
    assert_eq!(decide(&found, &claim("till"), None), Decision::Nothing);
    let (claim_name, who) = (format!("_adit-claim.{name}"), claim("till"));
    let created = server.create(&claim_name, &who, &records).await;
    assert!(matches!(created, Err(ServerError::Changed(_))));
    assert_eq!(name_server.texts(&name).await?.0, ["by hand"]);
    // A name outside the zone is not even asked for.
    records.name = "_iroh.example.com".into();
    let outside = server
        .create("_adit-claim.example.com", &who, &records)
        .await;
    assert!(matches!(outside, Err(ServerError::Name(..))));
    Ok(())
}

async fn a_transfer_lists_the_claims(software: Software) -> Result<()> {
    let name_server = NameServer::start(software).await?;
    let server = server(&name_server, KEY);
    let layout = layout();
    // Enough for several messages.
    for byte in 1..=120 {
        let mut hint = hint(&[]);
        hint.endpoint_id = id(byte);
        hint.addresses = (1..=16).map(|p| ([192, 0, 2, byte], p).into()).collect();
        let records = layout.records(&hint).context("records")?;
        let connector = format!("till-{byte}");
        server
            .create(&layout.claim_name(id(byte)), &claim(&connector), &records)
            .await?;
    }
    let claims = server.claims().await?;
    assert_eq!(claims.len(), 120);
    for (name, claim) in claims {
        let id = layout.claimed_id(&name).context("an id")?;
        assert_eq!(claim.connector, format!("till-{}", id.as_bytes()[0]));
    }
    Ok(())
}

async fn sixteen_long_records_go_by_tcp(software: Software) -> Result<()> {
    let name_server = NameServer::start(software).await?;
    let server = server(&name_server, KEY);
    let long: Vec<_> = (0..16)
        .map(|i| format!("[2001:db8:1111:2222:3333:4444:5555:{i:x}666]:65535"))
        .collect();
    let long: Vec<_> = long.iter().map(String::as_str).collect();
    let mut who = claim("till");
    who.connector = "c".repeat(253);
    who.namespace = "n".repeat(63);
    assert_eq!(publish(&server, &who, &long).await?, Decision::Create);
    assert_eq!(publish(&server, &who, &long).await?, Decision::Nothing);
    assert_eq!(publish(&server, &who, &long[1..]).await?, Decision::Replace);
    assert_eq!(texts(&name_server).await?.len(), 16);
    Ok(())
}

async fn a_dialer_reaches_a_connector_by_what_is_published(software: Software) -> Result<()> {
    let name_server = NameServer::start(software).await?;
    let server = server(&name_server, KEY);
    let mut plan = Plan::of("1.40.0")
        .env("ADIT_DNS_ORIGIN", "shop.adit.test")
        .env("ADIT_DNS_RESOLVER", name_server.addr);
    plan.hints = false;
    let mut stage = plan.start().await?;
    ensure!(get(stage.addr(), "web.test", "/echo").await?.status == 503);
    let id: EndpointId = stage.connector.key.id.parse()?;
    let claim_name = layout().claim_name(id);
    for _ in 0..2 {
        let bound = stage.connector.bound().await?;
        let hint = ConnectorHint {
            endpoint_id: id,
            relay: None,
            addresses: bound,
        };
        let records = layout().records(&hint).context("records")?;
        let found = server.find(&records.name, &claim_name).await?;
        match decide(&found, &claim("till"), Some(&records)) {
            Decision::Create => {
                server.create(&claim_name, &claim("till"), &records).await?;
            }
            Decision::Replace => {
                server
                    .replace(&claim_name, &found, &claim("till"), &records)
                    .await?;
            }
            other => bail!("{other:?}"),
        }
        until("an answer of the service", async || {
            let answer = get(stage.addr(), "web.test", "/echo").await.ok()?;
            (answer.status == 200).then_some(())
        })
        .await?;
        stage.connector.kill()?;
        stage.connector.start().await?;
    }
    Ok(())
}
