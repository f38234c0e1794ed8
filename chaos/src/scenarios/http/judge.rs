//! The stage for raw requests, and the verdict on each.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use adit_tests::{
    client::http::get,
    stage::{Plan, Stage},
};
use anyhow::{Context as _, Result, bail, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

use super::witness::{Seen, Witness};

/// A connection that is silent for this long will say nothing more.
const QUIET: Duration = Duration::from_secs(2);
/// A connection that goes on for longer is no answer.
const LONGEST: Duration = Duration::from_secs(10);

/// What must become of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Must {
    /// Not reach any service.
    BeRefused,
    /// Never reach it whole: its head may, and is cut.
    BeCut,
    /// Reach the service, once.
    Arrive,
    /// Either: both are right by the RFCs.
    BeOne,
    /// Either; and what follows may be the next request of the connection, if
    /// Envoy itself has read it as one, with all that it does to requests.
    BeApart,
}

/// A request as bytes. In its path stands `CASE`, in that of what it smuggles
/// `SMUGGLED`; [`numbered`] makes them unique.
pub(super) struct Case {
    pub(super) what: &'static str,
    pub(super) bytes: Vec<u8>,
    pub(super) must: Must,
}

/// Two services behind one connector: `raw.test` and `other.test`.
pub(super) struct Ground {
    pub(super) stage: Stage,
    pub(super) raw: Witness,
    pub(super) other: Witness,
}

impl Ground {
    pub(super) async fn start(version: &str) -> Result<Self> {
        let (raw, other) = (Witness::start().await?, Witness::start().await?);
        let plan = Plan::of(version)
            .service("raw", raw.endpoint())
            .service("other", other.endpoint());
        let stage = plan.start().await?;
        for host in ["raw.test", "other.test"] {
            let answer = get(stage.addr(), host, "/first").await?;
            ensure!(answer.status == 200, "{host}: {}", answer.text());
        }
        Ok(Self { stage, raw, other })
    }

    /// Waits until whatever came before has reached the services too: both are
    /// asked once more, each by a new connection.
    pub(super) async fn settled(&self) -> Result<()> {
        for (host, witness) in [("raw.test", &self.raw), ("other.test", &self.other)] {
            let answer = get(self.stage.addr(), host, "/last").await?;
            ensure!(answer.status == 200, "{host} afterwards: {}", answer.text());
            witness.until_seen("/last").await?;
        }
        Ok(())
    }

    /// Judges all cases, each with its answer in words.
    pub(super) fn verdict(&self, cases: &[Case], answers: &[String]) -> Result<String> {
        let (mut arrived, mut broken) = (0, Vec::new());
        for (n, (case, answer)) in cases.iter().zip(answers).enumerate() {
            match self.judge(case, n) {
                Ok(count) => arrived += count,
                Err(error) => broken.push(format!("{} ({answer}): {error:#}", case.what)),
            }
        }
        ensure!(
            broken.is_empty(),
            "{} of {}: {}",
            broken.len(),
            cases.len(),
            broken.join("; ")
        );
        Ok(format!(
            "of {} requests {arrived} arrived, each as one",
            cases.len(),
        ))
    }

    /// Whether what the services saw of case `n` is what it must be; says how
    /// many requests arrived.
    fn judge(&self, case: &Case, n: usize) -> Result<usize> {
        let [path, smuggled] = paths(n);
        let mut arrived = 0;
        let mut last = None;
        for (witness, host) in [(&self.raw, "raw.test"), (&self.other, "other.test")] {
            for seen in witness.seen() {
                let head = String::from_utf8_lossy(&seen.head).into_owned();
                let two = || format!("two requests out of one: {}", seen.text());
                ensure!(!begins_anew(&head, &smuggled), two());
                if seen.target().contains(&smuggled) {
                    let read = case.must == Must::BeApart && by_envoy(&seen);
                    ensure!(read, two());
                    well_formed(&seen, host).with_context(two)?;
                }
                if head.lines().next().is_some_and(|line| line.contains(&path)) {
                    arrived += 1;
                    well_formed(&seen, host).with_context(|| seen.text())?;
                    last = Some(seen);
                }
            }
        }
        ensure!(arrived <= 1, "it arrived {arrived} times");
        match case.must {
            Must::BeRefused | Must::BeCut => {
                let too_much = last.filter(|seen| case.must == Must::BeRefused || seen.whole);
                if let Some(seen) = too_much {
                    bail!("it reached the service: {}", seen.text());
                }
            }
            Must::Arrive => ensure!(arrived == 1, "it did not reach the service"),
            Must::BeOne | Must::BeApart => {}
        }
        Ok(arrived)
    }
}

/// The paths of case `n` and of what it smuggles; the latter is as long as what
/// stands for it, because lengths are counted before.
fn paths(n: usize) -> [String; 2] {
    [format!("/case-{n}-"), format!("/sm-{n:03}-")]
}

/// The bytes with this case's number in its paths.
pub(super) fn numbered(bytes: &[u8], n: usize) -> Vec<u8> {
    let [path, smuggled] = paths(n);
    let case = replace(bytes, b"CASE", path.as_bytes());
    replace(&case, b"SMUGGLED", smuggled.as_bytes())
}

fn replace(bytes: &[u8], what: &[u8], with: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = bytes;
    while let Some(at) = rest.windows(what.len()).position(|w| w == what) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(with);
        rest = &rest[at + what.len()..];
    }
    out.extend_from_slice(rest);
    out
}

/// A second request line within a head: a service that takes a bare CR or LF for
/// a line's end would see it.
fn begins_anew(head: &str, smuggled: &str) -> bool {
    let mut lines = head.split(['\r', '\n']).skip(1);
    lines.any(|line| line.starts_with("GET ") && line.contains(smuggled))
}

/// Envoy gives each request that it reads a number of its own.
fn by_envoy(seen: &Seen) -> bool {
    seen.values("x-request-id").len() == 1
}

/// One length, one host which is the routed one, no reserved field, and no line
/// that another reader would end elsewhere.
fn well_formed(seen: &Seen, host: &str) -> Result<()> {
    let head = String::from_utf8_lossy(&seen.head);
    for line in head.split("\r\n") {
        ensure!(!line.contains(['\r', '\n', '\0']), "a bare CR, LF or NUL");
        ensure!(!line.starts_with([' ', '\t']), "a folded line");
    }
    let (lengths, codings) = (
        seen.values("content-length"),
        seen.values("transfer-encoding"),
    );
    ensure!(
        lengths.len() + codings.len() <= 1,
        "more than one length: {lengths:?} {codings:?}"
    );
    let hosts = seen.values("host");
    let routed = |value: &String| {
        let name = value.split(':').next().unwrap_or_default();
        name.eq_ignore_ascii_case(host)
    };
    ensure!(
        hosts.len() == 1 && hosts.iter().all(routed),
        "the hosts are {hosts:?}, and {host} was routed"
    );
    let reserved = seen.names().into_iter().find(|name| is_reserved(name));
    ensure!(reserved.is_none(), "a reserved field: {reserved:?}");
    Ok(())
}

/// By the list of the documentation, written down here once more on purpose.
pub(super) fn is_reserved(name: &str) -> bool {
    let prefixes = ["x-adit-", "x-iroh-", "x-datum-", "datum-target-"];
    // Many services make one variable of both (RFC 3875, section 4.1.18).
    let name = name.replace('_', "-");
    name == "datum-node-id" || prefixes.iter().any(|prefix| name.starts_with(prefix))
}

/// How a request's bytes are sent. A reader that has only a part of a head, a
/// chunk's size or a frame may decide otherwise than one that has all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sending {
    /// By one write.
    AtOnce,
    /// By several, with a pause after each.
    InPieces,
}

impl Sending {
    /// Both, in the order in which a table is sent.
    const ALL: [Self; 2] = [Self::AtOnce, Self::InPieces];
    /// The least of a piece in bytes: shorter than most lines.
    const PIECE: usize = 24;
    /// The most pieces of a request: with the pauses below a second in all.
    const PIECES: usize = 80;
    const PAUSE: Duration = Duration::from_millis(5);

    async fn send(self, tcp: &mut TcpStream, bytes: &[u8]) -> std::io::Result<()> {
        if self == Self::AtOnce {
            return tcp.write_all(bytes).await;
        }
        let piece = bytes.len().div_ceil(Self::PIECES).max(Self::PIECE);
        for piece in bytes.chunks(piece) {
            tcp.write_all(piece).await?;
            sleep(Self::PAUSE).await;
        }
        Ok(())
    }
}

impl std::fmt::Display for Sending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::AtOnce => "at once",
            Self::InPieces => "in pieces",
        })
    }
}

/// Sends a table each way.
pub(super) async fn each_way<F>(table: impl Fn(Sending) -> F) -> Result<String>
where
    F: Future<Output = Result<String>>,
{
    let mut said = Vec::new();
    for sending in Sending::ALL {
        let outcome = table(sending).await.context(sending)?;
        said.push(format!("{sending}: {outcome}"));
    }
    Ok(said.join("; "))
}

/// Sends bytes on a connection of its own; everything that came back until it
/// was closed, or fell silent.
pub(super) async fn exchange(addr: SocketAddr, bytes: &[u8], sending: Sending) -> Result<Vec<u8>> {
    let mut tcp = TcpStream::connect(addr).await?;
    tcp.set_nodelay(true)?;
    // Envoy may refuse and close before it has read all of it.
    let _ = sending.send(&mut tcp, bytes).await;
    let mut got = Vec::new();
    let begun = Instant::now();
    while begun.elapsed() < LONGEST {
        match timeout(QUIET, tcp.read_buf(&mut got)).await {
            Ok(Ok(n)) if n > 0 => {}
            // Closed, reset, or silent.
            _ => break,
        }
    }
    Ok(got)
}
