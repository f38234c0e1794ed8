//! Steady traffic while something is changed.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use anyhow::{Context, Result, ensure};
use tokio::task::JoinSet;

use super::http::{Client, get};
use crate::process::until;

/// GET requests that go on until [`Load::end`]; each must be answered with 200.
pub struct Load {
    done: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    tasks: JoinSet<Result<()>>,
}

impl Load {
    /// Begins: of the `clients`, every other keeps its connection, the rest open a
    /// new one for each request.
    pub fn begin(addr: SocketAddr, host: &str, path: &str, clients: usize) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        for n in 0..clients {
            let (done, answered) = (done.clone(), answered.clone());
            let (host, path) = (host.to_owned(), path.to_owned());
            tasks.spawn(async move {
                let mut kept: Option<Client> = None;
                for sent in 0usize.. {
                    if done.load(Ordering::SeqCst) {
                        break;
                    }
                    let what = || format!("request {sent} of client {n} to {host}{path}");
                    let answer = if n % 2 == 0 {
                        get(addr, &host, &path).await.with_context(what)?
                    } else {
                        let client = match &mut kept {
                            Some(client) => client,
                            none => none.insert(Client::http1(addr, &host).await?),
                        };
                        client.get(&path).await.with_context(what)?
                    };
                    let (status, text) = (answer.status, answer.text());
                    ensure!(status == 200, "{}: {status} {text}", what());
                    // Envoy says so when it is about to close the connection.
                    if answer.header("connection") == Some("close") {
                        kept = None;
                    }
                    answered.fetch_add(1, Ordering::SeqCst);
                }
                Ok(())
            });
        }
        Self {
            done,
            answered,
            tasks,
        }
    }

    /// Waits until `more` further requests have been answered.
    pub async fn answers(&self, more: usize) -> Result<()> {
        let goal = self.answered.load(Ordering::SeqCst) + more;
        until("answers under load", async || {
            (self.answered.load(Ordering::SeqCst) >= goal).then_some(())
        })
        .await
    }

    /// Ends it: how many were answered.
    ///
    /// # Errors
    /// The first request that was not answered with 200.
    pub async fn end(mut self) -> Result<usize> {
        self.done.store(true, Ordering::SeqCst);
        while let Some(ended) = self.tasks.join_next().await {
            ended??;
        }
        Ok(self.answered.load(Ordering::SeqCst))
    }
}
