//! Opening a tunnel over a link: a QUIC stream, CONNECT, the connector's
//! answer, and TLS where the target asks for it. Nothing of the client's is
//! sent before the answer, unless the client cannot wait for it.

use std::{pin::pin, sync::Arc, time::Duration};

use adit_tunnel::stream::{TunnelIo, TunnelRecv, TunnelSend};
use adit_wire::{
    ErrorClass, Protocol, Target,
    connect::{self, HeadError},
};
use bytes::{Bytes, BytesMut};
use iroh::endpoint::{ConnectionError, ReadError, WriteError};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_rustls::client::TlsStream;

use crate::{
    pool::{Admission, Connector, Link, Pool, class_of, describe},
    tls::{TlsClient, TlsError},
};

/// A connector's answer includes its connect to a service beside it; one that
/// takes longer is a reason to ask whether the connector is still there.
const DOUBT: Duration = Duration::from_millis(250);

/// A tunnel that stands.
pub struct Tunnel {
    /// Through whom.
    pub connector: Arc<Connector>,
    /// Over what.
    pub link: Arc<Link>,
    /// The bytes' way.
    pub bytes: TunnelBytes,
    /// Its place among the open streams.
    pub admission: Admission,
}

/// How the bytes go.
pub enum TunnelBytes {
    /// As they are; some may have been received with the answer.
    Plain(TunnelSend, TunnelRecv, Bytes),
    /// Inside TLS, with what tells that the tunnel below was stopped.
    Tls(
        Box<TlsStream<TunnelIo>>,
        std::pin::Pin<Box<dyn Future<Output = ()> + Send>>,
    ),
}

/// Why a link gave no tunnel.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The link broke: nothing is known of the service.
    #[error("the connection broke: {}", describe(.0))]
    Lost(ConnectionError),
    /// The queue has no place.
    #[error("too many streams wait for this connector")]
    QueueFull,
    /// Too slow, at this step.
    #[error("{0} took too long")]
    Timeout(&'static str),
    /// The connector says no.
    #[error("the connector answers: {0}")]
    Answer(ErrorClass),
    /// The connector's answer is none.
    #[error("the connector answers nonsense: {0}")]
    Nonsense(#[from] HeadError),
    /// The connector ended or reset the stream instead of answering.
    #[error("the connector gave the stream up before it answered")]
    NoAnswer,
    /// TLS to the service.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl OpenError {
    /// What may be told to a client.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Lost(error) => class_of(error),
            Self::QueueFull => ErrorClass::Overloaded,
            Self::Timeout(_) => ErrorClass::Timeout,
            Self::Answer(class) => *class,
            Self::Nonsense(_) | Self::NoAnswer => ErrorClass::Internal,
            Self::Tls(TlsError::UnknownCa(_) | TlsError::NoRoots) => ErrorClass::Misconfigured,
            Self::Tls(_) => ErrorClass::Tls,
        }
    }
}

impl From<ConnectionError> for OpenError {
    fn from(error: ConnectionError) -> Self {
        Self::Lost(error)
    }
}

impl From<WriteError> for OpenError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::ConnectionLost(error) => Self::Lost(error),
            _ => Self::NoAnswer,
        }
    }
}

impl From<ReadError> for OpenError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::ConnectionLost(error) => Self::Lost(error),
            _ => Self::NoAnswer,
        }
    }
}

/// Opens a tunnel, waiting for a place first. `early` is sent together with
/// the request, which only a client that waits for no verdict asks for.
///
/// # Errors
/// When there is none by `until`, or the connector or the service says no.
pub async fn open(
    pool: &Pool,
    tls: &TlsClient,
    connector: Arc<Connector>,
    link: Arc<Link>,
    target: &Target,
    early: Bytes,
    until: Instant,
) -> Result<Tunnel, OpenError> {
    let admission = timeout_at(until, connector.admit(pool))
        .await
        .map_err(|_| OpenError::Timeout("waiting for a place"))?
        .ok_or(OpenError::QueueFull)?;
    // noq lets a peer's limit on streams block for ever.
    let (send, recv) = timeout_at(until, link.connection.open_bi())
        .await
        .map_err(|_| OpenError::Timeout("waiting for the connector to take another stream"))??;
    let (mut send, mut recv) = (TunnelSend::new(send), TunnelRecv::new(recv));
    let mut request = BytesMut::from(connect::encode_request(&target.service).as_slice());
    request.extend_from_slice(&early);
    let answer = async {
        // One write: request and early data leave in one packet.
        send.write(request.freeze()).await?;
        read_answer(&mut recv).await
    };
    let buffered = timeout_at(until, or_doubt(&link, answer))
        .await
        .map_err(|_| OpenError::Timeout("the connector's answer"))??;
    let bytes = match &target.protocol {
        Protocol::Tcp => TunnelBytes::Plain(send, recv, buffered),
        Protocol::Tls(wanted) => {
            let stopped = Box::pin(send.stopped());
            let io = TunnelIo::new(send, recv, buffered);
            let stream = timeout_at(until, tls.connect(wanted, io))
                .await
                .map_err(|_| OpenError::Timeout("the TLS handshake with the service"))?
                .map_err(|error| match link.connection.close_reason() {
                    Some(lost) => OpenError::Lost(lost),
                    None => error.into(),
                })?;
            TunnelBytes::Tls(Box::new(stream), stopped)
        }
    };
    Ok(Tunnel {
        connector,
        link,
        bytes,
        admission,
    })
}

/// Waits for an answer, and asks whether anybody is there when it takes long.
async fn or_doubt<T>(link: &Link, answer: impl Future<Output = T>) -> T {
    let mut answer = pin!(answer);
    loop {
        tokio::select! {
            answer = &mut answer => return answer,
            () = sleep(DOUBT) => link.doubt(),
        }
    }
}

/// Reads up to the end of the answer's head; returns what came behind it.
async fn read_answer(recv: &mut TunnelRecv) -> Result<Bytes, OpenError> {
    let mut head = BytesMut::new();
    loop {
        // What is beyond the longest head is left in the stream.
        let room = connect::MAX_HEAD - head.len();
        let chunk = recv.read(room).await?.ok_or(OpenError::NoAnswer)?;
        head.extend_from_slice(&chunk);
        if let Some((answer, len)) = connect::decode_answer(&head)? {
            answer.map_err(OpenError::Answer)?;
            return Ok(head.split_off(len).freeze());
        }
    }
}
