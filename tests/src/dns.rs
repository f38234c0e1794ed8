//! An authoritative DNS server on loopback whose records a test may change.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::Result;
use hickory_server::proto::{
    op::{Message, ResponseCode},
    rr::{RData, Record, RecordType, rdata::TXT},
};
use tokio::net::UdpSocket;
use tokio_util::task::AbortOnDropHandle;

/// The time to live of every answer, in seconds: what the deployed discovery uses.
const TTL: u32 = 5;

/// Names in lower case without the last dot, each with its TXT records.
type Zone = HashMap<String, Vec<String>>;

/// A running server; dropping it stops it, and nothing answers any more.
pub struct Dns {
    /// Where it listens (UDP).
    pub addr: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    queries: Arc<AtomicUsize>,
    _task: AbortOnDropHandle<()>,
}

impl Dns {
    /// Starts one with an empty zone: every name is NXDOMAIN.
    pub async fn start() -> Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let addr = socket.local_addr()?;
        let zone = Arc::new(Mutex::new(Zone::new()));
        let queries = Arc::new(AtomicUsize::new(0));
        let (asked, counted) = (zone.clone(), queries.clone());
        let task = tokio::spawn(async move {
            let mut buffer = [0; 4096];
            loop {
                let Ok((len, peer)) = socket.recv_from(&mut buffer).await else {
                    continue;
                };
                counted.fetch_add(1, Ordering::SeqCst);
                if let Some(answer) = answer(&buffer[..len], &asked) {
                    let _ = socket.send_to(&answer, peer).await;
                }
            }
        });
        Ok(Self {
            addr,
            zone,
            queries,
            _task: AbortOnDropHandle::new(task),
        })
    }

    /// Sets the TXT records of a name; none removes the name.
    pub fn set(&self, name: &str, records: &[&str]) {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let mut zone = self.zone.lock().unwrap_or_else(PoisonError::into_inner);
        if records.is_empty() {
            zone.remove(&name);
        } else {
            zone.insert(name, records.iter().map(ToString::to_string).collect());
        }
    }

    /// How many queries came so far.
    pub fn queries(&self) -> usize {
        self.queries.load(Ordering::SeqCst)
    }
}

fn answer(query: &[u8], zone: &Mutex<Zone>) -> Option<Vec<u8>> {
    let query = Message::from_vec(query).ok()?;
    let question = query.queries.first()?.clone();
    let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
    answer.metadata.authoritative = true;
    answer.metadata.recursion_desired = query.metadata.recursion_desired;
    let name = question.name().to_ascii();
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let zone = zone.lock().unwrap_or_else(PoisonError::into_inner);
    match zone.get(&name) {
        None => answer.metadata.response_code = ResponseCode::NXDomain,
        Some(texts) if question.query_type() == RecordType::TXT => {
            for text in texts {
                let data = RData::TXT(TXT::new(vec![text.clone()]));
                let owner = question.name().clone();
                answer.add_answer(Record::from_rdata(owner, TTL, data));
            }
        }
        Some(_) => {}
    }
    answer.add_query(question);
    answer.to_vec().ok()
}
