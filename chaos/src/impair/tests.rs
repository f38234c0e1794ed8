//! The forwarder between two plain sockets.

use std::time::Instant;

use super::{
    dice::{Dice, Fate},
    line::MOST,
    *,
};

/// A server that sends back what it gets, with the port it saw in front.
struct Mirror {
    addr: SocketAddr,
    _task: AbortOnDropHandle<()>,
}

fn mirror() -> Mirror {
    let socket = socket((Ipv6Addr::LOCALHOST, 0).into()).unwrap();
    let addr = socket.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let mut buffer = vec![0; LARGEST];
        loop {
            let (len, from) = socket.recv_from(&mut buffer).await.unwrap();
            let mut answer = from.port().to_be_bytes().to_vec();
            answer.extend_from_slice(&buffer[..len]);
            socket.send_to(&answer, from).await.unwrap();
        }
    });
    Mirror {
        addr,
        _task: AbortOnDropHandle::new(task),
    }
}

async fn client(path: &Forwarder) -> UdpSocket {
    let client = socket((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    client.connect(path.addr).await.unwrap();
    client
}

/// The port that the server saw, and what came back; `None` after a while.
async fn answer(client: &UdpSocket, patience: Duration) -> Option<(u16, Vec<u8>)> {
    let mut buffer = vec![0; LARGEST];
    let received = tokio::time::timeout(patience, client.recv(&mut buffer)).await;
    let len = received.ok()?.unwrap();
    let port = u16::from_be_bytes([buffer[0], buffer[1]]);
    Some((port, buffer[2..len].to_vec()))
}

const LONG: Duration = Duration::from_secs(20);
/// Longer than loopback ever takes on a busy machine, were it not blocked.
const SHORT: Duration = Duration::from_millis(300);

fn milliseconds(n: u64) -> Duration {
    Duration::from_millis(n)
}

#[test]
fn the_same_seed_loses_the_same_and_as_many_as_it_shall() {
    let weather = Weather::default().losing(0.2);
    let throw = |seed| {
        let mut dice = Dice::new(seed);
        (0..10_000).map(|_| dice.fate(&weather)).collect::<Vec<_>>()
    };
    let (first, again, other) = (throw(7), throw(7), throw(8));
    assert_eq!(first, again);
    assert_ne!(first, other);
    let lost = first.iter().filter(|f| **f == Fate::Lost).count();
    // Four standard deviations of 40.
    assert!((1840..=2160).contains(&lost), "{lost}");
}

#[test]
fn a_jitter_spreads_over_its_whole_span_and_no_further() {
    let weather = Weather::default()
        .round_trip(milliseconds(40))
        .jitter(milliseconds(10));
    let mut dice = Dice::new(1);
    let fates = (0..1000).map(|_| dice.fate(&weather));
    let lates: Vec<_> = fates
        .map(|fate| match fate {
            Fate::After(late) => late,
            other => panic!("{other:?}"),
        })
        .collect();
    let (least, most) = (lates.iter().min().unwrap(), lates.iter().max().unwrap());
    assert!((milliseconds(20)..milliseconds(21)).contains(least));
    assert!((milliseconds(29)..milliseconds(30)).contains(most));
}

#[tokio::test]
async fn datagrams_go_through_and_back_as_they_are_in_order() {
    let mirror = mirror();
    let path = Forwarder::start(mirror.addr, 1, Weather::default()).await;
    let path = path.unwrap();
    let (one, two) = (client(&path).await, client(&path).await);
    for n in 0..100u32 {
        one.send(&n.to_be_bytes()).await.unwrap();
    }
    two.send(&[0; 1472]).await.unwrap();
    let mut ports = Vec::new();
    for n in 0..100u32 {
        let (port, bytes) = answer(&one, LONG).await.unwrap();
        assert_eq!(bytes, n.to_be_bytes());
        ports.push(port);
    }
    ports.dedup();
    let (other, bytes) = answer(&two, LONG).await.unwrap();
    assert_eq!(bytes, [0; 1472]);
    assert_eq!(ports.len(), 1, "one socket for one client");
    assert_ne!(ports[0], other, "another for another");
    let passed = path.counts();
    assert_eq!((passed.passed, passed.overtaken), (202, 0));
}

#[tokio::test]
async fn a_delay_is_kept_in_each_direction() {
    let mirror = mirror();
    let weather = Weather::default().round_trip(milliseconds(120));
    let path = Forwarder::start(mirror.addr, 1, weather).await.unwrap();
    let client = client(&path).await;
    let begun = Instant::now();
    client.send(b"x").await.unwrap();
    assert!(answer(&client, LONG).await.is_some());
    assert!(begun.elapsed() >= milliseconds(120));
}

#[tokio::test]
async fn a_loss_is_counted_and_a_jitter_lets_datagrams_overtake() {
    let mirror = mirror();
    let weather = Weather::default().losing(0.5).jitter(milliseconds(20));
    let path = Forwarder::start(mirror.addr, 1, weather).await.unwrap();
    let client = client(&path).await;
    for n in 0..1000u32 {
        client.send(&n.to_be_bytes()).await.unwrap();
    }
    let mut got = Vec::new();
    while let Some((_, bytes)) = answer(&client, SHORT).await {
        got.push(bytes);
    }
    let counts = path.counts();
    // 1,000 there, half of them back, half of those here.
    assert!((350..=650).contains(&(counts.passed - got.len() as u64)));
    assert!((150..=350).contains(&got.len()), "{}", got.len());
    assert!(counts.overtaken > 100, "{counts:?}");
    assert!(!got.is_sorted());
}

#[tokio::test]
async fn nothing_gets_through_while_it_is_blocked() {
    let mirror = mirror();
    let slow = Weather::default().round_trip(milliseconds(200));
    let path = Forwarder::start(mirror.addr, 1, slow).await.unwrap();
    let client = client(&path).await;
    client.send(b"under way").await.unwrap();
    path.set(Weather::blocked());
    client.send(b"blocked").await.unwrap();
    assert_eq!(answer(&client, SHORT).await, None);
    path.set(Weather::default());
    client.send(b"free").await.unwrap();
    assert_eq!(answer(&client, LONG).await.unwrap().1, b"free");
    assert_eq!(path.counts().blocked, 2);
}

#[tokio::test]
async fn after_a_rebinding_the_server_sees_another_port_and_answers_still_come() {
    let mirror = mirror();
    let path = Forwarder::start(mirror.addr, 1, Weather::default()).await;
    let path = path.unwrap();
    let client = client(&path).await;
    client.send(b"x").await.unwrap();
    let (before, _) = answer(&client, LONG).await.unwrap();
    assert_eq!(path.outward()[0].port(), before);
    // The old port could be given out again while nobody holds it.
    let _held = path
        .shared
        .flows
        .lock()
        .unwrap()
        .values()
        .next()
        .map(|f| f.socket.clone());
    path.rebind();
    client.send(b"x").await.unwrap();
    let (after, _) = answer(&client, LONG).await.unwrap();
    assert_ne!(before, after);
}

#[tokio::test]
async fn the_queue_is_bounded() {
    let mirror = mirror();
    let slow = Weather::default().round_trip(LONG);
    let path = Forwarder::start(mirror.addr, 1, slow).await.unwrap();
    let client = client(&path).await;
    let sent = MOST + 200;
    for n in 0..sent {
        client.send(b"x").await.unwrap();
        // The kernel's buffer is not what is looked at.
        if n % 100 == 99 {
            tokio::task::yield_now().await;
        }
    }
    let deadline = Instant::now() + LONG / 4;
    while path.counts().overflowed == 0 && Instant::now() < deadline {
        tokio::time::sleep(milliseconds(5)).await;
    }
    assert!(path.counts().overflowed > 0, "{:?}", path.counts());
    assert_eq!(path.counts().passed, 0);
}
