//! Connectors on a real API server: are they accepted and there, whom they let
//! in, and that their status has two writers.
//!
//! Each test has namespaces and a reconciler of its own. The agent's part is
//! played by hand: server-side apply as `adit-connector`, and renewals of the
//! Lease.

#[path = "kube_connectors/dns.rs"]
mod dns;
#[path = "kube_connectors/site.rs"]
mod site;

use adit_tests::kube::{
    Kind,
    objects::{condition, is_true},
};
pub(crate) use adit_tests::on_an_api_server as on_the_api_server;
use anyhow::Result;
use serde_json::{Value, json};

use site::{Site, id};

on_the_api_server!(
    a_connector_becomes_ready_and_its_status_has_two_writers,
    a_heartbeat_is_no_write_and_a_silent_agent_is_not_ready,
    what_a_connector_owns_goes_with_it,
    a_connector_of_another_controller_is_left_alone,
    a_class_that_comes_later_is_enough,
    an_advertisement_is_accepted_when_its_connector_is_there,
    dialers_come_and_go_in_every_connector,
    a_lease_of_somebody_else_is_not_taken,
    a_restarted_reconciler_writes_nothing,
);

fn message(object: &Value, kind: &str) -> String {
    let found = condition(object, kind);
    found.map_or(String::new(), |c| c["message"].to_string())
}

/// Waits until a person was told of an object, once, for this reason.
async fn until_told(
    objects: &adit_tests::kube::Objects,
    namespace: &str,
    (name, reason): (&str, &str),
    words: &str,
) -> Result<()> {
    let told = |all: &[Value]| {
        let about = all.iter().filter(|e| {
            e["regarding"]["kind"] == "Connector"
                && e["regarding"]["name"] == name
                && e["reason"] == reason
        });
        let about: Vec<_> = about.collect();
        about.len() == 1
            && about[0]["type"] == "Warning"
            && about[0]["note"].to_string().contains(words)
            && about[0]["regarding"]["uid"].is_string()
    };
    let what = format!("event {reason} of {name}, which says {words:?}");
    objects
        .until_list(Kind::EVENT, namespace, "", &what, told)
        .await
        .map(drop)
}

fn reason(object: &Value, kind: &str) -> String {
    let found = condition(object, kind).and_then(|c| c["reason"].as_str());
    found.unwrap_or_default().to_owned()
}

async fn a_connector_becomes_ready_and_its_status_has_two_writers() -> Result<()> {
    let site = Site::new("two-writers").await?;
    let objects = &site.objects;
    let ns = &site.namespace;
    site.dialer("adit-dialer-a", &id(1)).await?;
    site.connector(ns, "till").await?;
    let seen = objects
        .until(Kind::CONNECTOR, ns, "till", "leaseRef", |o| {
            is_true(o, "Accepted") && o["status"]["leaseRef"]["name"] == "till"
        })
        .await?;
    assert_eq!(reason(&seen, "Ready"), "ConnectorNotReady");
    let lease = objects
        .get(Kind::LEASE, ns, "till")
        .await?
        .expect("a Lease");
    assert_eq!(lease["spec"]["leaseDurationSeconds"], 30);
    assert_eq!(lease["spec"]["renewTime"], Value::Null);
    let owner = &lease["metadata"]["ownerReferences"][0];
    assert_eq!(owner["uid"], seen["metadata"]["uid"]);
    assert_eq!(owner["controller"], true);

    site.report(ns, "till", 7, &["192.0.2.1:7"]).await?;
    site.renew(ns, "till", Some("agent-a")).await?;
    let ready = objects
        .until(Kind::CONNECTOR, ns, "till", "Ready", |o| {
            is_true(o, "Ready") && o["status"]["allowedDialers"] == json!([id(1)])
        })
        .await?;
    assert_eq!(
        ready["status"]["connectionDetails"]["publicKey"]["id"],
        id(7)
    );

    // The agent writes its part again: ours stays, and ours leaves its alone.
    site.report(ns, "till", 7, &["192.0.2.2:7"]).await?;
    site.dialer("adit-dialer-b", &id(2)).await?;
    let both = objects
        .until(Kind::CONNECTOR, ns, "till", "both dialers", |o| {
            o["status"]["allowedDialers"] == json!([id(1), id(2)])
        })
        .await?;
    let status = &both["status"];
    let addresses = &status["connectionDetails"]["publicKey"]["addresses"];
    assert_eq!(addresses[0]["address"], "192.0.2.2");
    assert_eq!(status["leaseRef"]["name"], "till");
    assert_eq!(status["capabilities"][0]["type"], "ConnectTCP");
    assert!(is_true(&both, "Ready") && is_true(&both, "Accepted"));
    let fields = both["metadata"]["managedFields"]
        .as_array()
        .expect("managers");
    for manager in ["adit-reconciler", "adit-connector"] {
        assert!(
            fields
                .iter()
                .any(|f| f["manager"] == manager && f["subresource"] == "status"),
            "{manager} in {fields:?}"
        );
    }
    // Who cannot be reached is not ready, though alive.
    let wrong = json!({"type": "PublicKey", "publicKey": {"id": id(7), "homeRelay": ""}});
    site.report_details(ns, "till", wrong).await?;
    let unready = objects
        .until(Kind::CONNECTOR, ns, "till", "not Ready", |o| {
            !is_true(o, "Ready")
        })
        .await?;
    assert!(
        message(&unready, "Ready").contains("neither a relay"),
        "{unready:#}"
    );
    site.end().await
}

async fn a_heartbeat_is_no_write_and_a_silent_agent_is_not_ready() -> Result<()> {
    let site = Site::with("heartbeat", json!({"lease-duration": "5s"})).await?;
    let (objects, ns) = (&site.objects, &site.namespace);
    site.connector(ns, "till").await?;
    objects
        .until(Kind::LEASE, ns, "till", "Lease", |o| {
            o["spec"]["leaseDurationSeconds"] == 5
        })
        .await?;
    site.report(ns, "till", 7, &["192.0.2.1:7"]).await?;
    site.renew(ns, "till", Some("agent-a")).await?;
    let ready = |o: &Value| is_true(o, "Ready");
    let was = objects
        .until(Kind::CONNECTOR, ns, "till", "Ready", ready)
        .await?;
    // The audit log is a moment behind: what made it Ready is in it when a later
    // write is.
    site.renew(ns, "till", Some("agent-a")).await?;
    let mark = site.plane.mark();
    for _ in 0..8 {
        site.renew(ns, "till", Some("agent-a")).await?;
    }
    // The last renewal is the one that counts: from it on, half a duration of
    // lateness is forgiven, and then the agent is missed.
    let last = std::time::Instant::now();
    let away = objects
        .until(Kind::CONNECTOR, ns, "till", "not Ready", |o| {
            !is_true(o, "Ready")
        })
        .await?;
    assert!(last.elapsed().as_secs_f64() > 7.0, "{:?}", last.elapsed());
    assert!(message(&away, "Ready").contains("has expired"), "{away:#}");
    let writes = site.plane.writes_since(mark)?;
    let of_connector: Vec<_> = writes
        .iter()
        .filter(|w| w.namespace == *ns && w.resource == "connectors")
        .collect();
    assert_eq!(of_connector.len(), 1, "{of_connector:?}");

    site.renew(ns, "till", Some("agent-a")).await?;
    let again = objects
        .until(Kind::CONNECTOR, ns, "till", "Ready", ready)
        .await?;
    let since = |o: &Value| condition(o, "Ready").map(|c| c["lastTransitionTime"].clone());
    assert_ne!(since(&was), since(&again));
    // An agent that ends says so, and is missed at once.
    let released = json!({"spec": {"holderIdentity": null, "renewTime": null}});
    objects
        .merge(Kind::LEASE, ns, "till", None, &released)
        .await?;
    let ended = objects
        .until(Kind::CONNECTOR, ns, "till", "not Ready", |o| {
            !is_true(o, "Ready")
        })
        .await?;
    assert!(message(&ended, "Ready").contains("released"), "{ended:#}");
    site.end().await
}

async fn what_a_connector_owns_goes_with_it() -> Result<()> {
    let site = Site::new("owned").await?;
    let (objects, ns) = (&site.objects, &site.namespace);
    site.connector(ns, "till").await?;
    site.advertisement(ns, "till-services", "till").await?;
    let owned = |o: &Value| o["metadata"]["ownerReferences"][0]["name"] == "till";
    objects
        .until(Kind::LEASE, ns, "till", "owner", owned)
        .await?;
    objects
        .until(
            Kind::CONNECTOR_ADVERTISEMENT,
            ns,
            "till-services",
            "owner",
            owned,
        )
        .await?;
    objects.delete(Kind::CONNECTOR, ns, "till").await?;
    objects.until_gone(Kind::LEASE, ns, "till").await?;
    objects
        .until_gone(Kind::CONNECTOR_ADVERTISEMENT, ns, "till-services")
        .await?;
    // One of the same name gets a Lease of its own.
    site.connector(ns, "till").await?;
    let new = objects
        .until(Kind::CONNECTOR, ns, "till", "leaseRef", |o| {
            o["status"]["leaseRef"]["name"] == "till"
        })
        .await?;
    let lease = objects
        .get(Kind::LEASE, ns, "till")
        .await?
        .expect("a Lease");
    assert_eq!(
        lease["metadata"]["ownerReferences"][0]["uid"],
        new["metadata"]["uid"]
    );
    objects.delete_namespace(ns).await?;
    site.end().await
}

async fn a_connector_of_another_controller_is_left_alone() -> Result<()> {
    let site = Site::new("foreign").await?;
    let (objects, ns) = (&site.objects, &site.namespace);
    let class = json!({
        "apiVersion": "networking.datumapis.com/v1alpha1", "kind": "ConnectorClass",
        "metadata": {"name": "foreign-class"}, "spec": {"controllerName": "example.com/other"},
    });
    objects.apply("", class).await?;
    objects
        .apply(ns, site::connector("theirs", "foreign-class"))
        .await?;
    site.advertisement(ns, "their-services", "theirs").await?;
    // Ours comes later and is seen to, so theirs was seen too.
    site.connector(ns, "ours").await?;
    site.advertisement(ns, "our-services", "ours").await?;
    let accepted = |o: &Value| is_true(o, "Accepted");
    objects
        .until(Kind::CONNECTOR, ns, "ours", "Accepted", accepted)
        .await?;
    objects
        .until(
            Kind::CONNECTOR_ADVERTISEMENT,
            ns,
            "our-services",
            "Accepted",
            accepted,
        )
        .await?;
    assert_eq!(objects.get(Kind::LEASE, ns, "theirs").await?, None);
    for (kind, name) in [
        (Kind::CONNECTOR, "theirs"),
        (Kind::CONNECTOR_ADVERTISEMENT, "their-services"),
    ] {
        let object = objects.get(kind, ns, name).await?.expect("it is there");
        let fields = object["metadata"]["managedFields"].to_string();
        assert!(!fields.contains("adit-reconciler"), "{fields}");
    }
    site.end().await
}

async fn a_class_that_comes_later_is_enough() -> Result<()> {
    let site = Site::new("late-class").await?;
    let (objects, ns) = (&site.objects, &site.namespace);
    objects
        .apply(ns, site::connector("till", "late-class"))
        .await?;
    let refused = objects
        .until(Kind::CONNECTOR, ns, "till", "a verdict", |o| {
            reason(o, "Accepted") == "ConnectorClassNotFound"
        })
        .await?;
    assert!(
        message(&refused, "Accepted").contains("late-class"),
        "{refused:#}"
    );
    assert_eq!(refused["status"]["leaseRef"], Value::Null);
    until_told(
        objects,
        ns,
        ("till", "ConnectorClassNotFound"),
        "late-class",
    )
    .await?;
    let class = json!({
        "apiVersion": "networking.datumapis.com/v1alpha1", "kind": "ConnectorClass",
        "metadata": {"name": "late-class"},
        "spec": {"controllerName": "networking.datumapis.com/iroh-quic-tunnel"},
    });
    objects.apply("", class).await?;
    objects
        .until(Kind::CONNECTOR, ns, "till", "leaseRef", |o| {
            is_true(o, "Accepted") && o["status"]["leaseRef"]["name"] == "till"
        })
        .await?;
    objects
        .delete(Kind::CONNECTOR_CLASS, "", "late-class")
        .await?;
    objects
        .until(Kind::CONNECTOR, ns, "till", "not Accepted", |o| {
            reason(o, "Accepted") == "ConnectorClassNotFound"
        })
        .await?;
    site.end().await
}

async fn an_advertisement_is_accepted_when_its_connector_is_there() -> Result<()> {
    let site = Site::new("advertised").await?;
    let (objects, ns) = (&site.objects, &site.namespace);
    site.advertisement(ns, "services", "till").await?;
    let kind = Kind::CONNECTOR_ADVERTISEMENT;
    let refused = objects
        .until(kind, ns, "services", "a verdict", |o| {
            reason(o, "Accepted") == "ConnectorNotFound"
        })
        .await?;
    assert!(
        message(&refused, "Accepted").contains("till"),
        "{refused:#}"
    );
    site.connector(ns, "till").await?;
    let accepted = objects
        .until(kind, ns, "services", "Accepted", |o| is_true(o, "Accepted"))
        .await?;
    let owner = &accepted["metadata"]["ownerReferences"][0];
    assert_eq!(
        (&owner["kind"], &owner["name"]),
        (&json!("Connector"), &json!("till"))
    );
    // The agent's own spec is untouched.
    assert_eq!(
        accepted["spec"]["layer4"][0]["services"][0]["address"],
        "127.0.0.1"
    );
    site.end().await
}

async fn dialers_come_and_go_in_every_connector() -> Result<()> {
    let site = Site::new("dialers").await?;
    let (objects, ns) = (&site.objects, &site.namespace);
    for name in ["a", "b"] {
        site.connector(ns, name).await?;
    }
    site.dialer("good", &id(1)).await?;
    site.dialer("hostile", "any").await?;
    // A Lease of a dialer counts only where dialers are trusted.
    site.dialer_in(ns, "stranger", &id(9)).await?;
    let allowed = |wanted: Value| move |o: &Value| o["status"]["allowedDialers"] == wanted;
    for name in ["a", "b"] {
        objects
            .until(
                Kind::CONNECTOR,
                ns,
                name,
                "one dialer",
                allowed(json!([id(1)])),
            )
            .await?;
    }
    let mark = site.plane.mark();
    site.dialer("other", &id(2)).await?;
    for name in ["a", "b"] {
        objects
            .until(
                Kind::CONNECTOR,
                ns,
                name,
                "both",
                allowed(json!([id(1), id(2)])),
            )
            .await?;
    }
    objects.delete(Kind::LEASE, &site.dialers, "good").await?;
    for name in ["a", "b"] {
        objects
            .until(
                Kind::CONNECTOR,
                ns,
                name,
                "the other",
                allowed(json!([id(2)])),
            )
            .await?;
    }
    // One write for each connector and each change of the set.
    let writes = site.plane.writes_since(mark)?;
    let count = writes
        .iter()
        .filter(|w| w.namespace == *ns && w.resource == "connectors")
        .count();
    assert_eq!(count, 4, "{writes:?}");
    site.end().await
}

async fn a_lease_of_somebody_else_is_not_taken() -> Result<()> {
    let site = Site::new("taken").await?;
    let (objects, ns) = (&site.objects, &site.namespace);
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": "till"},
        "spec": {"holderIdentity": "somebody", "leaseDurationSeconds": 600},
    });
    let before = objects.apply(ns, lease).await?;
    site.connector(ns, "till").await?;
    let seen = objects
        .until(Kind::CONNECTOR, ns, "till", "a verdict", |o| {
            !reason(o, "Ready").is_empty()
        })
        .await?;
    assert!(
        message(&seen, "Ready").contains("not this connector's"),
        "{seen:#}"
    );
    let after = objects
        .get(Kind::LEASE, ns, "till")
        .await?
        .expect("the Lease");
    assert_eq!(
        before["metadata"]["resourceVersion"],
        after["metadata"]["resourceVersion"]
    );
    site.end().await
}

async fn a_restarted_reconciler_writes_nothing() -> Result<()> {
    let mut site = Site::new("restart").await?;
    let ns = site.namespace.clone();
    site.dialer("adit-dialer-a", &id(1)).await?;
    site.connector(&ns, "till").await?;
    site.advertisement(&ns, "services", "till").await?;
    site.report(&ns, "till", 7, &["192.0.2.1:7"]).await?;
    // An agent whose clock is an hour behind.
    site.objects
        .until(Kind::LEASE, &ns, "till", "Lease", |_| true)
        .await?;
    site.renew_at(&ns, "till", Some("agent-a"), -3600).await?;
    let first = site
        .objects
        .until(Kind::CONNECTOR, &ns, "till", "Ready", |o| {
            is_true(o, "Ready") && o["status"]["allowedDialers"] == json!([id(1)])
        })
        .await?;
    site.objects
        .until(
            Kind::CONNECTOR_ADVERTISEMENT,
            &ns,
            "services",
            "Accepted",
            |o| is_true(o, "Accepted"),
        )
        .await?;
    site.stop().await?;
    let mark = site.plane.mark();
    site.start(json!({})).await?;
    // It is at work when it sees to something new.
    site.connector(&ns, "other").await?;
    site.objects
        .until(Kind::CONNECTOR, &ns, "other", "Accepted", |o| {
            is_true(o, "Accepted")
        })
        .await?;
    let writes = site.plane.writes_since(mark)?;
    let touched: Vec<_> = writes
        .iter()
        .filter(|w| w.namespace == ns && w.name != "other")
        .collect();
    assert!(touched.is_empty(), "{touched:?}");
    let now = site.objects.get(Kind::CONNECTOR, &ns, "till").await?;
    let version = |o: &Value| o["metadata"]["resourceVersion"].clone();
    assert_eq!(now.as_ref().map(version), Some(version(&first)));
    site.end().await
}
