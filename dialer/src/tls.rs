//! TLS to the service, originated here inside the tunnel: the connector moves
//! ciphertext, and the certificate is verified beside Envoy.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use adit_tunnel::{
    options::{OptionError, read_certificates},
    stream::TunnelIo,
};
use adit_wire::{Host, Tls};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, ServerName},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Distinct (authorities, ALPN) pairs kept ready. Targets come from the
/// operator's configuration and name few.
const MAX_CONFIGS: usize = 256;

/// The authorities that a target can refer to.
#[derive(Debug, Clone)]
pub struct TlsRoots {
    /// `None`: the system's, read on first use.
    default: Option<Arc<RootCertStore>>,
    named: BTreeMap<String, Arc<RootCertStore>>,
}

/// Makes TLS streams.
#[derive(Debug)]
pub struct TlsClient {
    roots: TlsRoots,
    ready: Mutex<HashMap<ConfigKey, Arc<ClientConfig>>>,
}

/// A bundle's name and the ALPN protocols.
type ConfigKey = (String, Vec<String>);

/// Why there is no TLS to the service.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The target names a bundle that the dialer was not given.
    #[error("the target's CA {0:?} is not configured here; give --tls-ca-named {0}=FILE")]
    UnknownCa(String),
    /// No authority to verify against.
    #[error("the system has no certificate authorities; give --tls-ca")]
    NoRoots,
    /// The name cannot be verified.
    #[error("the server name {0} cannot be verified")]
    ServerName(Host),
    /// rustls refused the configuration.
    #[error("the TLS configuration: {0}")]
    Config(#[from] rustls::Error),
    /// The handshake failed.
    #[error("TLS handshake as {server_name}: {source}")]
    Handshake {
        /// The name that was to be verified.
        server_name: Host,
        /// The cause.
        source: std::io::Error,
    },
    /// The service speaks none of the protocols.
    #[error("the service chose none of the ALPN protocols {0:?}")]
    Alpn(Vec<String>),
}

impl TlsRoots {
    /// Reads the bundles.
    ///
    /// # Errors
    /// When a file cannot be read or holds no usable certificate.
    pub fn load(
        default: Option<&Path>,
        named: &BTreeMap<String, PathBuf>,
    ) -> Result<Self, OptionError> {
        Ok(Self {
            default: default.map(|path| store("tls-ca", path)).transpose()?,
            named: named
                .iter()
                .map(|(name, path)| Ok((name.clone(), store("tls-ca-named", path)?)))
                .collect::<Result<_, OptionError>>()?,
        })
    }

    fn find(&self, name: &str) -> Result<Arc<RootCertStore>, TlsError> {
        if !name.is_empty() {
            let found = self.named.get(name).cloned();
            return found.ok_or_else(|| TlsError::UnknownCa(name.into()));
        }
        match &self.default {
            Some(roots) => Ok(roots.clone()),
            None => system_roots().ok_or(TlsError::NoRoots),
        }
    }
}

fn store(option: &'static str, path: &Path) -> Result<Arc<RootCertStore>, OptionError> {
    collect(read_certificates(option, path)?)
        .map(Arc::new)
        .ok_or_else(|| OptionError::File {
            option,
            path: path.into(),
            reason: "holds no certificate that can be an authority".into(),
        })
}

fn collect(certificates: Vec<CertificateDer<'static>>) -> Option<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates);
    (!roots.is_empty()).then_some(roots)
}

fn system_roots() -> Option<Arc<RootCertStore>> {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "a system certificate authority could not be read");
    }
    collect(found.certs).map(Arc::new)
}

impl TlsClient {
    /// A client that verifies against these authorities.
    pub fn new(roots: TlsRoots) -> Self {
        Self {
            roots,
            ready: Mutex::default(),
        }
    }

    /// Speaks TLS as `tls` asks over a tunnel. The caller limits the time.
    ///
    /// # Errors
    /// When the configuration lacks something or the handshake fails.
    pub async fn connect(&self, tls: &Tls, io: TunnelIo) -> Result<TlsStream<TunnelIo>, TlsError> {
        let config = self.config(tls)?;
        let name = match &tls.server_name {
            Host::Ip(ip) => ServerName::IpAddress((*ip).into()),
            Host::Name(name) => ServerName::try_from(name.clone())
                .map_err(|_| TlsError::ServerName(tls.server_name.clone()))?,
        };
        let stream = TlsConnector::from(config)
            .connect(name, io)
            .await
            .map_err(|source| TlsError::Handshake {
                server_name: tls.server_name.clone(),
                source,
            })?;
        // A service without ALPN speaks HTTP/1.1; anything else that was
        // offered alone must have been agreed (RFC 9113 section 3.2).
        let agreed = stream.get_ref().1.alpn_protocol().is_some();
        if !agreed && !tls.alpn.is_empty() && !tls.alpn.iter().any(|p| p == "http/1.1") {
            return Err(TlsError::Alpn(tls.alpn.clone()));
        }
        Ok(stream)
    }

    fn config(&self, tls: &Tls) -> Result<Arc<ClientConfig>, TlsError> {
        let key = (tls.ca.clone(), tls.alpn.clone());
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = ready.get(&key) {
            return Ok(config.clone());
        }
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(self.roots.find(&tls.ca)?)
            .with_no_client_auth();
        config.alpn_protocols = tls.alpn.iter().map(|p| p.clone().into_bytes()).collect();
        let config = Arc::new(config);
        if ready.len() >= MAX_CONFIGS {
            ready.clear();
        }
        ready.insert(key, config.clone());
        Ok(config)
    }
}
