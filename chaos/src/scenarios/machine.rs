//! The machine itself is short of something.

use std::{fs, time::Duration};

use adit_tests::{
    bare_stage::{BareStage, Setup},
    client::{
        connect::{self, Http2},
        http::get,
        patiently,
    },
    process::until,
};
use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;

use crate::{
    load,
    scenario::{Context, Scenario},
};

/// This part of the table.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "backlog-full",
        fault: "the dialer stopped until its socket's backlog is full, under 500 requests/s",
        promise: "the backlog takes 4,096; beyond it the answer is 503 at once; after SIGCONT all are answered within 5 s",
        quick: false,
        run: |context| Box::pin(backlog_full(context)),
    },
    Scenario {
        name: "open-files-256",
        fault: "dialer and connector with 256 open files; 400 tunnels at once",
        promise: "what fits works, what does not fails, nobody ends, and with room again all is as before",
        quick: false,
        run: |context| Box::pin(open_files(context)),
    },
];

async fn backlog_full(context: &Context) -> Result<String> {
    let bench = BareStage::start(&context.version, Setup::default()).await?;
    let load = load::Plan::get(bench.addr, "web.test", "/echo").begin();
    tokio::time::sleep(Duration::from_millis(500)).await;
    bench.dialer.process.signal(Signal::STOP)?;
    let filled = bench.dialer.fill_backlog();
    let answer = async {
        let authority = bench.echo_authority();
        let tunnel = connect::http1(bench.addr, &authority, b"");
        let begun = std::time::Instant::now();
        let answer = patiently("an answer", tunnel).await?;
        ensure!(answer.status == 503, "{}", answer.head);
        let said = format!("{}{}", answer.head, String::from_utf8_lossy(&answer.early));
        ensure!(!said.contains(".sock"), "the socket's path is told: {said}");
        Ok(begun.elapsed())
    };
    let answer = match &filled {
        Ok(_) => answer.await,
        Err(error) => Err(anyhow::anyhow!("{error:#}")),
    };
    tokio::time::sleep(Duration::from_secs(1)).await;
    bench.dialer.process.signal(Signal::CONT)?;
    let cured = load.elapsed();
    let (crowd, refused) = (filled?, answer?);
    let took = crowd.len();
    drop(crowd);
    tokio::time::sleep(Duration::from_secs(6)).await;
    let tally = load.end().await?;
    tally.none_lost()?;
    let settled = tally.settled(cured);
    ensure!(
        took >= 4000,
        "the backlog took only {took} beside the load's"
    );
    ensure!(refused < Duration::from_secs(1), "503 after {refused:?}");
    ensure!(
        settled < Duration::from_secs(5),
        "{settled:?} {}",
        tally.failed()
    );
    Ok(format!(
        "{took} connections filled it; 503 after {refused:.1?}; {} of {} answered, the last to fail was \
         sent {settled:.1?} after SIGCONT; {}",
        tally.ok,
        tally.sent(),
        tally.failed()
    ))
}

async fn open_files(context: &Context) -> Result<String> {
    const ASKED: usize = 400;
    let setup = Setup {
        open_files: Some(256),
        ..Setup::default()
    };
    let mut bench = BareStage::start(&context.version, setup).await?;
    let authority = bench.echo_authority();
    let dialer = bench.dialer.process.pid();
    let connector = bench.edge.process()?.pid();
    let mut stood = 0;
    let rounds = context.scale(1, 5);
    for _ in 0..rounds {
        let client = Http2::connect(bench.addr).await?;
        let held = client.crowd(&authority, ASKED).await?;
        stood = held.len();
        ensure!(
            stood >= 20,
            "only {stood} tunnels stood\n{}",
            bench.dialer.process.last_words()
        );
        drop(held);
        drop(client);
        ensure!(bench.dialer.process.is_running(), "the dialer ended");
        let edge = bench.edge.process.as_mut().context("the connector")?;
        ensure!(edge.is_running(), "the connector ended");
        until("room again", async || {
            let answer = get(bench.addr, "web.test", "/echo").await.ok()?;
            (answer.status == 200).then_some(())
        })
        .await?;
        // Every descriptor of a tunnel is given back; the next round needs them.
        until("few descriptors again", async || {
            (descriptors(dialer)? < 60 && descriptors(connector)? < 60).then_some(())
        })
        .await?;
    }
    Ok(format!(
        "{stood} of {ASKED} tunnels stood, {rounds} times; afterwards {} and {} descriptors are open",
        descriptors(dialer).unwrap_or_default(),
        descriptors(connector).unwrap_or_default()
    ))
}

fn descriptors(pid: u32) -> Option<usize> {
    Some(fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count())
}
