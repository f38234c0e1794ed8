//! A relay whose connections stand and say nothing: a door before it that can be
//! stopped.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use adit_tests::{process::until, relay::Relay};
use anyhow::{Result, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinSet,
};
use tokio_util::task::AbortOnDropHandle;

use super::{FOUND_AGAIN, outage, path_is, plan, relay_is, requests, served};
use crate::scenario::Context;

const WEDGED: Duration = Duration::from_secs(60);

/// A TCP port before a relay. While it is wedged it accepts and holds
/// connections, and moves no byte.
struct Door {
    addr: SocketAddr,
    open: watch::Sender<bool>,
    _task: AbortOnDropHandle<()>,
}

impl Door {
    async fn start(relay: SocketAddr, open: bool) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let addr = listener.local_addr()?;
        let open = watch::Sender::new(open);
        let may = open.clone();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let may = may.subscribe();
                connections.spawn(async move {
                    let _ = carry(client, relay, may).await;
                });
            }
        });
        Ok(Self {
            addr,
            open,
            _task: AbortOnDropHandle::new(task),
        })
    }

    fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    fn wedge(&self, wedged: bool) {
        self.open.send_replace(!wedged);
    }
}

async fn carry(client: TcpStream, relay: SocketAddr, may: watch::Receiver<bool>) -> Result<()> {
    // The client believes itself connected, as with a process that hangs.
    may.clone().wait_for(|open| *open).await?;
    let server = TcpStream::connect(relay).await?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let up = pump(from_client, to_server, may.clone());
    let down = pump(from_server, to_client, may);
    tokio::try_join!(up, down)?;
    Ok(())
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut may: watch::Receiver<bool>,
) -> Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let n = from.read(&mut buffer).await?;
        ensure!(n > 0, "closed");
        may.wait_for(|open| *open).await?;
        to.write_all(&buffer[..n]).await?;
    }
}

pub(super) async fn beside_a_direct_path(context: &Context) -> Result<String> {
    let relay = Relay::start().await?;
    let door = Door::start(relay.addr, true).await?;
    let stage = plan(&context.version, &door.url(), true).start().await?;
    served(&stage).await?;
    door.wedge(true);
    // One that starts now has never heard from the relay.
    let before = stage.gateway.dialer_pid()?;
    stage.gateway.kill_dialer()?;
    until("another dialer", async || {
        let pid = stage.gateway.dialer_pid().ok()?;
        (pid != before).then_some(())
    })
    .await?;
    let first = served(&stage).await?;
    path_is(&stage, "direct").await?;
    let load = requests(&stage, 50).begin();
    tokio::time::sleep(context.scale(Duration::from_secs(5), WEDGED)).await;
    let status = stage.gateway.status().await?;
    ensure!(
        status["relay"]["connected"] == false,
        "connected to a relay that says nothing: {status}"
    );
    door.wedge(false);
    let back = relay_is(&stage, true).await?;
    let tally = load.end().await?;
    tally.none_failed()?;
    ensure!(back < FOUND_AGAIN, "used only {back:?} after it answers");
    Ok(format!(
        "a dialer that starts meanwhile serves after {first:.1?}; all {} answered, p99 {:.0?}; the relay is used \
         {back:.1?} after it answers",
        tally.sent(),
        tally.percentile(99.0)
    ))
}

pub(super) async fn the_only_way(context: &Context) -> Result<String> {
    let relay = Relay::start().await?;
    let door = Door::start(relay.addr, true).await?;
    let stage = plan(&context.version, &door.url(), false).start().await?;
    served(&stage).await?;
    path_is(&stage, "relay").await?;
    let load = requests(&stage, 20).begin();
    door.wedge(true);
    // Longer than a request waits for a way: some must fail.
    tokio::time::sleep(context.scale(Duration::from_secs(8), WEDGED)).await;
    door.wedge(false);
    let back = served(&stage).await?;
    let seen = outage(&load.end().await?, back)?;
    Ok(format!("{seen} after it answers"))
}
