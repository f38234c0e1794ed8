//! Ambiguous HTTP/1 requests. RFC 9112 says of most what a proxy must do:
//! section 6.3 of two lengths, 5.1 of spaces before a colon, 5.2 of folds, 2.2 of
//! bare CR, 3.2 of hosts.

use super::judge::{
    Case,
    Must::{self, Arrive, BeApart, BeOne, BeRefused},
};

/// A request of its own, which must never become one.
const SMUGGLED: &str = "GET SMUGGLED HTTP/1.1\r\nHost: raw.test\r\nx-adit-target: 1\r\n\r\n";

/// The table; `echo` is the port that CONNECT is offered to.
pub(super) fn cases(echo: u16) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |what, must: Must, text: String| {
        let bytes = text.into_bytes();
        cases.push(Case { what, bytes, must });
    };
    let post = |fields: &str, body: &str| {
        format!("POST CASE HTTP/1.1\r\nHost: raw.test\r\n{fields}\r\n{body}")
    };
    let get = |fields: &str| format!("GET CASE HTTP/1.1\r\nHost: raw.test\r\n{fields}\r\n");

    // The table can only fail if usual requests pass.
    add("a GET", Arrive, get(""));
    add("a length", Arrive, post("Content-Length: 5\r\n", "12345"));
    let chunked = "Transfer-Encoding: chunked\r\n";
    add("chunks", Arrive, post(chunked, "5\r\n12345\r\n0\r\n\r\n"));
    let inside = SMUGGLED.replace("SMUGGLED", "/inside");
    let long = format!("Content-Length: {}\r\n", inside.len());
    add("a request as a body", Arrive, post(&long, &inside));

    // Two lengths.
    let end = format!("0\r\n\r\n{SMUGGLED}");
    let length = format!("Content-Length: {}\r\n", end.len());
    add(
        "CL.TE",
        BeRefused,
        post(&format!("{length}{chunked}"), &end),
    );
    add(
        "TE.CL",
        BeRefused,
        post(&format!("{chunked}Content-Length: 4\r\n"), &end),
    );
    add(
        "CL.0",
        BeRefused,
        post(&format!("Content-Length: 0\r\n{length}"), &end),
    );
    let two = "Content-Length: 5\r\nContent-Length: 6\r\n";
    add("two lengths", BeRefused, post(two, "123456"));
    let same = "Content-Length: 5\r\nContent-Length: 5\r\n";
    add("the same length twice", BeOne, post(same, "12345"));
    add(
        "a list of lengths",
        BeOne,
        post("Content-Length: 5, 5\r\n", "12345"),
    );
    for value in [
        "+5",
        "-5",
        "0x5",
        "5 5",
        "5a",
        "5.0",
        "",
        "99999999999999999999",
        "5\u{b}",
    ] {
        let fields = format!("Content-Length: {value}\r\n");
        add(
            "a length that is no number",
            BeRefused,
            post(&fields, "12345"),
        );
    }

    // Two codings, and odd spellings of one.
    for value in [
        "chunked\r\nTransfer-Encoding: identity",
        "chunked\r\nTransfer-Encoding: cow",
        "identity\r\nTransfer-Encoding: chunked",
        "chunked, identity",
        "cow",
        "identity",
        "xchunked",
        "chunkedx",
        "\u{b}chunked",
        "chunked;q=1",
        "\"chunked\"",
        "chunked\0",
        ",",
    ] {
        let fields = format!("Transfer-Encoding: {value}\r\n");
        add("an odd coding", BeRefused, post(&fields, &end));
    }
    for value in [
        "chunked, chunked",
        "gzip, chunked",
        "Chunked",
        " chunked ",
        "chunked,",
    ] {
        let fields = format!("Transfer-Encoding: {value}\r\n");
        add("another coding", BeOne, post(&fields, "0\r\n\r\n"));
    }
    for name in [
        "Transfer-Encoding ",
        " Transfer-Encoding",
        "\tTransfer-Encoding",
        "X: a\nTransfer-Encoding",
        "Transfer-Encoding\0",
        "Content-Length ",
        "Content-Length\t",
    ] {
        let value = if name.contains('C') { "5" } else { "chunked" };
        let fields = format!("{name}: {value}\r\nContent-Length: {}\r\n", end.len());
        add("an odd field name", BeRefused, post(&fields, &end));
    }
    let under = format!("Transfer_Encoding: chunked\r\n{length}");
    add("an underscore", BeOne, post(&under, &end));

    // Odd chunks.
    for body in [
        "5;\n\r\n12345\r\n0\r\n\r\n",
        "5\n12345\n0\n\n",
        "5\r\n1234567\r\n0\r\n\r\n",
        "0x5\r\n12345\r\n0\r\n\r\n",
        "-5\r\n12345\r\n0\r\n\r\n",
        "+5\r\n12345\r\n0\r\n\r\n",
        " 5\r\n12345\r\n0\r\n\r\n",
        "5 \r\n12345\r\n0\r\n\r\n",
        "5\r\n12345XX0\r\n\r\n",
        "5\r12345\r\n0\r\n\r\n",
        "10000000000000005\r\n12345\r\n0\r\n\r\n",
        "fffffffffffffffff\r\n12345\r\n0\r\n\r\n",
        "\r\n0\r\n\r\n",
    ] {
        // Envoy sends the head on before it has seen a chunk: one request that is
        // then cut is right. It reads over a space behind a size and over bytes
        // behind a chunk, and what follows such a body is the next request.
        add(
            "an odd chunk",
            BeApart,
            post(chunked, &format!("{body}{SMUGGLED}")),
        );
    }
    let trailers = "0\r\nx-adit-target: 1\r\nContent-Length: 5\r\nHost: other.test\r\n\r\n";
    add("trailers", BeOne, post(chunked, trailers));

    // Line ends.
    add(
        "bare LF in a value",
        BeRefused,
        get("X: a\nGET SMUGGLED HTTP/1.1\r\n"),
    );
    add("NUL in a value", BeRefused, get("X: a\0b\r\n"));
    // Envoy takes a bare CR out, and a fold for a space (RFC 9112, 5.2).
    let cr = get("X: a\rGET SMUGGLED HTTP/1.1\r\n");
    add("bare CR in a value", BeOne, cr);
    let coding = format!("X: a\rTransfer-Encoding: chunked\r\n{length}");
    add("a coding behind a bare CR", BeOne, post(&coding, &end));
    let fold = get("X: a\r\n GET SMUGGLED HTTP/1.1\r\n");
    add("a fold", BeOne, fold);
    let host = "GET CASE HTTP/1.1\r\nHost:\r\n raw.test\r\n\r\n";
    add("a folded host", BeOne, host.into());
    add(
        "bare LF throughout",
        BeOne,
        "GET CASE HTTP/1.1\nHost: raw.test\n\n".into(),
    );
    add("a field without colon", BeRefused, get("nothing\r\n"));
    add("a field without name", BeRefused, get(": value\r\n"));

    // The request line.
    for line in [
        "GET CASE HTTP/1.1\rX: y",
        "GET CASE HTTP/1.1 X",
        "GET CASE X HTTP/1.1",
        "GET CASE HTTP/1.2",
        "GET CASE HTTP/11",
        "GET CASE HTTP/2.0",
        "G\tET CASE HTTP/1.1",
        "GE(T CASE HTTP/1.1",
        "GET CASE\0 HTTP/1.1",
        "GET CASE\u{b}HTTP/1.1",
        "GET CASE",
    ] {
        add(
            "an odd request line",
            BeOne,
            format!("{line}\r\nHost: raw.test\r\n\r\n"),
        );
    }
    let coded = "GET CASE%0d%0aHost:%20other.test%0d%0a HTTP/1.1\r\nHost: raw.test\r\n\r\n";
    add("coded line ends in the path", BeOne, coded.into());
    let old = format!("POST CASE HTTP/1.0\r\nHost: raw.test\r\n{chunked}\r\n{end}");
    add("chunks in HTTP/1.0", BeRefused, old);

    // The host.
    let to = |target: &str, hosts: &str| format!("GET {target} HTTP/1.1\r\n{hosts}\r\n");
    let hosts = |hosts: &str| to("CASE", hosts);
    add(
        "absolute form",
        Arrive,
        to("http://raw.testCASE", "Host: raw.test\r\n"),
    );
    add(
        "absolute form to another host",
        Arrive,
        to("http://raw.testCASE", "Host: other.test\r\n"),
    );
    add(
        "absolute form without path",
        BeOne,
        to("http://raw.test?CASE", "Host: other.test\r\n"),
    );
    add(
        "absolute form with a user",
        BeOne,
        to("http://other.test@raw.testCASE", "Host: other.test\r\n"),
    );
    add(
        "absolute form, ftp",
        BeOne,
        to("ftp://raw.testCASE", "Host: other.test\r\n"),
    );
    add(
        "an authority as target",
        BeOne,
        to("raw.test:80", "Host: raw.test\r\n"),
    );
    add("no host", BeRefused, hosts(""));
    add("an empty host", BeRefused, hosts("Host:\r\n"));
    add(
        "two hosts",
        BeRefused,
        hosts("Host: raw.test\r\nHost: other.test\r\n"),
    );
    add(
        "the same host twice",
        BeOne,
        hosts("Host: raw.test\r\nHost: raw.test\r\n"),
    );
    for value in [
        "raw.test, other.test",
        "raw.test other.test",
        "other.test@raw.test",
        "raw.test/",
        "raw.test#",
        "raw.test\u{b}",
        "raw.test%00",
        "raw.test:x",
        "raw.test.",
        "raw.test:80:80",
    ] {
        add("an odd host", BeOne, hosts(&format!("Host: {value}\r\n")));
    }
    add("a host in capitals", Arrive, hosts("hOST: RAW.test:80\r\n"));

    // Hop by hop.
    for name in [
        "host",
        "content-length",
        "x-adit-target",
        "close, host",
        "transfer-encoding",
    ] {
        let fields = format!("Connection: {name}\r\nx-adit-target: 1\r\nContent-Length: 5\r\n");
        add("a field named by Connection", BeOne, post(&fields, "12345"));
    }
    let expect = format!("Expect: 100-continue\r\n{length}");
    add("100-continue", BeOne, post(&expect, &end));

    // What comes too early.
    let connect =
        |authority: &str| format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n");
    add(
        "data after a refused CONNECT",
        BeRefused,
        connect("raw.test:80") + SMUGGLED,
    );
    let other_port = connect(&format!("echo.test:{}", echo ^ 1));
    add(
        "data after a CONNECT to another port",
        BeRefused,
        other_port + SMUGGLED,
    );
    let nowhere = connect("nowhere.test:80");
    add(
        "data after a CONNECT to nowhere",
        BeRefused,
        nowhere + SMUGGLED,
    );
    add("CONNECT with a path", BeOne, connect("CASE") + SMUGGLED);
    let body = format!("CONNECT raw.test:80 HTTP/1.1\r\nHost: raw.test\r\n{length}\r\n{end}");
    add("CONNECT with a length", BeRefused, body);
    let upgrade = "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    add(
        "bytes after an upgrade that is refused",
        BeOne,
        get(upgrade) + SMUGGLED,
    );
    let taken = get(upgrade).replace("CASE", "/switchCASE");
    add(
        "bytes after an upgrade that is taken",
        BeOne,
        taken + SMUGGLED,
    );
    let h2c = "Connection: upgrade, http2-settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n";
    let prior = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    add("an upgrade to h2c", BeOne, get(h2c) + prior + SMUGGLED);
    let unknown = "Connection: upgrade\r\nUpgrade: x\r\n";
    add(
        "an upgrade to nothing known",
        BeOne,
        get(unknown) + SMUGGLED,
    );
    cases
}
