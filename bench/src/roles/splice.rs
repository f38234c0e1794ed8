//! The least that stands between Envoy's Unix socket and a TCP service: what
//! the filter and its transport socket are compared with.

use std::{net::SocketAddr, path::Path};

use anyhow::{Context as _, Result};
use tokio::{
    io::copy_bidirectional_with_sizes,
    net::{TcpStream, UnixListener},
};

/// One read. 64 KiB, as Adit's own splice takes.
pub const BUFFER: usize = 64 * 1024;

/// Serves for ever.
pub async fn run(socket: &Path, to: SocketAddr) -> Result<()> {
    let listener = listen(socket)?;
    loop {
        let (mut unix, _) = listener.accept().await?;
        tokio::spawn(async move {
            let Ok(mut tcp) = TcpStream::connect(to).await else {
                return;
            };
            let _ = tcp.set_nodelay(true);
            let _ = copy_bidirectional_with_sizes(&mut unix, &mut tcp, BUFFER, BUFFER).await;
        });
    }
}

/// A Unix socket that takes the place of an older one.
pub fn listen(socket: &Path) -> Result<UnixListener> {
    let _ = std::fs::remove_file(socket);
    UnixListener::bind(socket).with_context(|| format!("listen on {}", socket.display()))
}
