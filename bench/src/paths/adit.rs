//! Adit: filter and transport socket in Envoy, dialer beside it, connector
//! beside the service.

use std::{path::Path as File, time::Duration};

use adit_tests::{
    bare::{self, Dialer},
    connector::Connector,
    keys::Key,
};
use anyhow::Result;
use serde_json::json;

use super::{Exit, Ground, Part, Path, beside, udp_port};

/// Starts dialer and connector.
pub fn start(ground: &Ground, dir: &File) -> Result<Path> {
    let service = ground.service.to_string();
    let dialer_key = Key::new(dir, "dialer")?;
    let mut connector = Connector::new(
        dir,
        "edge",
        &[&dialer_key.id],
        std::slice::from_ref(&service),
    )?;
    let at = udp_port()?;
    connector.set("bind", json!([at.to_string()]));
    connector.reconfigure()?; // writes its file
    let mut accept = beside("adit")?;
    accept.arg("connector").arg("-c").arg(dir.join("edge.yaml"));

    // A device that is off: it has a key, and nobody is at its address.
    let off = Key::new(dir, "off")?;
    let hints = [
        (connector.key.id.as_str(), at),
        (off.id.as_str(), udp_port()?),
    ];
    let dial = Dialer::command(dir, &dialer_key, &hints)?;
    let exit = |id: &str| {
        anyhow::Ok(Exit::Adit {
            socket: dir.join("dialer.sock"),
            target: Box::new(bare::target(&[id], &service, Duration::from_secs(10))?),
        })
    };
    Ok(Path {
        name: "adit",
        exit: exit(&connector.key.id)?,
        off: Some(exit(&off.id)?),
        parts: vec![
            Part::start("connector", dir, accept)?,
            Part::start("dialer", dir, dial)?,
        ],
    })
}
