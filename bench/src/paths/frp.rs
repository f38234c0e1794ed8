//! frp: a TCP port at the server, a client beside the service. TLS between
//! them, as it comes, with streams of one TCP connection.

use std::{fs, path::Path as File};

use anyhow::Result;

use super::{Ground, Part, Path, program, tcp_port};

/// Starts server and client.
pub fn start(ground: &Ground, dir: &File) -> Result<Path> {
    let (control, at) = (tcp_port()?, tcp_port()?);
    let server = dir.join("frps.toml");
    let port = control.port();
    fs::write(
        &server,
        format!("bindAddr = \"127.0.0.1\"\nproxyBindAddr = \"127.0.0.1\"\nbindPort = {port}\n"),
    )?;
    let client = dir.join("frpc.toml");
    let service = ground.service;
    let proxy = format!(
        "[[proxies]]\nname = \"bench\"\ntype = \"tcp\"\nlocalIP = \"{}\"\nlocalPort = {}\nremotePort = {}\n",
        service.ip(),
        service.port(),
        at.port()
    );
    fs::write(
        &client,
        format!("serverAddr = \"127.0.0.1\"\nserverPort = {port}\nloginFailExit = false\n{proxy}"),
    )?;
    let mut serve = program("frps")?;
    serve.arg("-c").arg(&server);
    let mut dial = program("frpc")?;
    dial.arg("-c").arg(&client);
    let parts = vec![
        Part::start("frps", dir, serve)?,
        Part::start("frpc", dir, dial)?,
    ];
    Ok(Path::tcp("frp", at, parts))
}
