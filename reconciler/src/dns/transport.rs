//! Signed messages to a DNS server and back.
//!
//! Questions are signed too, and an answer counts only when its signature is
//! right: a forged one could make us believe that a name is ours or free.
//! Small messages go by UDP, and once more by TCP when nothing came back.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use hickory_proto::{
    op::{Message, OpCode, ResponseCode},
    rr::{TSigVerifier, rdata::tsig::TsigError},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

use super::{
    message::MAX_UDP,
    rfc2136::{Server, ServerError},
};

/// For an answer by UDP, each of two times: a server answers from memory.
const UDP_TIMEOUT: Duration = Duration::from_millis(1500);
/// For a whole exchange by TCP.
const TCP_TIMEOUT: Duration = Duration::from_secs(5);

impl Server {
    /// Sends a message and waits for its answer, by UDP and then by TCP.
    pub(super) async fn exchange(&self, message: Message) -> Result<Message, ServerError> {
        let op_code = message.metadata.op_code;
        let (request, mut verifier, id) = self.sign(message.clone())?;
        if request.len() <= MAX_UDP
            && let Some(answer) = self.by_udp(&request, &mut verifier, id).await
            && !answer.metadata.truncation
        {
            return same_kind(answer, op_code).ok_or_else(|| self.refused("it", "another answer"));
        }
        // A verifier is for one answer.
        let (request, mut verifier, id) = self.sign(message)?;
        let answer = timeout(TCP_TIMEOUT, async {
            let mut stream = self.connect().await?;
            self.send(&mut stream, &request).await?;
            self.receive(&mut stream).await
        });
        let answer = match answer.await {
            Ok(answer) => self.verify(&mut verifier, id, &answer?)?,
            Err(_) => return Err(self.silent("no answer in time")),
        };
        same_kind(answer, op_code).ok_or_else(|| self.refused("it", "another answer"))
    }

    /// `None`: nothing that is signed came back; TCP says why.
    async fn by_udp(
        &self,
        request: &[u8],
        verifier: &mut TSigVerifier,
        id: u16,
    ) -> Option<Message> {
        let local: SocketAddr = match self.addr {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(local).await.ok()?;
        socket.connect(self.addr).await.ok()?;
        let mut buffer = vec![0; 4096];
        for _ in 0..2 {
            socket.send(request).await.ok()?;
            let wait = async {
                loop {
                    let len = socket.recv(&mut buffer).await.ok()?;
                    // What does not verify may be forged: the right one may
                    // still come.
                    if let Ok(answer) = self.verify(verifier, id, &buffer[..len]) {
                        return Some(answer);
                    }
                    if refusal_of_key(&buffer[..len]).is_some() {
                        return None;
                    }
                }
            };
            match timeout(UDP_TIMEOUT, wait).await {
                Ok(answer) => return answer,
                Err(_) => continue,
            }
        }
        None
    }

    pub(super) async fn connect(&self) -> Result<TcpStream, ServerError> {
        match timeout(TCP_TIMEOUT, TcpStream::connect(self.addr)).await {
            Ok(stream) => stream.map_err(|e| self.unreachable(e)),
            Err(_) => Err(self.silent("no TCP connection in time")),
        }
    }

    pub(super) async fn send(
        &self,
        stream: &mut TcpStream,
        request: &[u8],
    ) -> Result<(), ServerError> {
        let len = u16::try_from(request.len())
            .map_err(|_| self.unreachable(io::Error::other("a message over 64 KiB")))?;
        let framed = [&len.to_be_bytes(), request].concat();
        let sent = stream.write_all(&framed).await;
        sent.map_err(|e| self.unreachable(e))
    }

    pub(super) async fn receive(&self, stream: &mut TcpStream) -> Result<Vec<u8>, ServerError> {
        let read = async {
            let len = stream.read_u16().await?;
            let mut answer = vec![0; len.into()];
            stream.read_exact(&mut answer).await?;
            Ok(answer)
        };
        match timeout(TCP_TIMEOUT, read).await {
            Ok(answer) => answer.map_err(|e| self.unreachable(e)),
            Err(_) => Err(self.silent("no answer in time")),
        }
    }

    pub(super) fn sign(
        &self,
        mut message: Message,
    ) -> Result<(Vec<u8>, TSigVerifier, u16), ServerError> {
        let id = message.metadata.id;
        let failed = |reason: String| ServerError::Unverified {
            server: self.addr,
            reason,
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.unwrap_or_default().as_secs();
        let verifier = message
            .finalize(&self.key.signer, now)
            .map_err(|e| failed(e.to_string()))?
            .ok_or_else(|| failed("nothing was signed".into()))?;
        let bytes = message.to_vec().map_err(|e| failed(e.to_string()))?;
        Ok((bytes, verifier, id))
    }

    pub(super) fn verify(
        &self,
        verifier: &mut TSigVerifier,
        id: u16,
        answer: &[u8],
    ) -> Result<Message, ServerError> {
        let failed = |reason: String| ServerError::Unverified {
            server: self.addr,
            reason,
        };
        match verifier.verify(answer) {
            Ok(answer) if answer.metadata.id == id => Ok(answer.into_message()),
            Ok(_) => Err(failed("the answer to another question".into())),
            Err(error) => Err(failed(
                refusal_of_key(answer)
                    .map(|text| format!("it says {text} (key {:?})", self.key.name()))
                    .unwrap_or_else(|| error.to_string()),
            )),
        }
    }
}

/// What a server says when it does not take the key; nobody signed it, so it
/// is only for a person to read (RFC 8945 section 5.2).
fn refusal_of_key(answer: &[u8]) -> Option<String> {
    let answer = Message::from_vec(answer).ok()?;
    let code = answer.metadata.response_code;
    let error = answer.signature().and_then(|s| s.data.error.as_ref());
    match error {
        Some(TsigError::BadSig) => Some("BADSIG: the secrets differ".into()),
        Some(TsigError::BadKey) => Some("BADKEY: it does not know the key or its algorithm".into()),
        Some(TsigError::BadTime) => Some("BADTIME: the clocks differ".into()),
        _ if code != ResponseCode::NoError => Some(code.to_string()),
        _ => None,
    }
}

fn same_kind(answer: Message, op_code: OpCode) -> Option<Message> {
    (answer.metadata.op_code == op_code).then_some(answer)
}
