//! A relay or a service in a process of its own, so that a test can kill it.

use std::net::{Ipv4Addr, SocketAddr};

use adit_tests::{
    relay::Relay,
    services::{
        http::HttpService,
        tcp::{Manner, TcpService},
    },
};
use anyhow::{Result, bail};
use clap::Parser;

#[derive(Parser)]
struct Cli {
    /// relay, web or echo
    kind: String,
    /// Where to listen [default: any port of loopback]
    addr: Option<SocketAddr>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let cli = Cli::parse();
    let addr = cli.addr.unwrap_or((Ipv4Addr::LOCALHOST, 0).into());
    // Held until the process is killed.
    let (addr, _held): (_, Box<dyn std::any::Any>) = match cli.kind.as_str() {
        "relay" => {
            let relay = Relay::start_at(addr).await?;
            (relay.addr, Box::new(relay))
        }
        "web" => {
            let web = HttpService::start_at(addr, None)?;
            (web.addr, Box::new(web))
        }
        "echo" => {
            let echo = TcpService::start_at(addr, Manner::Echo)?;
            (echo.addr, Box::new(echo))
        }
        other => bail!("there is no fixture {other:?}"),
    };
    println!("listening on {addr}");
    std::future::pending().await
}
