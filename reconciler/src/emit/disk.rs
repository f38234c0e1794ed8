//! The folder of files: their names, and how they are replaced.

use std::{
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::{AdminError, files::PATIENCE, xds::DiscoveryResponse};

/// Where the files are.
#[derive(Debug, Clone)]
pub struct FilesConfig {
    /// The folder, made with mode 0700 by whoever owns it.
    pub folder: PathBuf,
    /// How long a cluster stays after its last route.
    pub linger: Duration,
}

/// Why an update did not take effect, or not wholly.
#[derive(Debug, thiserror::Error)]
pub enum EmitError {
    /// A file could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Envoy refused it; what was in effect before stays.
    #[error("Envoy refused the new {what}, the ones before stay in effect: {reason}")]
    Refused {
        /// `clusters`, `routes` or `listeners`.
        what: &'static str,
        /// Envoy's words.
        reason: String,
    },
    /// Envoy neither took nor refused it in time.
    #[error("Envoy did not take the new {what} within {} s", PATIENCE.as_secs())]
    Slow {
        /// `clusters`, `routes` or `listeners`.
        what: &'static str,
    },
    /// Its admin interface does not work.
    #[error(transparent)]
    Admin(#[from] AdminError),
}

/// A kind of discovery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Clusters,
    Routes,
    Listeners,
}

impl Kind {
    pub const fn what(self) -> &'static str {
        match self {
            Self::Clusters => "clusters",
            Self::Routes => "routes",
            Self::Listeners => "listeners",
        }
    }

    pub const fn file(self) -> &'static str {
        match self {
            Self::Clusters => "cds.json",
            Self::Routes => "rds.json",
            Self::Listeners => "lds.json",
        }
    }

    /// The part of the statistics' names before `version_text`. One listener
    /// has one route configuration, so the end of the name is enough.
    pub const fn stats(self) -> &'static str {
        match self {
            Self::Clusters => "cluster_manager.cds.",
            Self::Routes => ".rds.",
            Self::Listeners => "listener_manager.lds.",
        }
    }
}

impl FilesConfig {
    /// Envoy's bootstrap.
    pub fn bootstrap(&self) -> PathBuf {
        self.folder.join("bootstrap.json")
    }

    /// Envoy's admin socket.
    pub fn admin_socket(&self) -> PathBuf {
        self.folder.join("envoy-admin.sock")
    }

    /// What Envoy reads its routes from.
    pub fn routes(&self) -> PathBuf {
        self.folder.join(Kind::Routes.file())
    }

    /// What the dialer reads.
    pub fn dialer_state(&self) -> PathBuf {
        self.folder.join("dialer.json")
    }
}

/// A discovery response and its version: a hash over its content.
pub(super) fn response<T: Serialize>(resources: &[T]) -> io::Result<(Vec<u8>, String)> {
    let digest = Sha256::digest(serde_json::to_vec(resources)?);
    let version = data_encoding::HEXLOWER.encode(&digest[..8]);
    let response = DiscoveryResponse {
        version_info: &version,
        resources,
    };
    Ok((pretty(&response)?, version))
}

fn pretty(content: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(content)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Writes a file as indented JSON.
pub(super) fn write_json(path: &Path, content: &impl Serialize) -> Result<(), EmitError> {
    let written = pretty(content).and_then(|bytes| replace(path, &bytes));
    written.map_err(|source| EmitError::Write {
        path: path.to_owned(),
        source,
    })
}

/// Replaces a file by one with these bytes, unless it has them. A reader sees
/// the old or the new content, also after a power cut.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if fs::read(path).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    let new = path.with_extension("json.new");
    let mut file = fs::File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    fs::File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}
