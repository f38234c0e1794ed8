//! A sidecar that reads headers: Envoy's route says in them which peer and
//! service a request is for. Built on the public crate iroh-proxy-utils, in a
//! workspace of its own (`bench/sidecar`).

use std::path::Path as File;

use adit_tests::keys::Key;
use anyhow::Result;

use super::{Exit, Ground, Part, Path, program, tcp_port, udp_port};

/// Starts both ends.
pub fn start(ground: &Ground, dir: &File) -> Result<Path> {
    let (key, off) = (Key::new(dir, "peer")?, Key::new(dir, "off")?);
    let (at, nobody) = (udp_port()?, udp_port()?);
    let listen = tcp_port()?;
    let mut up = program("adit-bench-sidecar")?;
    up.arg("upstream").arg("--key-file").arg(&key.file);
    up.args(["--bind", &at.to_string()]);
    let mut down = program("adit-bench-sidecar")?;
    down.arg("downstream");
    down.args(["--listen", &listen.to_string()]);
    down.args(["--peer", &format!("{}={at}", key.id)]);
    down.args(["--peer", &format!("{}={nobody}", off.id)]);
    let exit = |id: &str| Exit::Tcp {
        at: listen,
        headers: vec![
            ("x-node-id", id.to_owned()),
            ("x-target-host", ground.service.ip().to_string()),
            ("x-target-port", ground.service.port().to_string()),
        ],
    };
    Ok(Path {
        name: "sidecar",
        exit: exit(&key.id),
        off: Some(exit(&off.id)),
        parts: vec![
            Part::start("upstream", dir, up)?,
            Part::start("downstream", dir, down)?,
        ],
    })
}
