//! The directory of manifests that `adit run` reads.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::Result;

/// A directory of manifests, one file for each name.
#[derive(Debug, Clone)]
pub struct Manifests {
    /// The directory.
    pub dir: PathBuf,
}

/// A backend of an HTTPProxy: where, and through which connector.
#[derive(Debug, Clone)]
pub struct Backend<'a> {
    /// As in `http://127.0.0.1:8080`.
    pub endpoint: String,
    /// Which connector; `None` is a backend that Envoy reaches itself.
    pub via: Option<Via<'a>>,
    /// The name in the service's certificate, for `https`.
    pub tls_hostname: Option<&'a str>,
}

/// How a backend names its connectors.
#[derive(Debug, Clone, Copy)]
pub enum Via<'a> {
    /// By name.
    Name(&'a str),
    /// Every connector whose label `site` has this value.
    Site(&'a str),
}

impl<'a> Backend<'a> {
    /// A backend behind the connector of this name.
    pub fn through(connector: &'a str, endpoint: String) -> Self {
        Self {
            endpoint,
            via: Some(Via::Name(connector)),
            tls_hostname: None,
        }
    }
}

impl Manifests {
    /// An empty directory.
    pub fn new(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir)?;
        Ok(Self {
            dir: dir.to_owned(),
        })
    }

    /// Writes a file of the directory as an editor does: whole, by rename.
    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        let temp = self.dir.join(format!(".{name}.tmp"));
        fs::write(&temp, text)?;
        fs::rename(temp, self.dir.join(format!("{name}.yaml")))?;
        Ok(())
    }

    /// Removes a file of the directory.
    pub fn remove(&self, name: &str) -> Result<()> {
        fs::remove_file(self.dir.join(format!("{name}.yaml")))?;
        Ok(())
    }

    /// An HTTPProxy of one hostname whose every path goes to one backend.
    pub fn proxy(&self, name: &str, hostname: &str, backend: &Backend<'_>) -> Result<()> {
        self.write(name, &proxy(name, hostname, std::slice::from_ref(backend)))
    }
}

/// The text of a Connector; `site` becomes its label.
pub fn connector(
    name: &str,
    site: &str,
    id: &str,
    relay: Option<&str>,
    addresses: &[SocketAddr],
) -> String {
    let mut text = format!(
        "apiVersion: networking.datumapis.com/v1alpha1\n\
         kind: Connector\n\
         metadata:\n  name: {name}\n  labels:\n    site: {site}\n\
         spec:\n  connectorClassName: adit\n\
         status:\n  connectionDetails:\n    type: PublicKey\n    publicKey:\n      id: {id}\n"
    );
    if let Some(relay) = relay {
        text += &format!("      homeRelay: {relay}\n");
    }
    if !addresses.is_empty() {
        text += "      addresses:\n";
        for addr in addresses {
            let (ip, port) = (addr.ip(), addr.port());
            text += &format!("      - address: \"{ip}\"\n        port: {port}\n");
        }
    }
    text
}

/// The text of a ConnectorAdvertisement of TCP services, each `(host, port)`.
pub fn advertisement(name: &str, connector: &str, services: &[(&str, u16)]) -> String {
    let mut text = format!(
        "apiVersion: networking.datumapis.com/v1alpha1\n\
         kind: ConnectorAdvertisement\n\
         metadata:\n  name: {name}\n\
         spec:\n  connectorRef:\n    name: {connector}\n  layer4:\n  - name: all\n    services:\n"
    );
    for (i, (host, port)) in services.iter().enumerate() {
        text += &format!(
            "    - address: \"{host}\"\n      ports:\n      - name: p{i}\n        port: {port}\n        protocol: TCP\n"
        );
    }
    text
}

/// The text of an HTTPProxy with one rule.
pub fn proxy(name: &str, hostname: &str, backends: &[Backend<'_>]) -> String {
    let mut text = format!(
        "apiVersion: networking.datumapis.com/v1alpha\n\
         kind: HTTPProxy\n\
         metadata:\n  name: {name}\n\
         spec:\n  hostnames:\n  - {hostname}\n  rules:\n  - backends:\n"
    );
    for backend in backends {
        text += &format!("    - endpoint: {}\n", backend.endpoint);
        match backend.via {
            Some(Via::Name(connector)) => {
                text += &format!("      connector:\n        name: {connector}\n");
            }
            Some(Via::Site(site)) => {
                text += &format!(
                    "      connector:\n        selector:\n          matchLabels:\n            site: {site}\n"
                );
            }
            None => {}
        }
        if let Some(hostname) = backend.tls_hostname {
            text += &format!("      tls:\n        hostname: {hostname}\n");
        }
    }
    text
}
