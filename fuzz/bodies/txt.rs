//! What must hold for whatever DNS answers when it is asked where a connector
//! is: shared by the fuzz target and by `dialer/tests/fuzz_seeded.rs`.
//!
//! An input is read twice: as a whole DNS message, and as texts of records with
//! line breaks between them (most bytes are no message). Of both:
//! * nothing panics, and no more addresses come out than are used;
//! * a relay's URL has a scheme that a relay has, and a host;
//! * what was read, written as records, reads back as the same;
//! * the order of the records does not matter while all are used;
//! * a record that says nothing known changes nothing;
//! * what goes to the log is one line.

use std::time::Duration;

use adit_dialer::fuzzing::{Addresses, MAX_ADDRESSES, MAX_RECORDS, read_answer};
use hickory_resolver::proto::{
    op::Message,
    rr::{Name, RData, Record, rdata::TXT},
};

/// Any bytes.
pub fn txt(data: &[u8]) {
    if let Ok(message) = Message::from_vec(data) {
        answer(&message.answers);
        // What can be read can be sent on, and says the same.
        if let Ok(written) = message.to_vec() {
            let again = Message::from_vec(&written).expect("what was written can be read");
            assert_eq!(read_answer(&message.answers), read_answer(&again.answers));
        }
    }
    let records: Vec<_> = data.split(|b| *b == b'\n').map(record).collect();
    answer(&records);
}

fn answer(records: &[Record]) {
    let (addresses, ttl) = read_answer(records);
    assert!(ttl <= Duration::from_secs(30), "{ttl:?}");
    let texts = texts(&addresses);
    assert!(texts.len() <= MAX_ADDRESSES);
    for text in &texts {
        if let Some(url) = text.strip_prefix("relay=") {
            assert!(
                url.starts_with("http://") || url.starts_with("https://"),
                "{url}"
            );
            let host = url.split("://").nth(1).unwrap_or_default();
            assert!(!host.is_empty() && !host.starts_with('/'), "{url}");
        }
    }
    let shown = addresses.to_string();
    assert!(!shown.contains(|c: char| c.is_control()), "{shown:?}");

    let written: Vec<_> = texts.iter().map(|t| record(t.as_bytes())).collect();
    assert_eq!(read_answer(&written).0, addresses);

    if records.len() < MAX_RECORDS && texts.len() < MAX_ADDRESSES {
        let mut turned = records.to_vec();
        turned.reverse();
        turned.push(record(b"ver=2 addr=192.0.2.1:7"));
        assert_eq!(read_answer(&turned).0, addresses);
    }
}

/// One attribute each, as they are published.
fn texts(addresses: &Addresses) -> Vec<String> {
    let shown = addresses.to_string();
    let one = |text: &str| match text.contains("://") {
        true => format!("relay={text}"),
        false => format!("addr={text}"),
    };
    shown
        .split(", ")
        .filter(|t| !t.is_empty())
        .map(one)
        .collect()
}

/// A text in strings of at most 255 bytes (RFC 1035 section 3.3.14).
fn record(text: &[u8]) -> Record {
    let strings = text.chunks(255).collect();
    Record::from_rdata(Name::root(), 5, RData::TXT(TXT::from_bytes(strings)))
}
