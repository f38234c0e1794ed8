//! Requests at a constant rate, whatever becomes of them: what a fault does to
//! traffic is seen only if the traffic does not wait for the fault's end.

mod tally;

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use adit_tests::client::http::{Client, empty};
use anyhow::Result;
use http::Method;
use tokio::{task::JoinSet, time::timeout};

pub use tally::Tally;
use tally::{LOST, WRONG};

/// At most so many requests are under way; what comes due beyond is a failure.
const MOST: usize = 8192;

/// What is asked, how often.
#[derive(Clone)]
pub struct Plan {
    /// Envoy.
    pub addr: SocketAddr,
    /// The host.
    pub host: String,
    /// The path. Each request to `/echo` gets a number, and the answer must have
    /// the same.
    pub path: String,
    /// GET, POST and so on.
    pub method: Method,
    /// Requests a second.
    pub rate: u32,
}

impl Plan {
    /// 500 GET requests a second.
    pub fn get(addr: SocketAddr, host: &str, path: &str) -> Self {
        Self {
            addr,
            host: host.to_owned(),
            path: path.to_owned(),
            method: Method::GET,
            rate: 500,
        }
    }

    /// Begins.
    pub fn begin(self) -> Load {
        let done = Arc::new(AtomicBool::new(false));
        let begun = Instant::now();
        let task = tokio::spawn(send(self, done.clone(), begun));
        Load { done, begun, task }
    }
}

/// Requests under way.
pub struct Load {
    done: Arc<AtomicBool>,
    begun: Instant,
    task: tokio::task::JoinHandle<Tally>,
}

impl Load {
    /// How long it has lasted: the clock of [`Tally::failures`].
    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Sends no more, and waits for every answer that is due.
    pub async fn end(self) -> Result<Tally> {
        self.done.store(true, Ordering::SeqCst);
        Ok(self.task.await?)
    }
}

type Pool = Arc<Mutex<Vec<Client>>>;

async fn send(plan: Plan, done: Arc<AtomicBool>, begun: Instant) -> Tally {
    let pool = Pool::default();
    let mut tasks = JoinSet::new();
    let mut tally = Tally::default();
    let mut tick = tokio::time::interval(Duration::from_secs(1) / plan.rate);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
    for number in 0usize.. {
        if done.load(Ordering::SeqCst) {
            break;
        }
        tick.tick().await;
        let at = begun.elapsed();
        if tasks.len() >= MOST {
            tally
                .failures
                .push((at, format!("not sent: {MOST} are under way")));
        } else {
            tasks.spawn(one(plan.clone(), pool.clone(), at, number));
        }
        while let Some(ended) = tasks.try_join_next() {
            count(&mut tally, ended);
        }
    }
    while let Some(ended) = tasks.join_next().await {
        count(&mut tally, ended);
    }
    tally.times.sort_unstable();
    tally.good.sort_unstable();
    tally
}

/// When it was sent, how long it took, and how it failed.
type Ended = (Duration, Duration, Result<(), String>);

fn count(tally: &mut Tally, ended: Result<Ended, tokio::task::JoinError>) {
    let (at, took, result) =
        ended.unwrap_or_else(|error| (Duration::ZERO, Duration::ZERO, Err(error.to_string())));
    tally.slowest = tally.slowest.max(took);
    match result {
        Ok(()) => {
            tally.ok += 1;
            tally.times.push(took);
            tally.good.push(at);
        }
        Err(what) => tally.failures.push((at, what)),
    }
}

/// One request on a connection that is kept, if there is one.
async fn one(plan: Plan, pool: Pool, at: Duration, number: usize) -> Ended {
    let begun = Instant::now();
    let result = timeout(LOST, attempt(&plan, &pool, number)).await;
    let result = result.unwrap_or_else(|_| Err("lost: no answer".to_owned()));
    (at, begun.elapsed(), result)
}

async fn attempt(plan: &Plan, pool: &Pool, number: usize) -> Result<(), String> {
    let cause = |error: anyhow::Error| format!("{:#}", error.root_cause());
    let numbered = plan.path == "/echo";
    let path = match numbered {
        true => format!("/echo?n={number}"),
        false => plan.path.clone(),
    };
    let mut client = match kept(pool) {
        Some(client) => client,
        None => Client::http1(plan.addr, &plan.host).await.map_err(cause)?,
    };
    let answer = client.send(plan.method.clone(), &path, &[], empty());
    let answer = answer.await.map_err(cause)?;
    if answer.header("connection") != Some("close") {
        lock(pool).push(client);
    }
    if answer.status != 200 {
        return Err(format!(
            "{} {}",
            answer.status.as_u16(),
            reason(&answer.text())
        ));
    }
    if numbered && !answer.text().contains(&format!("?n={number}\"")) {
        return Err(WRONG.to_owned());
    }
    Ok(())
}

/// The module's word in an error's text, else the end of what Envoy says.
fn reason(text: &str) -> &str {
    let text = text.trim();
    let word = text.strip_suffix(')').and_then(|t| t.rsplit_once('('));
    let word = word.or_else(|| text.rsplit_once("reason: "));
    word.map_or(text, |(_, word)| word)
}

/// A connection of the pool that stands still.
fn kept(pool: &Pool) -> Option<Client> {
    let mut pool = lock(pool);
    while let Some(client) = pool.pop() {
        if client.is_open() {
            return Some(client);
        }
    }
    None
}

fn lock(pool: &Pool) -> MutexGuard<'_, Vec<Client>> {
    pool.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_by_its_word() {
        let ours = "503 Service Unavailable: It is not there (offline)\n";
        assert_eq!(reason(ours), "offline");
        let envoys = "upstream connect error or disconnect/reset before headers. reset reason: connection termination";
        assert_eq!(reason(envoys), "connection termination");
        assert_eq!(reason("something else"), "something else");
    }
}
