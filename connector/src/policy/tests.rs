//! The two lists against the spellings that people, and attackers, write.

use super::*;

fn targets(entries: &[&str]) -> Targets {
    Targets::parse(entries).expect("valid entries")
}

/// What a dialer asks for goes through the parser first: what it refuses
/// never meets the list.
fn asks(list: &Targets, request: &str) -> Option<Grant> {
    list.grant(&request.parse().ok()?)
}

#[test]
fn only_what_is_advertised_is_granted() {
    let list = targets(&["127.0.0.1:8080", "db.internal:5432"]);
    for request in ["127.0.0.1:8080", "db.internal:5432"] {
        let grant = asks(&list, request).expect(request);
        assert_eq!(grant.service.to_string(), request);
        assert!(!grant.screened);
    }
    for request in [
        "127.0.0.1:8081",
        "127.0.0.2:8080",
        "db.internal:8080",
        "localhost:8080",
        "xdb.internal:5432",
        "db.internal.evil:5432",
        "[::1]:8080",
    ] {
        assert_eq!(asks(&list, request), None, "{request}");
    }
}

#[test]
fn no_spelling_of_an_address_slips_by() {
    let list = targets(&["192.0.2.7:80", "*.corp.example:80"]);
    // Octal, hex, short and whole-number forms of addresses are no requests.
    for request in [
        "0300.0.2.7:80",
        "0xc0.0.2.7:80",
        "192.519:80",
        "3221225991:80",
        "0177.0.0.1:80",
        "2130706433:80",
        "127.1:80",
        "127.0.0.1.:80",
        "[::ffff:127.0.0.1]:80",
        "[::ffff:7f00:1]:80",
        "[::]:80",
        "0.0.0.0:80",
    ] {
        assert_eq!(asks(&list, request), None, "{request}");
    }
    // These are the very address or name, written differently.
    for request in [
        "[::ffff:192.0.2.7]:80",
        "[::ffff:c000:207]:80",
        "A.Corp.Example.:80",
        "a.b.corp.example:80",
    ] {
        assert!(asks(&list, request).is_some(), "{request}");
    }
    for request in ["corp.example:80", "acorp.example:80", ".corp.example:80"] {
        assert_eq!(asks(&list, request), None, "{request}");
    }
}

#[test]
fn the_most_specific_entry_decides_whatever_the_order() {
    let mut entries = vec![
        "*:80",
        "*.example:80=127.0.0.1:1",
        "*.shop.example:80=127.0.0.1:2",
        "a.shop.example:80=unix:/run/a.sock",
    ];
    for _ in 0..entries.len() {
        entries.rotate_left(1);
        let list = targets(&entries);
        let to = |request| asks(&list, request).map(|grant| grant.service.to_string());
        assert_eq!(to("a.shop.example:80").as_deref(), Some("unix:/run/a.sock"));
        assert_eq!(to("b.shop.example:80").as_deref(), Some("127.0.0.1:2"));
        assert_eq!(to("b.example:80").as_deref(), Some("127.0.0.1:1"));
        assert_eq!(to("b.test:80").as_deref(), Some("b.test:80"));
    }
}

#[test]
fn a_wildcard_does_not_lead_back_into_this_machine() {
    let list = targets(&["*:80", "127.0.0.2:80"]);
    assert!(asks(&list, "any.example:80").expect("granted").screened);
    for addr in ["127.0.0.1:80", "169.254.169.254:80", "[::1]:80"] {
        assert!(!list.reaches(addr.parse().expect("valid")), "{addr}");
    }
    for addr in ["10.1.2.3:80", "127.0.0.2:80", "[fd12::1]:80"] {
        assert!(list.reaches(addr.parse().expect("valid")), "{addr}");
    }
    // The literal entry is for its own port alone.
    assert!(!list.reaches("127.0.0.2:81".parse().expect("valid")));
}

#[test]
fn an_entry_that_cannot_be_meant_is_refused_with_its_reason() {
    let why = |entry: &str| {
        let error = Targets::parse(&[entry]).expect_err(entry);
        assert_eq!(error.entry(), Some(entry));
        error.to_string()
    };
    for udp in ["udp://127.0.0.1:53", "UDP:a:53", "dns.internal:53/udp"] {
        assert!(why(udp).contains("UDP is not carried yet"), "{udp}");
    }
    for wildcard in ["*foo.example:80", "a.*.example:80", "**:80", "*a:80"] {
        assert!(
            matches!(
                Targets::parse(&[wildcard]),
                Err(PolicyError::Wildcard(_) | PolicyError::Request { .. })
            ),
            "{wildcard}"
        );
    }
    for nowhere in ["0.0.0.0:80", "[::]:80", "a:80=0.0.0.0:80", "224.0.0.1:80"] {
        assert!(why(nowhere).contains("127.0.0.1"), "{nowhere}");
    }
    let long = format!("a:80=unix:/{}", "x".repeat(107));
    for socket in ["a:80=unix:run/a.sock", "a:80=unix:", "a:80=unix:@", &long] {
        assert!(why(socket).contains("107"), "{socket}");
    }
    for request in [
        "a",
        "a:",
        "a:0",
        "*:",
        "0x7f.1:80",
        "http://a:80",
        "",
        "a:80=",
    ] {
        why(request);
    }
    assert_eq!(
        Targets::parse(&["A.example:80", "a.example.:80=127.0.0.1:1"]),
        Err(PolicyError::Twice("a.example.:80=127.0.0.1:1".into()))
    );
}

#[test]
fn a_key_is_read_in_both_forms_and_a_wrong_one_is_refused() {
    let key = iroh::SecretKey::from_bytes(&[7; 32]).public();
    let id = EndpointId::from_bytes(*key.as_bytes());
    for text in [id.to_string(), id.to_z32(), id.to_string().to_uppercase()] {
        assert!(Allow::parse(&[text]).expect("a key").contains(&id));
    }
    let other = EndpointId::from_bytes([9; 32]);
    assert!(
        !Allow::parse(&[id.to_string()])
            .expect("a key")
            .contains(&other)
    );
    assert!(!Allow::parse::<&str>(&[]).expect("nobody").contains(&id));
    assert!(Allow::parse(&["any"]).expect("everybody").contains(&other));
    assert_eq!(
        Allow::parse(&["any".to_owned(), id.to_string()]),
        Err(PolicyError::AnyAndKeys)
    );
    assert!(matches!(
        Allow::parse(&["nonsense"]),
        Err(PolicyError::Key { .. })
    ));
    // y = 2 is no point of edwards25519 (RFC 8032, section 5.1.3).
    let off = format!("02{}", "0".repeat(62));
    assert_eq!(Allow::parse(&[&off]), Err(PolicyError::Point(off.clone())));
}
