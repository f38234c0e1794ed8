//! rathole: a TCP port at the server, a client beside the service. Plain TCP
//! between them, as it comes; nothing is encrypted.

use std::{fs, path::Path as File};

use anyhow::Result;

use super::{Ground, Part, Path, program, tcp_port};

/// Starts server and client.
pub fn start(ground: &Ground, dir: &File) -> Result<Path> {
    let (control, at) = (tcp_port()?, tcp_port()?);
    let server = dir.join("server.toml");
    let service = format!("[server.services.bench]\ntoken = \"bench\"\nbind_addr = \"{at}\"\n");
    fs::write(
        &server,
        format!("[server]\nbind_addr = \"{control}\"\n{service}"),
    )?;
    let client = dir.join("client.toml");
    let service = ground.service;
    let service =
        format!("[client.services.bench]\ntoken = \"bench\"\nlocal_addr = \"{service}\"\n");
    fs::write(
        &client,
        format!("[client]\nremote_addr = \"{control}\"\n{service}"),
    )?;
    let mut serve = program("rathole")?;
    serve.arg("--server").arg(&server);
    let mut dial = program("rathole")?;
    dial.arg("--client").arg(&client);
    let parts = vec![
        Part::start("server", dir, serve)?,
        Part::start("client", dir, dial)?,
    ];
    Ok(Path::tcp("rathole", at, parts))
}
