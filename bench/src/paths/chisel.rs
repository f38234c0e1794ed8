//! chisel: a TCP port at the server, a client beside the service. SSH over a
//! WebSocket between them.

use std::path::Path as File;

use anyhow::Result;

use super::{Ground, Part, Path, program, tcp_port};

/// Starts server and client.
pub fn start(ground: &Ground, dir: &File) -> Result<Path> {
    let (control, at) = (tcp_port()?, tcp_port()?);
    let mut serve = program("chisel")?;
    serve.args(["server", "--reverse", "--host", "127.0.0.1"]);
    serve.args(["--port", &control.port().to_string()]);
    let mut dial = program("chisel")?;
    dial.args(["client", "--max-retry-interval", "1s"]);
    dial.arg(format!("http://{control}"));
    dial.arg(format!("R:{at}:{}", ground.service));
    let parts = vec![
        Part::start("server", dir, serve)?,
        Part::start("client", dir, dial)?,
    ];
    Ok(Path::tcp("chisel", at, parts))
}
