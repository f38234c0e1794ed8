//! SIGTERM for `adit run`: what is under way becomes whole first, however slowly
//! its client takes it.

use std::time::Duration;

use adit_tests::{
    client::patiently,
    on_each_envoy,
    process::until,
    stage::{Plan, Stage},
};
use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

on_each_envoy!(an_answer_that_waits_in_envoy_for_a_slow_client_becomes_whole);

/// More than kernel and Envoy keep for a client whose window is small.
const LENGTH: usize = 8 << 20;
/// The client's window and segment, as on a real network: with those of loopback
/// the kernel mostly keeps so much that all of Envoy's 1 MiB goes there at once.
const WINDOW: u32 = 64 << 10;
const SEGMENT: u32 = 1400;
/// What the client reads at a time.
const STEP: usize = 32 << 10;

async fn an_answer_that_waits_in_envoy_for_a_slow_client_becomes_whole(
    version: &str,
) -> Result<()> {
    let mut stage = Plan::of(version)
        .env("ADIT_GRACE_PERIOD", "1h")
        .start()
        .await?;
    let (mut client, mut got) = patiently("an answer that waits in Envoy", async {
        loop {
            if let Some(found) = wait_in_envoy(&stage).await? {
                return Ok(found);
            }
        }
    })
    .await?;
    stage.gateway.process.signal(Signal::TERM)?;
    let process = &stage.gateway.process;
    until("the word that it was told to end", async || {
        process.log().contains("told to end").then_some(())
    })
    .await?;
    patiently("the rest of the answer", async {
        // The client is slow: a gateway that does not wait for it would be gone.
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(25)).await;
            got += read(&mut client).await?;
        }
        while got < LENGTH {
            match read(&mut client).await.with_context(|| got)? {
                0 => bail!("the answer ends after {got} bytes of {LENGTH}"),
                n => got += n,
            }
        }
        Ok(())
    })
    .await?;
    // Nothing else is under way: it does not wait for the hour.
    let status = stage.gateway.process.wait().await?;
    ensure!(status.success(), "{status}");
    Ok(())
}

/// A client that has taken so much of an answer, and the rest waits in Envoy, for
/// which the request is done; none if the kernel took that rest.
async fn wait_in_envoy(stage: &Stage) -> Result<Option<(TcpStream, usize)>> {
    let client = TcpSocket::new_v4()?;
    client.set_recv_buffer_size(WINDOW)?;
    socket2::SockRef::from(&client).set_tcp_mss(SEGMENT)?;
    let mut client = client.connect(stage.addr()).await?;
    let request = format!("GET /download?bytes={LENGTH} HTTP/1.1\r\nhost: web.test\r\n\r\n");
    client.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await?);
    }
    let mut got = 0;
    loop {
        match downstream(stage).await? {
            (0, 0) => return Ok(None),
            (0, _) => return Ok(Some((client, got))),
            _ => got += read(&mut client).await?,
        }
    }
}

async fn read(client: &mut TcpStream) -> Result<usize> {
    Ok(client.read(&mut vec![0; STEP]).await?)
}

/// Envoy's requests under way, and its bytes that no client has taken yet.
async fn downstream(stage: &Stage) -> Result<(u64, u64)> {
    let stats = stage
        .gateway
        .envoy
        .get("/stats?filter=http.adit.downstream_");
    let stats = stats.await?;
    let value = |name: &str| -> Result<u64> {
        let name = format!("http.adit.downstream_{name}: ");
        let mut lines = stats.lines();
        let value = lines.find_map(|line| line.strip_prefix(&name));
        Ok(value.with_context(|| name.clone())?.parse()?)
    };
    Ok((value("rq_active")?, value("cx_tx_bytes_buffered")?))
}
