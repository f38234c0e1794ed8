//! Envoy to the service over TCP, with nothing between them.

use anyhow::Result;

use super::{Exit, Ground, Path, tcp_port};

/// Nothing to start.
pub fn start(ground: &Ground, name: &'static str) -> Result<Path> {
    let to = |at| Exit::Tcp {
        at,
        headers: Vec::new(),
    };
    Ok(Path {
        name,
        exit: to(ground.service),
        // Nobody listens there: refused at once.
        off: Some(to(tcp_port()?)),
        parts: Vec::new(),
    })
}
