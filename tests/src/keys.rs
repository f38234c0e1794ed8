//! Key files, made before the processes that use them, so that each side can be
//! told of the other at once.

use std::{
    fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::Result;
use iroh::SecretKey;

/// A secret key in a file, and the EndpointId that follows from it.
#[derive(Debug, Clone)]
pub struct Key {
    /// The file.
    pub file: PathBuf,
    /// The public key, 64 hex digits.
    pub id: String,
    /// The same in z-base-32, as discovery records name it.
    pub z32: String,
}

impl Key {
    /// Makes one in `dir`.
    pub fn new(dir: &Path, name: &str) -> Result<Self> {
        let secret = SecretKey::generate();
        let file = dir.join(format!("{name}.key"));
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let hex = data_encoding::HEXLOWER.encode(&secret.to_bytes());
        writeln!(options.open(&file)?, "{hex}")?;
        Ok(Self {
            file,
            id: secret.public().to_string(),
            z32: secret.public().to_z32(),
        })
    }
}
