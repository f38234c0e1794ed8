use std::net::SocketAddr;

use super::*;

fn identity() -> Identity {
    Identity {
        name: "shop".into(),
        class: "datum-connect".into(),
        labels: BTreeMap::from([("site".into(), "a".into())]),
        device_name: "shop.example".into(),
        device_os: "linux".into(),
    }
}

fn details(port: u16) -> Details {
    Details {
        id: "ab".repeat(32),
        relay: Some("https://relay.example/".into()),
        addresses: vec![SocketAddr::from(([192, 0, 2, 1], port))],
    }
}

fn seen(object: Value) -> Seen {
    let mut object = object;
    object["metadata"]["uid"] = json!("u1");
    object["metadata"]["generation"] = json!(3);
    Seen(serde_json::from_value(object).expect("an object"))
}

/// The Connector as a server has it after both writes.
fn stored(status: Value) -> Seen {
    let mut object = identity().connector();
    object["status"] = status;
    seen(object)
}

#[test]
fn what_was_written_is_seen_as_written() {
    let empty = stored(json!({}));
    assert!(identity().is_written(&empty));
    let status = identity().status(&empty, &details(7), None, "2026-01-01T00:00:00Z");
    assert!(!empty.has_status(&status));
    let full = stored(status.clone());
    let again = identity().status(&full, &details(7), None, "2027-01-01T00:00:00Z");
    assert_eq!(again, status, "a time changes only with its condition");
    assert!(full.has_status(&again));
}

#[test]
fn other_writers_parts_do_not_count_as_differences() {
    let status = identity().status(&stored(json!({})), &details(7), None, "t");
    let mut shared = status.clone();
    shared["conditions"] = json!([{"type": "Ready", "status": "True"}]);
    shared["allowedDialers"] = json!(["x"]);
    shared["leaseRef"] = json!({"name": "shop"});
    shared["capabilities"]
        .as_array_mut()
        .expect("a list")
        .insert(0, json!({"type": "ConnectUDP"}));
    assert!(stored(shared).has_status(&status));
}

#[test]
fn another_address_relay_or_device_is_a_difference() {
    let status = identity().status(&stored(json!({})), &details(7), None, "t");
    let full = stored(status);
    let moved = identity().status(&full, &details(8), None, "t");
    assert!(!full.has_status(&moved));
    let alone = Details {
        relay: None,
        ..details(7)
    };
    let alone = identity().status(&full, &alone, None, "t");
    assert!(!full.has_status(&alone));
    let mut renamed = identity();
    renamed.device_name = "other".into();
    assert!(!full.has_status(&renamed.status(&full, &details(7), None, "t")));
}

#[test]
fn a_capability_that_an_administrator_disables_is_denied_and_stays_so_when_applied() {
    let mut object = identity().connector();
    object["spec"]["capabilities"][0]["connectTCP"] = json!({"disabled": true});
    let disabled = seen(object);
    assert!(identity().is_written(&disabled));
    let status = identity().status(&disabled, &details(7), None, "t");
    let condition = &status["capabilities"][0]["conditions"][0];
    assert_eq!(
        (&condition["status"], &condition["reason"]),
        (&json!("False"), &json!("Disabled"))
    );
    assert!(identity().connector()["spec"]["capabilities"][0]["connectTCP"].is_null());
}

#[test]
fn a_conflict_is_said_while_it_lasts_and_taken_back() {
    let empty = stored(json!({}));
    let status = identity().status(&empty, &details(7), Some("laptop-1"), "t");
    assert_eq!(status["conditions"][0]["type"], CONFLICT);
    let full = stored(status);
    let over = identity().status(&full, &details(7), None, "t");
    assert!(!full.has_status(&over), "the condition must go");
}

#[test]
fn dialers_count_once_the_controller_has_spoken() {
    let keys: Vec<_> = (1..=3u8)
        .map(|i| iroh::SecretKey::from_bytes(&[i; 32]).public().to_string())
        .collect();
    let accepted = json!([{"type": "Accepted", "status": "True"}]);
    let pending = json!([{"type": "Accepted", "status": "Unknown"}]);
    let dialers = |status: Value| {
        stored(status)
            .dialers()
            .map(|(ids, ignored)| (ids.len(), ignored))
    };
    assert_eq!(dialers(json!({})), None);
    assert_eq!(dialers(json!({"conditions": pending})), None);
    assert_eq!(dialers(json!({"conditions": accepted})), Some((0, 0)));
    assert_eq!(dialers(json!({"allowedDialers": keys})), Some((3, 0)));
    let hostile = json!({"allowedDialers": ["", "x", "00", 7, {}, keys[0], "f".repeat(1 << 20)]});
    assert_eq!(dialers(hostile), Some((1, 6)));
}

fn targets(entries: &[String]) -> Targets {
    Targets::parse(entries).expect("valid targets")
}

#[test]
fn targets_become_an_advertisement_of_what_may_be_asked_for() {
    let entries = [
        "127.0.0.1:8080",
        "[::1]:22",
        "*.corp.example:443",
        "*.corp.example:80",
        "*:9000",
        "app.internal:80=unix:/run/app.sock",
    ];
    let (object, left_out) = identity().advertisement(&targets(&entries.map(str::to_owned)));
    assert!(left_out.is_empty(), "{left_out:?}");
    let services = object["spec"]["layer4"][0]["services"]
        .as_array()
        .expect("services");
    let shown: Vec<_> = services
        .iter()
        .map(|s| {
            let ports = s["ports"].as_array().expect("ports").iter();
            let ports: Vec<_> = ports.map(|p| p["port"].to_string()).collect();
            format!(
                "{} {}",
                s["address"].as_str().expect("text"),
                ports.join(",")
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            "* 9000",
            "*.corp.example 80,443",
            "127.0.0.1 8080",
            "::1 22",
            "app.internal 80"
        ]
    );
    let typed: adit_api::networking::ConnectorAdvertisement =
        serde_json::from_value(object).expect("of the kind");
    assert_eq!(validate::advertisement(&typed), []);
}

#[test]
fn an_advertisement_keeps_the_bounds_of_the_api_and_says_what_is_left_out() {
    let many: Vec<_> = (0..300)
        .map(|i| format!("10.0.{}.{}:80", i / 100, i % 100))
        .collect();
    let (object, left_out) = identity().advertisement(&targets(&many));
    assert_eq!(left_out.len(), 300 - 256);
    let typed: adit_api::networking::ConnectorAdvertisement =
        serde_json::from_value(object).expect("of the kind");
    assert_eq!(validate::advertisement(&typed), []);
    let ports: Vec<_> = (1..=40).map(|port| format!("a.example:{port}")).collect();
    let (object, left_out) = identity().advertisement(&targets(&ports));
    assert!(left_out.is_empty());
    let services = object["spec"]["layer4"][0]["services"]
        .as_array()
        .expect("services");
    assert_eq!(services.len(), 3, "16 + 16 + 8 ports of one address");
}

#[test]
fn no_targets_are_an_empty_advertisement() {
    let (object, _) = identity().advertisement(&Targets::default());
    assert_eq!(object["spec"], json!({"connectorRef": {"name": "shop"}}));
}
