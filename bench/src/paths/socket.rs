//! A Unix socket and a splice behind it, without filter, transport socket or
//! tunnel: what a process beside Envoy costs in any case.

use std::path::Path as File;

use anyhow::Result;

use super::{Exit, Ground, Part, Path};
use crate::roles;

/// Starts the splice.
pub fn start(ground: &Ground, dir: &File) -> Result<Path> {
    let socket = dir.join("splice.sock");
    let mut command = roles::command("splice")?;
    command.arg("--socket").arg(&socket);
    command.args(["--to", &ground.service.to_string()]);
    Ok(Path {
        name: "socket",
        exit: Exit::Pipe(socket),
        off: None,
        parts: vec![Part::start("splice", dir, command)?],
    })
}
