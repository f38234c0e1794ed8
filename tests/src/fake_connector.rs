//! A connector that misbehaves: a bare iroh endpoint whose every answer a test
//! decides.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use adit_wire::connect::{ALPN, encode_answer};
use anyhow::Result;
use iroh::{
    Endpoint,
    endpoint::{RecvStream, SendStream, presets},
};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

/// A running fake; dropping it closes its endpoint without a word.
pub struct FakeConnector {
    /// Its EndpointId, 64 hex digits.
    pub id: String,
    /// Where it is.
    pub addr: SocketAddr,
    /// How many streams it was asked for.
    pub streams: Arc<AtomicUsize>,
    _task: AbortOnDropHandle<()>,
}

/// One stream that the dialer opened.
pub struct Asked {
    /// Its number, from 0.
    pub number: usize,
    /// Towards the dialer.
    pub send: SendStream,
    /// From the dialer; the head of the request was not read yet.
    pub recv: RecvStream,
}

impl FakeConnector {
    /// Starts one that treats each stream like this.
    pub async fn start<F>(treat: impl Fn(Asked) -> F + Send + Sync + 'static) -> Result<Self>
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        Self::start_with_alpn(ALPN, treat).await
    }

    /// The same with another protocol name.
    pub async fn start_with_alpn<F>(
        alpn: &[u8],
        treat: impl Fn(Asked) -> F + Send + Sync + 'static,
    ) -> Result<Self>
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let endpoint = Endpoint::builder(presets::Minimal)
            .clear_ip_transports()
            .bind_addr(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?
            .alpns(vec![alpn.to_vec()])
            .bind()
            .await?;
        let id = endpoint.id().to_string();
        let addr = endpoint
            .bound_sockets()
            .first()
            .copied()
            .ok_or_else(|| anyhow::anyhow!("a bound socket"))?;
        let streams = Arc::new(AtomicUsize::new(0));
        let (treat, counted) = (Arc::new(treat), streams.clone());
        let task = tokio::spawn(async move {
            let mut tasks = JoinSet::new();
            while let Some(incoming) = endpoint.accept().await {
                let (treat, counted) = (treat.clone(), counted.clone());
                // The handshake too: one whose dialer is gone holds up no other.
                tasks.spawn(async move {
                    let Ok(connection) = incoming.await else {
                        return;
                    };
                    let mut streams = JoinSet::new();
                    while let Ok((send, recv)) = connection.accept_bi().await {
                        let number = counted.fetch_add(1, Ordering::SeqCst);
                        let asked = Asked { number, send, recv };
                        streams.spawn(treat(asked));
                    }
                });
            }
        });
        Ok(Self {
            id,
            addr,
            streams,
            _task: AbortOnDropHandle::new(task),
        })
    }
}

impl Asked {
    /// Says that the tunnel stands, and then serves one HTTP/1.1 answer to each
    /// request on it, for ever.
    pub async fn serve(mut self) -> Result<()> {
        self.send.write_all(&encode_answer(Ok(()))).await?;
        let mut got = Vec::new();
        let mut buffer = [0; 4096];
        let mut heads = 0; // the first is the CONNECT itself
        while let Some(n) = self.recv.read(&mut buffer).await? {
            got.extend_from_slice(&buffer[..n]);
            while let Some(end) = got.windows(4).position(|w| w == b"\r\n\r\n") {
                got.drain(..end + 4);
                heads += 1;
                if heads > 1 {
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfake\n";
                    self.send.write_all(answer).await?;
                }
            }
        }
        self.send.finish()?;
        Ok(())
    }
}
