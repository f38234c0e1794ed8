//! A bare iroh splice: what QUIC itself costs, and the speed that Adit's is
//! compared with.

use std::path::{Path as File, PathBuf};

use adit_tests::keys::Key;
use anyhow::Result;

use super::{Exit, Ground, Part, Path, udp_port};
use crate::roles;

/// Starts it.
pub fn start(ground: &Ground, dir: &File) -> Result<Path> {
    let (socket, parts) = ends(ground, dir)?;
    Ok(Path {
        name: "iroh-splice",
        exit: Exit::Bare(socket),
        off: None,
        parts,
    })
}

/// Starts both ends; also the socket that the tunnel begins at.
pub fn ends(ground: &Ground, dir: &File) -> Result<(PathBuf, Vec<Part>)> {
    let socket = dir.join("iroh.sock");
    let key = Key::new(dir, "peer")?;
    let at = udp_port()?.to_string();
    let mut accept = roles::command("iroh-accept")?;
    accept.arg("--key-file").arg(&key.file);
    accept.args(["--bind", &at, "--to", &ground.service.to_string()]);
    let mut dial = roles::command("iroh-dial")?;
    dial.arg("--socket").arg(&socket);
    dial.args(["--peer", &key.id, "--at", &at]);
    let parts = vec![
        Part::start("accept", dir, accept)?,
        Part::start("dial", dir, dial)?,
    ];
    Ok((socket, parts))
}
