//! The HTTP filter's hooks, called as Envoy calls them and worse.

use std::{io::Write as _, rc::Rc};

use adit_wire::{EndpointId, ErrorClass};

use super::{
    Connection, Factory, FilterConfig, Stream, Value,
    connection_tests::{target, verdict},
    load, panic_in,
};

const CONTINUE: Option<u32> = Some(0);
const STOP: Option<u32> = Some(1);
const OFFLINE: &str =
    "upstream_reset_before_response_started{remote_connection_failure|adit.offline}";

fn node() -> String {
    EndpointId::from_bytes([1; 32]).to_string()
}

fn config() -> FilterConfig {
    load();
    FilterConfig::new("").expect("the configuration is taken")
}

/// A request on a route of ours.
fn request(config: &FilterConfig) -> Rc<Stream> {
    let headers = [
        (":method", "GET"),
        (":authority", "shop.example"),
        ("x-adit-forged", "1"),
        ("datum-node-id", "forged"),
        ("accept", "text/html"),
        ("x-iroh-forged", "2"),
        ("x-mine", "stays"),
    ];
    let stream = Stream::new(config, &headers);
    stream.declare_target(1, &node());
    stream.declare_target(2, &node());
    stream
}

fn counted(stream: &Stream) -> Vec<(String, u64)> {
    let counted = stream.counted.borrow();
    counted.iter().map(|(k, v)| (k.clone(), *v)).collect()
}

#[test]
fn a_request_passes_without_what_it_forged() {
    let config = config();
    let stream = request(&config);
    assert_eq!(stream.request_headers(), CONTINUE);
    for forged in ["x-adit-forged", "datum-node-id", "x-iroh-forged"] {
        assert_eq!(stream.header(0, forged), None, "{forged}");
    }
    assert_eq!(stream.header(0, "x-mine").as_deref(), Some("stays"));
    stream.fill(1, &[("x-adit-forged", "1"), ("x-mine", "stays")]);
    assert_eq!(stream.request_body(), CONTINUE);
    assert_eq!(stream.request_trailers(), CONTINUE);
    assert_eq!(stream.header(1, "x-adit-forged"), None);
    stream.fill(2, &[(":status", "200")]);
    assert_eq!(stream.response_headers(false), CONTINUE);
    assert_eq!(stream.response_body(b"body", true), CONTINUE);
    assert_eq!(stream.response_trailers(), CONTINUE);
    assert_eq!(*stream.body.borrow(), b"body");
    stream.end();
    assert_eq!(counted(&stream), [("answered".into(), 1)]);
    let dynamic = stream.dynamic.borrow();
    assert_eq!(dynamic["target"], "127.0.0.1:8080");
    assert_eq!(dynamic["connector"], node());
}

#[test]
fn a_refused_request_may_be_over_and_freed_before_its_hook_returns() {
    for destroy in [true, false] {
        let config = config();
        let stream = request(&config);
        stream.destroy_inside.set(destroy);
        let other = EndpointId::from_bytes([2; 32]).to_string();
        stream.declare_target(2, &other);
        assert_eq!(stream.request_headers(), STOP);
        assert_eq!(stream.lives(), !destroy);
        let replies = stream.replies.borrow();
        assert_eq!(replies.len(), 1);
        assert_eq!(replies[0].0, 500);
        assert!(replies[0].2.contains("<html"), "{}", replies[0].2);
        stream.end();
        assert_eq!(counted(&stream), [("misconfigured".into(), 1)]);
    }
}

#[test]
fn what_metadata_says_wrong_is_refused_and_never_read_beyond() {
    let text = |text: &[u8]| Value::Text(text.into());
    for (key, value) in [
        ("datum-node-id", text(b"")),
        ("datum-node-id", text(b"\xff\xfe")),
        ("datum-node-id", text(&[b','; 5000])),
        ("datum-node-id", Value::Number(1.0)),
        ("datum-target-host", text(b"a b")),
        ("datum-target-port", Value::Number(f64::NAN)),
        ("datum-target-port", Value::Number(-1.0)),
        ("datum-target-port", Value::Bool(true)),
        ("datum-target-proto", text(b"udp")),
    ] {
        let config = config();
        let stream = request(&config);
        stream.declare(1, key, value);
        assert_eq!(stream.request_headers(), STOP, "{key}");
        assert!(!stream.lives());
    }
}

#[test]
fn a_failed_connect_is_answered_in_our_words() {
    for class in ErrorClass::ALL {
        let config = config();
        let stream = request(&config);
        assert_eq!(stream.request_headers(), CONTINUE);
        let details = format!(
            "upstream_reset_before_response_started{{remote_connection_failure|adit.{class}}}"
        );
        assert_eq!(stream.local_reply(&details), CONTINUE);
        stream.fill(2, &[(":status", "503"), ("content-type", "text/plain")]);
        assert_eq!(stream.response_headers(false), CONTINUE);
        assert_eq!(
            stream.response_body(b"/run/adit/dialer.sock", false),
            CONTINUE
        );
        let body = String::from_utf8(stream.body.borrow().clone()).unwrap();
        assert!(body.contains("<html"), "{body}");
        // A second piece of the original is dropped.
        assert_eq!(
            stream.response_body(b"/run/adit/dialer.sock", true),
            CONTINUE
        );
        assert_eq!(*stream.body.borrow(), b"");
        stream.end();
        assert_eq!(counted(&stream), [(class.to_string(), 1)]);
    }
}

#[test]
fn a_cut_answer_is_reset_and_freed_inside_the_sockets_read() {
    let config = config();
    let stream = request(&config);
    assert_eq!(stream.request_headers(), CONTINUE);

    // The connection is cut: its `do_read` says so, and Envoy ends the body then.
    let (connection, mut dialer) = Connection::new(&Factory::new(&target()));
    connection.on_connected();
    dialer
        .write_all(&[&verdict(), &b"half"[..]].concat())
        .unwrap();
    connection.readable();
    stream.fill(2, &[(":status", "200")]);
    assert_eq!(stream.response_headers(false), CONTINUE);
    assert_eq!(stream.response_body(b"half", false), CONTINUE);
    drop(dialer);
    connection.readable();
    assert_eq!(connection.asked_to_close.borrow().as_deref(), Some(""));
    let status = stream.response_body(b"", true);
    assert_eq!(status, Some(3), "stops without a buffer");
    assert_eq!(*stream.resets.borrow(), ["adit_cut"]);
    assert!(!stream.lives());
    assert_eq!(counted(&stream), [("cut".into(), 1)]);
}

#[test]
fn a_panic_in_any_hook_ends_its_stream_and_no_other() {
    for hook in [
        "http_new",
        "http_request_headers",
        "http_request_body",
        "http_request_trailers",
        "http_response_headers",
        "http_response_body",
        "http_response_trailers",
        "http_local_reply",
        "http_stream_complete",
    ] {
        for destroy in [true, false] {
            let config = config();
            panic_in(hook);
            let stream = request(&config);
            stream.destroy_inside.set(destroy);
            stream.request_headers();
            stream.request_body();
            stream.request_trailers();
            stream.local_reply(OFFLINE);
            stream.fill(2, &[(":status", "503")]);
            stream.response_headers(false);
            stream.response_body(b"text of Envoy's", true);
            stream.response_trailers();
            stream.end();
            super::panic_if_ordered(hook);
            let answered = !stream.replies.borrow().is_empty();
            let early = hook.starts_with("http_new") || hook.starts_with("http_request");
            assert_eq!(answered, early, "{hook}");
            let next = request(&config);
            assert_eq!(next.request_headers(), CONTINUE, "{hook}");
        }
    }
}

#[test]
fn a_panic_in_a_configuration_refuses_it() {
    load();
    panic_in("http_config_new");
    assert!(FilterConfig::new("").is_none());
    panic_in("http_per_route_config_new");
    assert!(FilterConfig::of_route("").is_none());
    panic_in("transport_factory_config_new");
    assert!(Factory::try_new(b"adit", b"{}").is_none());
}

/// Left out where leaks are looked for: what was to be freed is not.
#[test]
fn a_panic_while_destroying_leaks_and_does_no_other_harm() {
    let config = config();
    for hook in ["http_destroy", "http_config_destroy"] {
        let stream = request(&config);
        assert_eq!(stream.request_headers(), CONTINUE);
        panic_in(hook);
        drop((stream, FilterConfig::new("")));
        super::panic_if_ordered(hook);
    }
}

#[test]
fn configurations_may_go_before_their_streams() {
    let route = FilterConfig::of_route(r#"{"html_page": "<p>{{title}}, says the route"}"#);
    let filter = config();
    let stream = request(&filter);
    stream.take_route(route.as_ref().expect("taken"));
    assert_eq!(stream.request_headers(), CONTINUE);
    drop((filter, route));
    stream.local_reply(OFFLINE);
    stream.fill(2, &[(":status", "503")]);
    stream.response_headers(false);
    stream.response_body(b"text of Envoy's", true);
    let body = String::from_utf8(stream.body.borrow().clone()).unwrap();
    assert!(body.contains("says the route"), "{body}");
}

#[test]
fn a_route_of_nobody_is_left_alone() {
    let config = config();
    let stream = Stream::new(&config, &[("x-adit-mine", "1")]);
    assert_eq!(stream.request_headers(), CONTINUE);
    assert_eq!(stream.header(0, "x-adit-mine").as_deref(), Some("1"));
    stream.end();
    assert_eq!(counted(&stream), []);
}
