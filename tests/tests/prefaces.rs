//! The dialer's socket against bytes that are no preface. After each kind, a
//! good stream must work, and nothing may be left open.
//!
//! | sent | then |
//! |---|---|
//! | every prefix of a good preface | closed by the client, or left hanging |
//! | another version, command, family; a length beyond the limit | closed by the dialer |
//! | no Target; a Target that is none | closed by the dialer |
//! | 300 seeded random openings | closed by either |

use std::{fs, path::Path, time::Duration};

use adit_tests::{
    bare::{self, Dialer},
    client::patiently,
    expect_ok,
    fake_connector::{Asked, FakeConnector},
    keys::Key,
    pattern::Pattern,
    process::until,
};
use adit_wire::{Verdict, preface::Preface};
use anyhow::{Context, Result, bail, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

#[tokio::test(flavor = "multi_thread")]
async fn no_bytes_at_the_socket_harm_the_dialer() {
    expect_ok(hostile().await);
}

async fn hostile() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let fake = FakeConnector::start(Asked::serve).await?;
    let key = Key::new(dir.path(), "dialer")?;
    let hints = [(fake.id.as_str(), fake.addr)];
    let flags = ["--preface-timeout", "1s"];
    let dialer = Dialer::start(dir.path(), &key, &hints, &flags).await?;
    let target = bare::target(
        &[&fake.id],
        "service.internal.test:80",
        Duration::from_secs(5),
    )?;
    let good = Preface {
        target,
        wants_verdict: true,
    }
    .encode()?;
    served(&dialer.socket, &good).await.context("at first")?;

    for end in 0..good.len() {
        let mut socket = UnixStream::connect(&dialer.socket).await?;
        socket.write_all(&good[..end]).await?;
    }
    served(&dialer.socket, &good)
        .await
        .context("after prefixes")?;

    let mut hanging = Vec::new();
    for end in (0..good.len()).step_by(7) {
        let mut socket = UnixStream::connect(&dialer.socket).await?;
        socket.write_all(&good[..end]).await?;
        hanging.push(socket);
    }
    served(&dialer.socket, &good)
        .await
        .context("beside hanging ones")?;
    for mut socket in hanging {
        closed(&mut socket).await.context("a preface that hangs")?;
    }

    // Offsets of the PROXY protocol v2 header: 12 bytes of signature, then
    // version and command, family, and two bytes of length.
    for (what, at, byte) in [
        ("another signature", 0, b'P'),
        ("another version", 12, 0x30),
        ("another command", 12, 0x2f),
        ("a length beyond the limit", 14, 0xff),
        ("another TLV instead of the Target", 16, 0x04),
    ] {
        let mut bad = good.clone();
        bad[at] = byte;
        let mut socket = UnixStream::connect(&dialer.socket).await?;
        let _ = socket.write_all(&bad).await;
        let _ = socket.write_all(&[0; 70_000]).await;
        closed(&mut socket).await.context(what)?;
        served(&dialer.socket, &good).await.context(what)?;
    }

    for seed in 0..300 {
        let mut pattern = Pattern::new(seed);
        let mut bytes = pattern.next_piece(seed * 3).to_vec();
        // Every second one starts as a good one does.
        if seed % 2 == 0 {
            let keep = usize::try_from(seed)? % good.len();
            bytes.splice(0..0, good[..keep].iter().copied());
        }
        let mut socket = UnixStream::connect(&dialer.socket).await?;
        let _ = socket.write_all(&bytes).await;
    }
    served(&dialer.socket, &good)
        .await
        .context("after random bytes")?;

    until("end of every socket", async || {
        let status = dialer.admin.json("/status").await.ok()?;
        let open = fs::read_dir(format!("/proc/{}/fd", dialer.process.pid())).ok()?;
        let sockets = open
            .filter_map(|fd| fs::read_link(fd.ok()?.path()).ok())
            .filter(|link| link.to_string_lossy().starts_with("socket:"))
            .count();
        // What an idle dialer has: listener, admin, UDP, and little more.
        (status["streams"] == 0 && sockets < 20).then_some(())
    })
    .await
}

/// One request on a good stream.
async fn served(socket: &Path, preface: &[u8]) -> Result<()> {
    patiently("a good stream", async {
        let mut socket = UnixStream::connect(socket).await?;
        socket.write_all(preface).await?;
        let mut got = Vec::new();
        let len = loop {
            if let Some((verdict, len)) = Verdict::decode(&got)? {
                ensure!(matches!(verdict, Verdict::Connected(_)), "{verdict:?}");
                break len;
            }
            ensure!(
                socket.read_buf(&mut got).await? > 0,
                "closed before a verdict"
            );
        };
        got.drain(..len);
        socket
            .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            .await?;
        while !got.ends_with(b"fake\n") {
            ensure!(
                socket.read_buf(&mut got).await? > 0,
                "closed before an answer"
            );
        }
        Ok(())
    })
    .await
}

/// The dialer closes, having said nothing but perhaps a refusal.
async fn closed(socket: &mut UnixStream) -> Result<()> {
    patiently("the dialer closes", async {
        let mut got = Vec::new();
        match socket.read_to_end(&mut got).await {
            Ok(_) | Err(_) if got.is_empty() => Ok(()),
            _ => match Verdict::decode(&got)? {
                Some((Verdict::Refused(_), _)) => Ok(()),
                other => bail!("the dialer said {other:?}"),
            },
        }
    })
    .await
}
