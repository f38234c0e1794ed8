//! One direction: takes datagrams in, keeps each for its time, sends it on.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
};

use tokio::{
    net::UdpSocket,
    time::{Instant, sleep_until},
};

use super::{
    LARGEST, Shared,
    dice::{Dice, Fate},
};

/// How many datagrams a direction may hold: 300 ms of some 100 MB/s. Beyond, a
/// router drops too.
pub(super) const MOST: usize = 20_000;

/// One direction of the path.
pub(super) struct Line {
    shared: Arc<Shared>,
    dice: Dice,
    queue: BinaryHeap<Reverse<Held>>,
    arrived: u64,
    /// The latest arrival that was sent on.
    newest: u64,
}

/// Ordered by when it is due, and as it came.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Held {
    due: Instant,
    number: u64,
    from: SocketAddr,
    bytes: Vec<u8>,
}

impl Line {
    pub(super) fn new(shared: Arc<Shared>, seed: u64) -> Self {
        Self {
            shared,
            dice: Dice::new(seed),
            queue: BinaryHeap::new(),
            arrived: 0,
            newest: 0,
        }
    }

    /// From every client, each by a socket of its own.
    pub(super) async fn up(mut self) {
        let listening = self.shared.listening.clone();
        let mut buffer = vec![0; LARGEST];
        loop {
            self.take(&listening, &mut buffer).await;
            while let Some(held) = self.due() {
                if let Ok(socket) = self.shared.out(held.from) {
                    self.sent(&held, socket.send_to(&held.bytes, self.shared.to).await);
                }
            }
        }
    }

    /// To one client.
    pub(super) async fn back(mut self, socket: Arc<UdpSocket>, client: SocketAddr) {
        let mut buffer = vec![0; LARGEST];
        loop {
            self.take(&socket, &mut buffer).await;
            while let Some(held) = self.due() {
                let sending = self.shared.listening.send_to(&held.bytes, client).await;
                self.sent(&held, sending);
            }
        }
    }

    /// Takes one datagram in, or waits until one is due.
    async fn take(&mut self, socket: &UdpSocket, buffer: &mut [u8]) {
        let next = self.queue.peek().map(|held| held.0.due);
        let due = async {
            match next {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        let received = tokio::select! {
            received = socket.recv_from(buffer) => received,
            () = due => return,
        };
        // An ICMP error of an earlier datagram: whoever sent it sees no answer.
        let Ok((len, from)) = received else { return };
        let counters = &self.shared.counters;
        let count = match self.dice.fate(&self.shared.weather()) {
            Fate::Blocked => &counters.blocked,
            Fate::Lost => &counters.lost,
            Fate::After(_) if self.queue.len() >= MOST => &counters.overflowed,
            Fate::After(late) => {
                self.arrived += 1;
                self.queue.push(Reverse(Held {
                    due: Instant::now() + late,
                    number: self.arrived,
                    from,
                    bytes: buffer[..len].to_vec(),
                }));
                return;
            }
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// The next datagram whose time has come.
    fn due(&mut self) -> Option<Held> {
        let now = Instant::now();
        loop {
            if self.queue.peek()?.0.due > now {
                return None;
            }
            let held = self.queue.pop()?.0;
            if !self.shared.weather().blocked {
                return Some(held);
            }
            let counters = &self.shared.counters;
            counters.blocked.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn sent(&mut self, held: &Held, sending: std::io::Result<usize>) {
        let counters = &self.shared.counters;
        if sending.is_ok() {
            counters.passed.fetch_add(1, Ordering::Relaxed);
        }
        if held.number < self.newest {
            counters.overtaken.fetch_add(1, Ordering::Relaxed);
        }
        self.newest = self.newest.max(held.number);
    }
}
