//! bore: a TCP port at the server, a client beside the service. Plain TCP
//! between them; nothing is encrypted.

use std::{net::TcpListener, path::Path as File};

use anyhow::{Context as _, Result};

use super::{Ground, Part, Path, program, tcp_port};

/// The port of its control connection; 0.6 has no option for another.
const CONTROL: u16 = 7835;

/// Starts server and client.
pub fn start(ground: &Ground, dir: &File) -> Result<Path> {
    let at = tcp_port()?;
    TcpListener::bind(("127.0.0.1", CONTROL))
        .with_context(|| format!("bore's control port {CONTROL} is taken, and it has no other"))?;
    let mut serve = program("bore")?;
    serve.args(["server", "--bind-addr", "127.0.0.1"]);
    let mut dial = program("bore")?;
    let service = ground.service;
    dial.args(["local", &service.port().to_string()]);
    dial.args(["--local-host", &service.ip().to_string()]);
    dial.args(["--to", "127.0.0.1", "--port", &at.port().to_string()]);
    // Its client gives up when the server is not there yet.
    let serve = Part::start("server", dir, serve)?;
    let up = || std::net::TcpStream::connect(("127.0.0.1", CONTROL)).ok();
    super::wait("bore's server", up)?;
    let parts = vec![serve, Part::start("client", dir, dial)?];
    Ok(Path::tcp("bore", at, parts))
}
