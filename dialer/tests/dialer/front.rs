//! Prefaces, backlog, descriptors, the socket file.

use std::{
    io::{BufReader, Write as _},
    os::unix::net::UnixStream as StdStream,
    path::PathBuf,
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

use adit_wire::preface::Preface;
use futures_util::future::join_all;
use rand::{Rng as _, SeedableRng as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
};

use crate::support::{Device, Dialer, End, read_end, soon, target};

async fn send(dialer: &Dialer, bytes: &[u8]) -> UnixStream {
    let mut socket = UnixStream::connect(&dialer.socket).await.unwrap();
    // The dialer may close at the first wrong byte.
    let _ = socket.write_all(bytes).await;
    socket
}

async fn works(dialer: &Dialer) {
    let device = Device::start();
    dialer.tell(&[(device.id, &[device.addr])]);
    assert!(dialer.open(&target(&[device.id])).await.is_ok());
}

fn preface() -> Vec<u8> {
    let nobody = adit_tunnel::ids::to_wire(iroh::SecretKey::generate().public());
    Preface {
        target: target(&[nobody]),
        wants_verdict: true,
    }
    .encode()
    .unwrap()
}

#[tokio::test]
async fn what_is_no_preface_is_closed_without_a_word() {
    let dialer = Dialer::start().await;
    let mut random = rand::rngs::StdRng::seed_from_u64(7);
    let mut wrong: Vec<Vec<u8>> = vec![
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0; 9000],
        // A health check: LOCAL without a Target.
        b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0".to_vec(),
        // Another version; an announced length over the limit.
        b"\r\n\r\n\0\r\nQUIT\n\x10\0\0\0".to_vec(),
        b"\r\n\r\n\0\r\nQUIT\n\x20\0\xff\xff".to_vec(),
    ];
    for _ in 0..50 {
        let mut bytes = vec![0; random.random_range(1..3000)];
        random.fill(&mut bytes[..]);
        wrong.push(bytes);
        let mut bytes = preface();
        let at = random.random_range(0..28);
        bytes[at] ^= 1 << random.random_range(0..8);
        // A flipped bit may leave a preface that is valid or incomplete: cut
        // it, and it is neither.
        bytes.truncate(at.max(16) + 1);
        wrong.push(bytes);
    }
    for bytes in wrong {
        let mut socket = send(&dialer, &bytes).await;
        let _ = socket.shutdown().await;
        let (said, _) = read_end(&mut socket).await;
        assert!(said.is_empty(), "{bytes:?}");
    }
    works(&dialer).await;
}

#[tokio::test]
async fn every_truncated_preface_is_closed_and_the_dialer_goes_on() {
    let dialer = Dialer::start().await;
    let whole = preface();
    for end in 0..whole.len() {
        let mut socket = send(&dialer, &whole[..end]).await;
        socket.shutdown().await.unwrap();
        assert_eq!(read_end(&mut socket).await, (vec![], End::Abort), "{end}");
    }
    works(&dialer).await;
}

#[tokio::test]
async fn a_preface_that_does_not_come_is_not_waited_for() {
    let dialer = Dialer::with(|o| o.preface_timeout = "100ms".parse().ok()).await;
    let mut socket = send(&dialer, &preface()[..20]).await;
    assert_eq!(read_end(&mut socket).await, (vec![], End::Abort));
}

#[tokio::test]
async fn clients_without_a_preface_do_not_keep_others_out() {
    let dialer = Dialer::start().await;
    let mut idle = Vec::new();
    for _ in 0..200 {
        idle.push(UnixStream::connect(&dialer.socket).await.unwrap());
    }
    works(&dialer).await;
}

#[tokio::test]
async fn a_preface_that_comes_byte_by_byte_is_taken() {
    let (dialer, device) = (Dialer::start().await, Device::start());
    dialer.tell(&[(device.id, &[device.addr])]);
    let bytes = Preface {
        target: target(&[device.id]),
        wants_verdict: true,
    }
    .encode()
    .unwrap();
    let mut socket = UnixStream::connect(&dialer.socket).await.unwrap();
    for byte in bytes {
        socket.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let verdict = crate::support::verdict(&mut socket).await;
    assert!(matches!(verdict, adit_wire::Verdict::Connected(_)));
}

/// Envoy does not wait for a full backlog: whatever it opens at once must be
/// taken.
#[tokio::test]
async fn fifteen_hundred_connects_at_once_all_get_an_answer() {
    let (dialer, device) = (Dialer::start().await, Device::start());
    dialer.tell(&[(device.id, &[device.addr])]);
    let wanted = Preface {
        target: target(&[device.id]),
        wants_verdict: true,
    }
    .encode()
    .unwrap();
    let path = dialer.socket.clone();
    let sockets = tokio::task::spawn_blocking(move || {
        // Nonblocking, as Envoy connects.
        let connect = |_| {
            let socket = rustix::net::socket_with(
                rustix::net::AddressFamily::UNIX,
                rustix::net::SocketType::STREAM,
                rustix::net::SocketFlags::NONBLOCK,
                None,
            )
            .unwrap();
            let address = rustix::net::SocketAddrUnix::new(&path).unwrap();
            rustix::net::connect(&socket, &address).expect("no EAGAIN");
            StdStream::from(socket)
        };
        (0..1500).map(connect).collect::<Vec<_>>()
    })
    .await
    .unwrap();
    let ask = sockets.into_iter().map(|socket| async {
        let mut socket = UnixStream::from_std(socket).unwrap();
        socket.write_all(&wanted).await.unwrap();
        let verdict = crate::support::verdict(&mut socket).await;
        assert!(matches!(verdict, adit_wire::Verdict::Connected(_)));
        socket
    });
    let open = join_all(ask).await;
    assert_eq!(device.connections(), 1);
    drop(open);
}

/// Runs a dialer in a process of its own: this test binary again, which then
/// runs only [`child`].
fn spawn_dialer(dir: &std::path::Path, descriptors: u64) -> (Child, BufReader<ChildStdout>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "front::child", "--nocapture", "--test-threads=1"])
        .env("ADIT_TEST_DIALER_DIR", dir)
        .env("ADIT_TEST_DESCRIPTORS", descriptors.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    wait_ready(&mut out);
    (child, out)
}

fn wait_ready(out: &mut impl std::io::BufRead) {
    let mut line = String::new();
    while !line.contains("READY") {
        line.clear();
        assert_ne!(out.read_line(&mut line).unwrap(), 0, "it has ended");
    }
}

/// Not a test of its own: the other process of the tests below. It ends when
/// its standard input does.
#[test]
fn child() {
    let Some(dir) = std::env::var_os("ADIT_TEST_DIALER_DIR").map(PathBuf::from) else {
        return;
    };
    let descriptors = std::env::var("ADIT_TEST_DESCRIPTORS")
        .unwrap()
        .parse()
        .unwrap();
    let limit = rustix::process::Rlimit {
        current: Some(descriptors),
        maximum: Some(descriptors),
    };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async move {
        let options = Dialer::options_in(&dir);
        let stop = tokio_util::sync::CancellationToken::new();
        let run = tokio::spawn(adit_dialer::run(options.resolve().unwrap(), stop.clone()));
        let socket = dir.join("s");
        soon("the dialer listens", async {
            while StdStream::connect(&socket).is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        // It listens before it serves: wait until it closes what is no preface.
        let mut nonsense = UnixStream::connect(&socket).await.unwrap();
        nonsense.write_all(b"?").await.unwrap();
        read_end(&mut nonsense).await;
        println!("READY");
        tokio::task::spawn_blocking(obey).await.unwrap();
        stop.cancel();
        run.await.unwrap().unwrap();
    });
}

/// Does what the parent says until it says no more.
fn obey() {
    let mut hogged = Vec::new();
    for line in std::io::stdin().lines() {
        match line.unwrap().as_str() {
            "hog" => {
                while let Ok(file) = std::fs::File::open("/dev/null") {
                    hogged.push(file);
                }
                println!("READY");
            }
            "free" => hogged.clear(),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn with_256_descriptors_excess_clients_wait_and_none_fails() {
    let dir = tempfile::tempdir().unwrap();
    let device = Device::start();
    Dialer::write_hints(dir.path(), &[(device.id, &[device.addr])]);
    let (mut child, _out) = spawn_dialer(dir.path(), 256);
    let wanted = Preface {
        target: target(&[device.id]),
        wants_verdict: true,
    }
    .encode()
    .unwrap();
    // More than twice as many as there are descriptors, at once, each for one
    // exchange.
    let exchange = (0..600).map(|_| async {
        let mut socket = UnixStream::connect(dir.path().join("s")).await.unwrap();
        socket.write_all(&wanted).await.unwrap();
        let verdict = crate::support::verdict(&mut socket).await;
        assert!(matches!(verdict, adit_wire::Verdict::Connected(_)));
        socket.write_all(b"ping").await.unwrap();
        socket.shutdown().await.unwrap();
        let mut back = Vec::new();
        soon("an echo", socket.read_to_end(&mut back))
            .await
            .unwrap();
        assert_eq!(back, b"ping");
    });
    join_all(exchange).await;
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}

#[tokio::test]
async fn a_dialer_that_is_killed_is_an_abort_at_every_socket_and_its_file_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let device = Device::start();
    Dialer::write_hints(dir.path(), &[(device.id, &[device.addr])]);
    let (mut child, _out) = spawn_dialer(dir.path(), 1024);
    let wanted = Preface {
        target: target(&[device.id]),
        wants_verdict: true,
    }
    .encode()
    .unwrap();
    let mut socket = UnixStream::connect(dir.path().join("s")).await.unwrap();
    socket.write_all(&wanted).await.unwrap();
    crate::support::verdict(&mut socket).await;
    socket.write_all(b"half").await.unwrap();
    let mut back = [0; 4];
    soon("an echo", socket.read_exact(&mut back)).await.unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(read_end(&mut socket).await, (vec![], End::Abort));
    // The next one finds its stale file and goes on.
    let (mut next, _out) = spawn_dialer(dir.path(), 1024);
    let mut socket = UnixStream::connect(dir.path().join("s")).await.unwrap();
    socket.write_all(&wanted).await.unwrap();
    let verdict = crate::support::verdict(&mut socket).await;
    assert!(matches!(verdict, adit_wire::Verdict::Connected(_)));
    next.stdin.take().unwrap().flush().unwrap();
    assert!(next.wait().unwrap().success());
}

#[tokio::test]
async fn while_no_descriptor_is_left_clients_wait_and_then_they_are_served() {
    let dir = tempfile::tempdir().unwrap();
    let device = Device::start();
    Dialer::write_hints(dir.path(), &[(device.id, &[device.addr])]);
    let (mut child, mut out) = spawn_dialer(dir.path(), 256);
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"hog\n").unwrap();
    wait_ready(&mut out);
    let wanted = Preface {
        target: target(&[device.id]),
        wants_verdict: true,
    }
    .encode()
    .unwrap();
    let mut sockets = Vec::new();
    for _ in 0..20 {
        let mut socket = UnixStream::connect(dir.path().join("s")).await.unwrap();
        socket.write_all(&wanted).await.unwrap();
        sockets.push(socket);
    }
    let early = tokio::time::timeout(Duration::from_millis(300), sockets[0].read_u8()).await;
    assert!(early.is_err(), "nobody can have been accepted");
    input.write_all(b"free\n").unwrap();
    for socket in &mut sockets {
        let verdict = crate::support::verdict(socket).await;
        assert!(matches!(verdict, adit_wire::Verdict::Connected(_)));
    }
    drop(sockets);
    drop(input);
    assert!(child.wait().unwrap().success());
}
