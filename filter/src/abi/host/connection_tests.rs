//! The transport socket's hooks, called as Envoy calls them and worse.

use std::{io::Write as _, os::unix::net::UnixStream, rc::Rc, time::Duration};

use adit_wire::{
    Connected, EndpointId, ErrorClass, Path, Protocol, Refusal, Target, Verdict, preface::Preface,
};

use super::{Connection, Factory, Inside, drain, load, panic_in};

pub fn target() -> String {
    Target {
        connectors: vec![EndpointId::from_bytes([1; 32])],
        service: "127.0.0.1:8080".parse().unwrap(),
        protocol: Protocol::Tcp,
        deadline: Duration::from_secs(5),
        name: "default/shop".into(),
    }
    .to_base64()
}

pub fn verdict() -> Vec<u8> {
    Verdict::Connected(Connected {
        connector: EndpointId::from_bytes([1; 32]),
        path: Path::Direct,
        rtt: Duration::from_millis(7),
    })
    .encode()
}

/// A connection whose preface the dialer has read.
fn greeted(inside: Inside) -> (Rc<Connection>, UnixStream) {
    load();
    let (connection, mut dialer) = Connection::new(&Factory::new(&target()));
    *connection.inside.borrow_mut() = inside;
    connection.on_connected();
    let preface = drain(&mut dialer);
    let (_, len) = Preface::decode(&preface).unwrap().expect("whole");
    assert_eq!(len, preface.len());
    (connection, dialer)
}

#[test]
fn bytes_wait_for_the_verdict_and_go_out_inside_the_event() {
    let (connection, mut dialer) = greeted(Inside::default());
    connection.write(b"GET / HTTP/1.1\r\n", false);
    assert_eq!(drain(&mut dialer), b"", "nothing before the verdict");
    // The service's first bytes come in one piece with it.
    dialer
        .write_all(&[&verdict(), &b"220 hello"[..]].concat())
        .unwrap();
    connection.readable();
    assert_eq!(connection.connected.get(), 1);
    assert_eq!(drain(&mut dialer), b"GET / HTTP/1.1\r\n");
    assert_eq!(*connection.received.borrow(), b"220 hello");
}

#[test]
fn an_end_that_was_wanted_before_the_verdict_comes_after_it() {
    let (connection, mut dialer) = greeted(Inside::default());
    connection.write(b"", true);
    dialer.write_all(&verdict()).unwrap();
    connection.readable();
    let mut byte = [0];
    assert_eq!(std::io::Read::read(&mut dialer, &mut byte).unwrap(), 0);
    assert!(connection.is_open());
}

#[test]
fn a_refusal_is_a_close_with_its_class() {
    for class in ErrorClass::ALL {
        let (connection, mut dialer) = greeted(Inside::default());
        connection.write(b"held", false);
        let refusal = Refusal {
            class,
            text: "at 192.0.2.1\nnothing".into(),
        };
        dialer
            .write_all(&Verdict::Refused(refusal).encode())
            .unwrap();
        connection.readable();
        let reason = connection.asked_to_close.borrow().clone();
        assert_eq!(reason, Some(format!("adit.{class}")));
        assert_eq!(
            (connection.connected.get(), drain(&mut dialer)),
            (0, vec![])
        );
    }
}

#[test]
fn the_socket_may_be_closed_inside_the_event() {
    let (connection, mut dialer) = greeted(Inside {
        ask: true,
        close: true,
        ..Inside::default()
    });
    // An end was wanted too: it must not be sent on a closed socket.
    connection.write(b"", true);
    dialer
        .write_all(&[&verdict(), &b"late"[..]].concat())
        .unwrap();
    connection.readable();
    assert_eq!(connection.connected.get(), 1);
    assert_eq!(
        *connection.received.borrow(),
        b"",
        "nothing is read after it"
    );
}

#[test]
fn the_object_may_be_given_back_inside_the_event() {
    let (connection, mut dialer) = greeted(Inside {
        destroy: true,
        ..Inside::default()
    });
    connection.write(b"", true);
    dialer
        .write_all(&[&verdict(), &b"late"[..]].concat())
        .unwrap();
    connection.readable();
    assert_eq!(*connection.received.borrow(), b"");
    assert!(!connection.is_open());
}

#[test]
fn a_read_inside_the_event_takes_nothing_twice() {
    let (connection, mut dialer) = greeted(Inside {
        ask: true,
        read: true,
        ..Inside::default()
    });
    dialer
        .write_all(&[&verdict(), &b"once"[..]].concat())
        .unwrap();
    connection.readable();
    assert_eq!(*connection.received.borrow(), b"once");
    assert_eq!(connection.connected.get(), 1);
}

#[test]
fn another_socket_may_be_read_while_one_is_being_read() {
    let (one, mut dialer_one) = greeted(Inside::default());
    let (two, mut dialer_two) = greeted(Inside::default());
    let (three, mut dialer_three) = greeted(Inside::default());
    for dialer in [&mut dialer_one, &mut dialer_two, &mut dialer_three] {
        dialer.write_all(&verdict()).unwrap();
    }
    // Each is read inside the one before, all with the same thread's buffer.
    two.inside.borrow_mut().other = Some(three.clone());
    one.inside.borrow_mut().other = Some(two.clone());
    let bytes = |byte: u8| vec![byte; 100_000];
    dialer_one.write_all(&bytes(1)).unwrap();
    dialer_two.write_all(&bytes(2)).unwrap();
    dialer_three.write_all(&bytes(3)).unwrap();
    one.readable();
    assert_eq!(*one.received.borrow(), bytes(1));
    assert_eq!(*two.received.borrow(), bytes(2));
    assert_eq!(*three.received.borrow(), bytes(3));
}

#[test]
fn a_full_read_buffer_is_left_and_taken_up_again() {
    let (connection, mut dialer) = greeted(Inside::default());
    connection.read_limit.set(1);
    dialer.write_all(&verdict()).unwrap();
    let sent = vec![7; 200_000];
    let mut rest = &sent[..];
    while !rest.is_empty() {
        match dialer.write(rest) {
            Ok(n) => rest = &rest[n..],
            Err(_) => connection.readable(),
        }
    }
    connection.readable();
    assert_eq!(*connection.received.borrow(), sent);
}

#[test]
fn the_buffer_may_grow_and_move_while_it_is_drained() {
    let (connection, mut dialer) = greeted(Inside::default());
    dialer.write_all(&verdict()).unwrap();
    connection.readable();
    connection.inside.borrow_mut().write_in_drain = vec![2; 50_000];
    connection.write(&vec![1; 1_500_000], true);
    let mut got = Vec::new();
    loop {
        let piece = drain(&mut dialer);
        if piece.is_empty() {
            break;
        }
        got.extend(piece);
        connection.flush();
    }
    assert_eq!(got.len(), 1_550_000);
    assert!(got[..1_500_000].iter().all(|b| *b == 1) && got[1_500_000..].iter().all(|b| *b == 2));
}

#[test]
fn a_close_while_the_buffer_is_drained_ends_the_write() {
    let (connection, mut dialer) = greeted(Inside::default());
    dialer.write_all(&verdict()).unwrap();
    connection.readable();
    connection.inside.borrow_mut().close_in_drain = true;
    connection.write(&[1; 500_000], true);
    assert!(!connection.is_open());
}

#[test]
fn a_dialer_that_dies_is_an_abort_and_one_that_ends_is_an_end() {
    for (clean, said) in [(true, None), (false, Some(String::new()))] {
        let (connection, mut dialer) = greeted(Inside::default());
        dialer
            .write_all(&[&verdict(), &b"last words"[..]].concat())
            .unwrap();
        let kept = clean.then(|| {
            dialer.shutdown(std::net::Shutdown::Write).unwrap();
            dialer
        });
        connection.readable();
        assert_eq!(*connection.received.borrow(), b"last words");
        assert_eq!(connection.ended.get(), clean);
        assert_eq!(*connection.asked_to_close.borrow(), said);
        drop(kept);
    }
}

#[test]
fn a_dialer_that_goes_at_any_byte_of_the_verdict_is_an_internal_failure() {
    let verdict = verdict();
    for len in 0..verdict.len() {
        let (connection, mut dialer) = greeted(Inside::default());
        dialer.write_all(&verdict[..len]).unwrap();
        connection.readable();
        drop(dialer);
        connection.readable();
        let reason = connection.asked_to_close.borrow().clone();
        assert_eq!(reason.as_deref(), Some("adit.internal"), "{len}");
        // Whatever Envoy asks after that.
        connection.flush();
        connection.readable();
    }
}

#[test]
fn a_panic_in_any_hook_closes_its_connection_and_no_other() {
    for hook in [
        "transport_on_connected",
        "transport_do_read",
        "transport_do_write",
        "transport_close",
        "transport_get_failure_reason",
        "transport_can_flush_close",
    ] {
        let (connection, mut dialer) = greeted(Inside::default());
        panic_in(hook);
        connection.on_connected();
        // Nobody may be there any more.
        let _ = dialer.write_all(&[&verdict(), &b"x"[..]].concat());
        connection.readable();
        connection.write(b"y", true);
        connection.ask();
        drop(connection);
        // The order was taken, and the next connection is none the worse.
        super::panic_if_ordered(hook);
        let (next, mut dialer) = greeted(Inside::default());
        dialer.write_all(&[&verdict(), &b"x"[..]].concat()).unwrap();
        next.readable();
        assert_eq!(*next.received.borrow(), b"x", "{hook}");
    }
}

/// Left out where leaks are looked for: what was to be freed is not.
#[test]
fn a_panic_while_destroying_leaks_and_does_no_other_harm() {
    load();
    panic_in("transport_destroy");
    drop(Connection::new(&Factory::new(&target())));
    panic_in("transport_factory_config_destroy");
    drop(Factory::new(&target()));
    super::panic_if_ordered("transport_factory_config_destroy");
}

#[test]
fn a_factory_may_go_before_its_connections() {
    load();
    let factory = Factory::new(&target());
    let (connection, mut dialer) = Connection::new(&factory);
    drop(factory);
    connection.on_connected();
    assert!(Preface::decode(&drain(&mut dialer)).unwrap().is_some());
    assert!(Factory::try_new(b"adit", b"{\"target\": 1}").is_none());
    assert!(Factory::try_new(b"other", b"").is_none());
}
