//! Where a connection would go, by a connect that only writes it down: a test
//! that fails sends nothing anywhere.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex},
};

use super::*;

/// Metadata, this machine and its neighbourhood, in every form of an address.
const FORBIDDEN: [&str; 24] = [
    "127.0.0.1",
    "127.8.9.10",
    "::1",
    "0.0.0.0",
    "0.1.2.3",
    "::",
    "169.254.169.254",
    "169.254.170.2",
    "168.63.129.16",
    "100.100.100.200",
    "fd00:ec2::254",
    "fe80::1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::127.0.0.1",
    "::169.254.169.254",
    "64:ff9b::127.0.0.1",
    "64:ff9b::169.254.169.254",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    "224.0.0.1",
    "ff02::1",
    "240.0.0.1",
    "255.255.255.255",
];

/// A resolver that gives these answers in turn, the last one for ever.
fn answers(answers: &[&[&str]]) -> Resolver {
    let answers: Vec<Vec<IpAddr>> = answers
        .iter()
        .map(|answer| {
            answer
                .iter()
                .map(|ip| ip.parse().expect("an address"))
                .collect()
        })
        .collect();
    let asked = Arc::new(Mutex::new(0));
    Resolver::new(move |_, port| {
        let mut asked = asked.lock().expect("not poisoned");
        let answer = answers[(*asked).min(answers.len() - 1)].clone();
        *asked += 1;
        async move { Ok(answer.iter().map(|ip| SocketAddr::new(*ip, port)).collect()) }
    })
}

/// What a request led to: the addresses that would have been connected to, and
/// the class of the refusal. `None` when the list does not grant it at all.
async fn led(
    list: &Targets,
    resolver: &Resolver,
    request: &str,
) -> Option<(Vec<String>, ErrorClass)> {
    let grant = list.grant(&request.parse().ok()?)?;
    let record = Mutex::new(Vec::new());
    let connect = |addr: SocketAddr| {
        record
            .lock()
            .expect("not poisoned")
            .push(addr.ip().to_string());
        async { Err(io::Error::from(io::ErrorKind::ConnectionRefused)) }
    };
    let deadline = Instant::now() + Duration::from_secs(10);
    let refused = reach_by(connect, &grant, list, resolver, deadline).await;
    let class = refused.expect_err("nothing was connected").class();
    Some((record.into_inner().expect("not poisoned"), class))
}

fn wildcards() -> Targets {
    Targets::parse(&["*:80", "*.corp.example:80"]).expect("valid")
}

const NOWHERE: (Vec<String>, ErrorClass) = (Vec::new(), ErrorClass::Denied);

#[tokio::test]
async fn a_name_under_a_wildcard_leads_to_no_forbidden_address() {
    let list = wildcards();
    for ip in FORBIDDEN {
        for name in [
            "app.corp.example:80",
            "evil.example:80",
            "localhost:80",
            "LOCALHOST.:80",
        ] {
            let led = led(&list, &answers(&[&[ip]]), name).await;
            assert_eq!(led, Some(NOWHERE), "{name} at {ip}");
        }
    }
    let led = led(&list, &answers(&[&FORBIDDEN[..16]]), "evil.example:80").await;
    assert_eq!(led, Some(NOWHERE), "all at once");
}

#[tokio::test]
async fn a_literal_under_a_wildcard_leads_to_no_forbidden_address() {
    let list = wildcards();
    for ip in FORBIDDEN {
        let ip: IpAddr = ip.parse().expect("an address");
        let request = SocketAddr::new(ip, 80).to_string();
        let led = led(&list, &answers(&[&[]]), &request).await;
        assert_eq!(led, Some(NOWHERE), "{request}");
    }
}

#[tokio::test]
async fn odd_spellings_of_an_address_are_no_requests() {
    let list = wildcards();
    for request in [
        "0177.0.0.1:80",
        "017700000001:80",
        "0x7f.0.0.1:80",
        "0x7f000001:80",
        "2130706433:80",
        "2852039166:80",
        "127.1:80",
        "127.0.1:80",
        "127.0.0.1.:80",
        "0:80",
        "%31%32%37.0.0.1:80",
        "127%2e0%2e0%2e1:80",
        "[fe80::1%25eth0]:80",
        "[::1%25lo]:80",
        "user@127.0.0.1:80",
        "127.0.0.1\\evil.example:80",
        "local\u{ad}host:80",
        "\u{2460}27.0.0.1:80",
    ] {
        let led = led(&list, &answers(&[&["10.1.2.3"]]), request).await;
        assert_eq!(led, None, "{request}");
    }
}

#[tokio::test]
async fn of_several_addresses_only_those_that_are_allowed_are_tried() {
    let mixed = answers(&[&["169.254.169.254", "10.1.2.3", "::1", "fd12::1", "127.0.0.1"]]);
    let (mut tried, class) = led(&wildcards(), &mixed, "app.corp.example:80")
        .await
        .expect("granted");
    tried.sort();
    assert_eq!(
        (tried, class),
        (
            vec!["10.1.2.3".into(), "fd12::1".into()],
            ErrorClass::Refused
        )
    );
}

#[tokio::test]
async fn a_name_that_is_bound_anew_between_look_ups_is_screened_each_time() {
    let rebinding = answers(&[&["10.1.2.3"], &["169.254.169.254"], &["::ffff:127.0.0.1"]]);
    let list = wildcards();
    let first = led(&list, &rebinding, "app.corp.example:80").await;
    // The address that was screened is the one that is tried: no second look-up.
    assert_eq!(first, Some((vec!["10.1.2.3".into()], ErrorClass::Refused)));
    for _ in 0..2 {
        let again = led(&list, &rebinding, "app.corp.example:80").await;
        assert_eq!(again, Some(NOWHERE));
    }
}

#[test]
fn families_take_turns() {
    let parse = |text: &str| text.parse::<SocketAddr>().expect("an address");
    let mut addrs = vec![
        parse("[::1]:1"),
        parse("[::2]:1"),
        parse("[::3]:1"),
        parse("1.1.1.1:1"),
    ];
    interleave(&mut addrs);
    assert_eq!(
        addrs,
        [
            parse("[::1]:1"),
            parse("1.1.1.1:1"),
            parse("[::2]:1"),
            parse("[::3]:1")
        ]
    );
}
