//! Envoy's side of a stream before the tunnel stands: what it has sent
//! already, and whether it is still there.

use std::{io, time::Duration};

use adit_tunnel::Local as _;
use bytes::{Bytes, BytesMut};
use tokio::{
    io::Interest,
    net::UnixStream,
    time::{MissedTickBehavior, interval, timeout},
};

/// Early data that is read ahead; the rest waits in the socket.
const MAX_EARLY: usize = 64 * 1024;
/// How soon a client that leaves is noticed while unread bytes lie before its
/// end: nothing else tells.
const HANG_UP_CHECK: Duration = Duration::from_millis(250);
/// A verdict fits any socket buffer; a client that is stopped does not hold us.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// A client that waits for its tunnel.
#[derive(Debug)]
pub struct Client {
    socket: UnixStream,
    early: BytesMut,
}

impl Client {
    /// A client that has sent `early` after its preface.
    pub fn new(socket: UnixStream, early: &[u8]) -> Self {
        Self {
            socket,
            early: early.into(),
        }
    }

    /// Completes when the client is gone. Reads what it sends meanwhile.
    /// Cancel-safe.
    pub async fn left(&mut self) {
        let mut open = true;
        while open && self.early.len() < MAX_EARLY {
            if self.socket.ready(Interest::READABLE).await.is_err() {
                return;
            }
            match self.socket.try_read_buf(&mut self.early) {
                // A half-closed client still waits for its answer; the splice
                // will see the same end again.
                Ok(0) if !self.socket.hung_up() => open = false,
                Ok(0) => return,
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
        let mut check = interval(HANG_UP_CHECK);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            check.tick().await;
            if self.socket.hung_up() {
                return;
            }
        }
    }

    /// Sends our answer.
    ///
    /// # Errors
    /// When the client is gone or takes nothing.
    pub async fn answer(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let write = async {
            while !bytes.is_empty() {
                self.socket.writable().await?;
                match self.socket.try_write(bytes) {
                    Ok(n) => bytes = &bytes[n..],
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                    Err(e) => return Err(e),
                }
            }
            Ok(())
        };
        timeout(WRITE_TIMEOUT, write)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// The socket, and what was read from it.
    pub fn into_parts(self) -> (UnixStream, Bytes) {
        (self.socket, self.early.freeze())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    fn pair() -> (UnixStream, Client) {
        let (theirs, ours) = UnixStream::pair().unwrap();
        (theirs, Client::new(ours, b"early "))
    }

    #[tokio::test]
    async fn a_client_that_closes_is_noticed_and_its_bytes_were_kept() {
        let (mut theirs, mut client) = pair();
        theirs.write_all(b"data").await.unwrap();
        drop(theirs);
        client.left().await;
        assert_eq!(client.into_parts().1, "early data");
    }

    #[tokio::test]
    async fn a_client_that_closes_behind_a_wall_of_bytes_is_noticed() {
        let (mut theirs, mut client) = pair();
        theirs.write_all(&vec![b'x'; 2 * MAX_EARLY]).await.unwrap();
        drop(theirs);
        client.left().await;
        assert!(client.early.len() >= MAX_EARLY);
    }

    #[tokio::test(start_paused = true)]
    async fn a_half_closed_client_is_still_there() {
        let (mut theirs, mut client) = pair();
        theirs.shutdown().await.unwrap();
        let left = timeout(Duration::from_secs(60), client.left()).await;
        assert!(left.is_err(), "it waits for its answer");
        drop(theirs);
        client.left().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_nothing_does_not_hold_the_answer_for_ever() {
        let (_theirs, mut client) = pair();
        let much = vec![0; 16 << 20];
        let error = client.answer(&much).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
