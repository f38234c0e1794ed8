//! Bytes, half-closes, aborts, the verdict, early data, TLS.

use adit_wire::{ErrorClass, Path, Protocol, Tls, preface::Preface};
use iroh::endpoint::{ReadError, RecvStream, SendStream, VarInt};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    sync::mpsc,
};

use crate::support::{
    Device, Dialer, End, accept, echo, hasty, read_all, read_end, request, service, soon, target,
};

#[tokio::test]
async fn bytes_go_both_ways_and_the_verdict_names_the_connector_and_its_path() {
    let (dialer, device) = (Dialer::start().await, Device::start());
    dialer.tell(&[(device.id, &[device.addr])]);
    let (mut socket, connected) = dialer.open(&target(&[device.id])).await.unwrap();
    assert_eq!(connected.connector, device.id);
    assert_eq!(connected.path, Path::Direct);
    socket.write_all(b"hello").await.unwrap();
    let mut back = [0; 5];
    soon("an echo", socket.read_exact(&mut back)).await.unwrap();
    assert_eq!(&back, b"hello");
    socket.shutdown().await.unwrap();
    assert!(read_all(&mut socket).await.is_empty());
}

#[tokio::test]
async fn a_megabyte_is_the_same_at_the_other_end() {
    let (dialer, device) = (Dialer::start().await, Device::start());
    dialer.tell(&[(device.id, &[device.addr])]);
    let (socket, _) = dialer.open(&target(&[device.id])).await.unwrap();
    let sent: Vec<u8> = (0..8u32 << 20).map(|i| (i ^ (i >> 8)) as u8).collect();
    let (mut reader, mut writer) = socket.into_split();
    let write = async {
        writer.write_all(&sent).await.unwrap();
        writer.shutdown().await.unwrap();
    };
    let mut received = Vec::new();
    let (_, read) = tokio::join!(write, soon("the echo", reader.read_to_end(&mut received)));
    read.unwrap();
    assert!(sent == received);
}

#[tokio::test]
async fn thirty_cold_streams_share_one_connection() {
    let (dialer, device) = (Dialer::start().await, Device::start());
    dialer.tell(&[(device.id, &[device.addr])]);
    let wanted = target(&[device.id]);
    let open = (0..30).map(|_| dialer.open(&wanted));
    let opened = futures_util::future::join_all(open).await;
    assert!(opened.iter().all(Result::is_ok));
    assert_eq!(device.connections(), 1);
    assert_eq!(device.streams(), 30);
}

#[tokio::test]
async fn a_service_that_ends_first_leaves_the_other_half_open() {
    let device = Device::serving(service(
        async |mut send: SendStream, mut recv: RecvStream| {
            accept(&mut send, &mut recv, Ok(())).await;
            send.write_all(b"banner").await.unwrap();
            send.finish().unwrap();
            assert_eq!(recv.read_to_end(99).await.unwrap(), b"late");
            // Its end is all that is told.
        },
    ));
    let dialer = Dialer::start().await;
    dialer.tell(&[(device.id, &[device.addr])]);
    let (mut socket, _) = dialer.open(&target(&[device.id])).await.unwrap();
    assert_eq!(
        read_end(&mut socket).await,
        (b"banner".to_vec(), End::Clean)
    );
    socket.write_all(b"late").await.unwrap();
    socket.shutdown().await.unwrap();
    crate::support::until("the service has read it", || device.streams() == 0).await;
}

#[tokio::test]
async fn a_reset_from_the_connector_is_an_abort_at_the_socket() {
    let device = Device::serving(service(
        async |mut send: SendStream, mut recv: RecvStream| {
            accept(&mut send, &mut recv, Ok(())).await;
            send.write_all(b"half a").await.unwrap();
            let mut start = [0; 2];
            recv.read_exact(&mut start).await.unwrap();
            send.reset(VarInt::from_u32(1)).unwrap();
        },
    ));
    let dialer = Dialer::start().await;
    dialer.tell(&[(device.id, &[device.addr])]);
    let (mut socket, _) = dialer.open(&target(&[device.id])).await.unwrap();
    let mut half = [0; 6];
    soon("some bytes", socket.read_exact(&mut half))
        .await
        .unwrap();
    socket.write_all(b"go").await.unwrap();
    assert_eq!(read_end(&mut socket).await.1, End::Abort);
}

#[tokio::test]
async fn how_a_client_leaves_is_how_the_stream_ends() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let device = Device::serving(service(move |mut send, mut recv| {
        let tell = tell.clone();
        async move {
            accept(&mut send, &mut recv, Ok(())).await;
            let end = loop {
                match recv.read_chunk(1000).await {
                    Ok(Some(_)) => {}
                    Ok(None) => break "clean",
                    Err(ReadError::Reset(_)) => break "reset",
                    Err(_) => break "lost",
                }
            };
            tell.send(end).unwrap();
        }
    }));
    let dialer = Dialer::start().await;
    dialer.tell(&[(device.id, &[device.addr])]);
    let wanted = target(&[device.id]);
    let (mut polite, _) = dialer.open(&wanted).await.unwrap();
    polite.write_all(b"bye").await.unwrap();
    polite.shutdown().await.unwrap();
    assert_eq!(soon("an end", told.recv()).await, Some("clean"));
    let (mut rude, _) = dialer.open(&wanted).await.unwrap();
    rude.write_all(b"so").await.unwrap();
    drop(rude);
    assert_eq!(soon("an end", told.recv()).await, Some("reset"));
}

#[tokio::test]
async fn without_the_flag_there_is_no_verdict_and_early_data_goes_with_the_request() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let device = Device::serving(service(move |mut send, mut recv| {
        let tell = tell.clone();
        async move {
            tell.send(request(&mut recv).await).unwrap();
            let answer = adit_wire::connect::encode_answer(Ok(()));
            send.write_all(&[&answer, &b"welcome"[..]].concat())
                .await
                .unwrap();
            send.finish().unwrap();
            let _ = recv.read_to_end(99).await;
        }
    }));
    let dialer = Dialer::start().await;
    dialer.tell(&[(device.id, &[device.addr])]);
    let preface = Preface {
        target: target(&[device.id]),
        wants_verdict: false,
    };
    let mut bytes = preface.encode().unwrap();
    bytes.extend_from_slice(b"GET /");
    let mut socket = UnixStream::connect(&dialer.socket).await.unwrap();
    socket.write_all(&bytes).await.unwrap();
    assert_eq!(soon("a request", told.recv()).await.unwrap(), b"GET /");
    assert_eq!(
        read_end(&mut socket).await,
        (b"welcome".to_vec(), End::Clean)
    );
}

#[tokio::test]
async fn without_the_flag_a_failure_is_an_abort_without_a_word() {
    let dialer = Dialer::start().await;
    let nobody = adit_tunnel::ids::to_wire(iroh::SecretKey::generate().public());
    let preface = Preface {
        target: target(&[nobody]),
        wants_verdict: false,
    };
    let mut socket = UnixStream::connect(&dialer.socket).await.unwrap();
    socket.write_all(&preface.encode().unwrap()).await.unwrap();
    assert_eq!(read_end(&mut socket).await, (vec![], End::Abort));
}

#[tokio::test]
async fn bytes_that_come_before_the_verdict_are_kept_in_order() {
    let (dialer, device) = (Dialer::start().await, Device::start());
    dialer.tell(&[(device.id, &[device.addr])]);
    let mut socket = dialer.ask(&target(&[device.id])).await;
    socket.write_all(b"one ").await.unwrap();
    let verdict = crate::support::verdict(&mut socket).await;
    assert!(matches!(verdict, adit_wire::Verdict::Connected(_)));
    socket.write_all(b"two").await.unwrap();
    socket.shutdown().await.unwrap();
    assert_eq!(read_all(&mut socket).await, b"one two");
}

/// A service that speaks TLS inside the tunnel, with a certificate for
/// `service.test`; and the PEM of its authority.
fn tls_service(alpn: &[&str]) -> (crate::support::Service, String) {
    let key = rcgen::generate_simple_self_signed(["service.test".to_owned()]).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![key.cert.der().clone()],
            rustls::pki_types::PrivateKeyDer::Pkcs8(key.signing_key.serialize_der().into()),
        )
        .unwrap();
    config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
    let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
    let serve = service(move |mut send: SendStream, mut recv: RecvStream| {
        let acceptor = acceptor.clone();
        async move {
            accept(&mut send, &mut recv, Ok(())).await;
            let io = tokio::io::join(recv, send);
            let Ok(mut tls) = acceptor.accept(io).await else {
                return;
            };
            let name = tls.get_ref().1.server_name().unwrap_or("none").to_owned();
            // The dialer may leave at any point.
            let _ = tls.write_all(name.as_bytes()).await;
            let mut said = Vec::new();
            let _ = tls.read_to_end(&mut said).await;
            let _ = tls.write_all(&said).await;
            let _ = tls.shutdown().await;
        }
    });
    (serve, key.cert.pem())
}

fn tls_target(device: &Device, server_name: &str, ca: &str, alpn: &[&str]) -> adit_wire::Target {
    adit_wire::Target {
        protocol: Protocol::Tls(Tls {
            server_name: server_name.parse().unwrap(),
            ca: ca.into(),
            alpn: alpn.iter().map(|p| (*p).into()).collect(),
        }),
        ..target(&[device.id])
    }
}

#[tokio::test]
async fn tls_is_spoken_inside_the_tunnel_and_verified() {
    let (serve, pem) = tls_service(&["h2"]);
    let device = Device::serving(serve);
    let dialer = Dialer::with(|options| {
        let file = options.state.as_ref().unwrap().with_file_name("ca.pem");
        std::fs::write(&file, pem).unwrap();
        options.tls_ca_named = vec![format!("shop={}", file.display())];
        // Another authority, so that this is not about the system's.
        let other = rcgen::generate_simple_self_signed(["other".to_owned()]).unwrap();
        let file = file.with_file_name("other.pem");
        std::fs::write(&file, other.cert.pem()).unwrap();
        options.tls_ca = Some(file);
    })
    .await;
    dialer.tell(&[(device.id, &[device.addr])]);

    let good = tls_target(&device, "service.test", "shop", &["h2"]);
    let (mut socket, _) = dialer.open(&good).await.unwrap();
    socket.write_all(b", said twice").await.unwrap();
    socket.shutdown().await.unwrap();
    let said = read_all(&mut socket).await;
    assert_eq!(String::from_utf8(said).unwrap(), "service.test, said twice");

    for (name, ca, alpn, class, says) in [
        (
            "wrong.test",
            "shop",
            &["h2"][..],
            ErrorClass::Tls,
            "wrong.test",
        ),
        (
            "service.test",
            "",
            &["h2"],
            ErrorClass::Tls,
            "invalid peer certificate",
        ),
        (
            "service.test",
            "shop",
            &["imap"],
            ErrorClass::Tls,
            "service.test",
        ),
        (
            "service.test",
            "nobody",
            &[],
            ErrorClass::Misconfigured,
            "--tls-ca-named",
        ),
    ] {
        let refusal = dialer.refused(&tls_target(&device, name, ca, alpn)).await;
        assert_eq!(refusal.class, class, "{}", refusal.text);
        assert!(refusal.text.contains(says), "{}", refusal.text);
    }
}

#[tokio::test]
async fn an_h2_service_that_agrees_on_nothing_is_refused_and_http1_is_not() {
    let (serve, pem) = tls_service(&[]);
    let device = Device::serving(serve);
    let dialer = Dialer::with(|options| {
        let file = options.state.as_ref().unwrap().with_file_name("ca.pem");
        std::fs::write(&file, pem).unwrap();
        options.tls_ca = Some(file);
    })
    .await;
    dialer.tell(&[(device.id, &[device.addr])]);
    let refusal = dialer
        .refused(&tls_target(&device, "service.test", "", &["h2"]))
        .await;
    assert_eq!(refusal.class, ErrorClass::Tls);
    assert!(refusal.text.contains("ALPN"), "{}", refusal.text);
    let fine = tls_target(&device, "service.test", "", &["http/1.1"]);
    assert!(dialer.open(&fine).await.is_ok());
}

#[tokio::test]
async fn a_service_that_speaks_no_tls_fails_as_tls() {
    let device = Device::serving(echo());
    let dialer = Dialer::with(|options| {
        let key = rcgen::generate_simple_self_signed(["a".to_owned()]).unwrap();
        let file = options.state.as_ref().unwrap().with_file_name("ca.pem");
        std::fs::write(&file, key.cert.pem()).unwrap();
        options.tls_ca = Some(file);
    })
    .await;
    dialer.tell(&[(device.id, &[device.addr])]);
    let mut wanted = tls_target(&device, "service.test", "", &[]);
    assert_eq!(dialer.refused(&wanted).await.class, ErrorClass::Tls);
    // A service that never says anything is too slow.
    let silent = Device::serving(service(
        async |mut send: SendStream, mut recv: RecvStream| {
            accept(&mut send, &mut recv, Ok(())).await;
            std::future::pending().await
        },
    ));
    dialer.tell(&[(silent.id, &[silent.addr])]);
    wanted = adit_wire::Target {
        deadline: hasty(&[], 300).deadline,
        ..tls_target(&silent, "service.test", "", &[])
    };
    assert_eq!(dialer.refused(&wanted).await.class, ErrorClass::Timeout);
}
