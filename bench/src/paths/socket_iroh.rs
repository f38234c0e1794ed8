//! Envoy in front of the bare iroh splice: all of Adit's way but its filter and
//! its transport socket, so that what Envoy pays for these two shows by itself.

use std::path::Path as File;

use anyhow::Result;

use super::{Exit, Ground, Path, iroh_splice};

/// Starts both ends, beside those of the path without Envoy.
pub fn start(ground: &Ground, dir: &File) -> Result<Path> {
    let (socket, parts) = iroh_splice::ends(ground, dir)?;
    Ok(Path {
        name: "socket-iroh",
        exit: Exit::Pipe(socket),
        off: None,
        parts,
    })
}
