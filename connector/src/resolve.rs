//! From a name to addresses, once for each stream.

use std::{
    fmt, io,
    net::{SocketAddr, ToSocketAddrs as _},
    pin::Pin,
    sync::Arc,
};

use tokio::sync::Semaphore;

/// Lookups at one time. `getaddrinfo` blocks a thread for as long as the
/// system's resolver takes, and a name under a wildcard can make that long.
const MAX_LOOKUPS: usize = 64;
/// Addresses that are tried for one name; more are a mistake or an attack.
const MAX_ADDRESSES: usize = 16;

type Lookup = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// Finds the addresses of a host name and port.
#[derive(Clone)]
pub struct Resolver(Arc<dyn Fn(String, u16) -> Lookup + Send + Sync>);

impl Resolver {
    /// The operating system's: hosts file, search domains and all, so that a
    /// name means here what it means to other programs on this machine.
    pub fn system() -> Self {
        let lookups = Arc::new(Semaphore::new(MAX_LOOKUPS));
        Self::new(move |name, port| {
            let lookups = lookups.clone();
            async move {
                let permit = lookups.acquire_owned().await.map_err(io::Error::other)?;
                tokio::task::spawn_blocking(move || {
                    // Held by the thread, which outlives a caller that gave up.
                    let _permit = permit;
                    Ok((name, port).to_socket_addrs()?.collect())
                })
                .await
                .map_err(io::Error::other)?
            }
        })
    }

    /// Another one: `lookup` gets the name, in lowercase without a final dot,
    /// and the port that the addresses shall have.
    pub fn new<F, R>(lookup: F) -> Self
    where
        F: Fn(String, u16) -> R + Send + Sync + 'static,
        R: Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'static,
    {
        Self(Arc::new(move |name, port| Box::pin(lookup(name, port))))
    }

    /// The addresses, each once, at most sixteen.
    pub(crate) async fn lookup(&self, name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let mut found: Vec<SocketAddr> = Vec::new();
        for addr in (self.0)(name.to_owned(), port).await? {
            if !found.contains(&addr) && found.len() < MAX_ADDRESSES {
                found.push(addr);
            }
        }
        Ok(found)
    }
}

impl Default for Resolver {
    fn default() -> Self {
        Self::system()
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}
