//! HTTP/2 requests that would be ambiguous, or two, once they are HTTP/1
//! (RFC 9113, sections 8.2 and 8.3; RFC 9110, section 8.6).

use anyhow::Result;
use futures_util::future::try_join_all;

use super::{
    frames::{self, Field},
    judge::{
        Case, Ground,
        Must::{self, Arrive, BeCut, BeOne, BeRefused},
        Sending, exchange, numbered,
    },
};
use crate::scenario::Context;

/// A request of its own, which must never become one.
const SMUGGLED: &str = "GET SMUGGLED HTTP/1.1\r\nHost: raw.test\r\n\r\n";

pub(super) async fn table(context: &Context, sending: Sending) -> Result<String> {
    let ground = Ground::start(&context.version).await?;
    let addr = ground.stage.addr();
    let cases = cases();
    let exchanges = cases
        .iter()
        .map(|case| exchange(addr, &case.bytes, sending));
    let answers = try_join_all(exchanges).await?;
    let answers: Vec<_> = answers
        .iter()
        .map(|answer| frames::outcome(answer))
        .collect();
    ground.settled().await?;
    ground.verdict(&cases, &answers)
}

/// Makes the frames of each case, with its number in its paths.
#[derive(Default)]
struct Table(Vec<Case>);

impl Table {
    /// A request with these fields beside the usual ones, and this body.
    fn add(&mut self, what: &'static str, must: Must, fields: &[(&str, &str)], body: Option<&str>) {
        let mut all = vec![
            (":method", if body.is_some() { "POST" } else { "GET" }),
            (":scheme", "http"),
            (":path", "CASE"),
            (":authority", "raw.test"),
        ];
        for (name, value) in fields {
            // A pseudo-field takes the place of the usual one, `+` adds one.
            match all.iter_mut().find(|(usual, _)| usual == name) {
                Some(usual) => usual.1 = value,
                None => all.push((name.trim_start_matches('+'), value)),
            }
        }
        self.exactly(what, must, &all, body);
    }

    /// A request with these fields and no others.
    fn exactly(
        &mut self,
        what: &'static str,
        must: Must,
        fields: &[(&str, &str)],
        body: Option<&str>,
    ) {
        let n = self.0.len();
        let fields: Vec<_> = fields
            .iter()
            .map(|(name, value)| (name.as_bytes().to_vec(), numbered(value.as_bytes(), n)))
            .map(|(name, value)| (numbered(&name, n), value))
            .collect();
        let fields: Vec<Field<'_>> = fields.iter().map(|(n, v)| (&n[..], &v[..])).collect();
        let mut bytes = frames::preface();
        bytes.extend(frames::headers(&fields, body.is_none()));
        if let Some(body) = body {
            bytes.extend(frames::data(&numbered(body.as_bytes(), n), true));
        }
        self.0.push(Case { what, bytes, must });
    }
}

fn cases() -> Vec<Case> {
    let mut table = Table::default();
    // The table can only fail if usual requests pass.
    table.add("a GET", Arrive, &[], None);
    table.add("a POST", Arrive, &[("content-length", "5")], Some("12345"));
    table.add("a POST without length", Arrive, &[], Some("12345"));

    let split = format!("a\r\n\r\n{SMUGGLED}");
    let line = "a\r\nhost: other.test";
    for value in [split.as_str(), line, "a\nb: c", "a\rb", "a\0b"] {
        table.add("a line end in a value", BeRefused, &[("x", value)], None);
    }
    for name in [
        "x\r\nhost",
        "x\nhost",
        "x: y\r\nhost",
        "x y",
        "x:y",
        "X-Upper",
        "",
        "x\0",
    ] {
        table.add(
            "an odd field name",
            BeRefused,
            &[(name, "other.test")],
            None,
        );
    }
    for path in [
        "CASE HTTP/1.1\r\nHost: other.test\r\n\r\nGET SMUGGLED",
        "CASE HTTP/1.1\r\nx: y",
        "CASE\nx: y",
        "CASE x",
        "",
        "CASE\0",
    ] {
        table.add("an odd path", BeRefused, &[(":path", path)], None);
    }
    table.add("a path without slash", BeOne, &[(":path", "xCASE")], None);
    table.add(
        "an absolute path",
        BeOne,
        &[(":path", "http://other.testCASE")],
        None,
    );
    for method in [
        "GET / HTTP/1.1\r\nHost: other.test\r\n\r\nGET",
        "GE T",
        "GET\r\n",
        "",
    ] {
        table.add("an odd method", BeRefused, &[(":method", method)], None);
    }
    for scheme in ["http\r\nx: y", "http://other.test/?", ""] {
        table.add("an odd scheme", BeOne, &[(":scheme", scheme)], None);
    }

    for authority in [
        "raw.test\r\nx: y",
        "raw.test other.test",
        "other.test@raw.test",
        "raw.test/",
        "raw.test, other.test",
        "raw.test:x",
    ] {
        table.add(
            "an odd authority",
            BeOne,
            &[(":authority", authority)],
            None,
        );
    }
    table.add("another host", BeOne, &[("host", "other.test")], None);
    table.add("the same host", BeOne, &[("host", "raw.test")], None);
    table.add(
        "two authorities",
        BeRefused,
        &[("+:authority", "other.test")],
        None,
    );
    table.add("two paths", BeRefused, &[("+:path", "SMUGGLED")], None);
    table.add("two methods", BeRefused, &[("+:method", "POST")], None);
    table.add("an unknown pseudo-field", BeRefused, &[(":x", "y")], None);
    table.exactly(
        "a pseudo-field behind the others",
        BeRefused,
        &[
            (":method", "GET"),
            (":scheme", "http"),
            (":path", "CASE"),
            ("x", "y"),
            (":authority", "raw.test"),
        ],
        None,
    );
    table.exactly(
        "no authority but a host",
        BeOne,
        &[
            (":method", "GET"),
            (":scheme", "http"),
            (":path", "CASE"),
            ("host", "raw.test"),
        ],
        None,
    );

    let chunked = ("transfer-encoding", "chunked");
    let end = format!("0\r\n\r\n{SMUGGLED}");
    table.add("chunked", BeRefused, &[chunked], Some(&end));
    table.add(
        "chunked with a length",
        BeRefused,
        &[chunked, ("content-length", "5")],
        Some(&end),
    );
    // Envoy may have sent the head on before it counts: one request that is then
    // cut is right.
    for length in ["0", "5", "4000"] {
        table.add(
            "a wrong length",
            BeOne,
            &[("content-length", length)],
            Some(&end),
        );
    }
    for length in ["+5", "5,5", "-1", "0x5", "99999999999999999999", "5 ", ""] {
        table.add(
            "a length that is no number",
            BeOne,
            &[("content-length", length)],
            Some(&end),
        );
    }
    let two = [("content-length", "5"), ("content-length", "6")];
    // Envoy takes the last one. If the body comes a moment after the head, the head
    // has gone on by then, with that one length, and is cut when they differ.
    table.add("two lengths", BeCut, &two, Some(&end));
    for (name, value) in [
        ("connection", "close"),
        ("connection", "transfer-encoding"),
        ("keep-alive", "1"),
        ("proxy-connection", "close"),
        ("upgrade", "websocket"),
        ("te", "gzip"),
    ] {
        table.add("a hop-by-hop field", BeOne, &[(name, value)], Some(&end));
    }
    let websocket = [(":method", "CONNECT"), (":protocol", "websocket")];
    table.add("an extended CONNECT", BeOne, &websocket, Some(SMUGGLED));
    let reserved = [("x-adit-target", "1"), ("datum-node-id", "2")];
    table.add("reserved fields", Arrive, &reserved, Some("12345"));
    table.0
}
