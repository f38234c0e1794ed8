//! The secret key: a file of mode 0600 that holds 64 hex digits.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use iroh::SecretKey;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file could not be opened, read or made.
    #[error("the key file {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Others than the owner may read the key.
    #[error(
        "the key file {path} has mode {mode:04o} and others may read it; \
         run `chmod 600 {path}`, and if it was exposed make a new key"
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The content is no key.
    #[error("the key file {path} does not hold a key of 64 hex digits")]
    Malformed {
        /// The file.
        path: PathBuf,
    },
}

/// Reads the key, or makes one on first use.
///
/// # Errors
/// When the file cannot be used, or group or others may read it.
pub fn load_or_create(path: &Path) -> Result<SecretKey, KeyError> {
    match load(path) {
        Err(KeyError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
        other => return other,
    }
    match create(path) {
        // Another process was first: its key is the key.
        Err(KeyError::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {
            load(path)
        }
        other => other,
    }
}

/// Reads the key of an existing file.
///
/// # Errors
/// As [`load_or_create`], and when there is no file.
pub fn load(path: &Path) -> Result<SecretKey, KeyError> {
    let io = |source| KeyError::Io {
        path: path.into(),
        source,
    };
    // One open file is checked and read: no time between the two.
    let file = fs::File::open(path).map_err(io)?;
    let mode = file.metadata().map_err(io)?.mode() & 0o7777;
    let others = match is_credential(path) {
        // Root's, and readable by this service alone through an access list,
        // whose mask shows where the group's bits are (acl(5)).
        true => mode & 0o037,
        false => mode & 0o077,
    };
    if others != 0 {
        return Err(KeyError::Exposed {
            path: path.into(),
            mode,
        });
    }
    let mut text = String::new();
    // A key is 65 bytes; more is not read.
    io::Read::read_to_string(&mut io::Read::take(file, 256), &mut text)
        .map_err(|_| KeyError::Malformed { path: path.into() })?;
    let bytes = text
        .trim()
        .parse::<adit_wire::EndpointId>()
        .map_err(|_| KeyError::Malformed { path: path.into() })?;
    Ok(SecretKey::from_bytes(bytes.as_bytes()))
}

/// Whether a service manager gives this file to this service alone
/// (systemd.exec(5), LoadCredential=).
fn is_credential(path: &Path) -> bool {
    let folder = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    folder.is_some_and(|folder| folder.is_absolute() && path.parent() == Some(&*folder))
}

/// Makes a key and its file, which must not exist.
///
/// The file appears whole: it is written under another name and linked, so
/// that a crash leaves no half a key and a reader sees none.
///
/// # Errors
/// When the file exists or cannot be made.
pub fn create(path: &Path) -> Result<SecretKey, KeyError> {
    let io = |source| KeyError::Io {
        path: path.into(),
        source,
    };
    let key = SecretKey::generate();
    let hex = adit_wire::EndpointId::from_bytes(key.to_bytes()).to_string();
    let name = path
        .file_name()
        .ok_or_else(|| io(io::ErrorKind::InvalidInput.into()))?;
    let mut temporary = name.to_os_string();
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(temporary);
    let write = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(hex.as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::hard_link(&temporary, path)
    };
    let written = write();
    let _ = fs::remove_file(&temporary);
    written.map_err(io)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_only_its_owner_may_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let first = load_or_create(&path).unwrap();
        assert_eq!(load_or_create(&path).unwrap().public(), first.public());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            1,
            "no temporary file stays"
        );
    }

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        load_or_create(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = load_or_create(&path).unwrap_err();
        assert!(
            matches!(error, KeyError::Exposed { mode: 0o640, .. }),
            "{error}"
        );
    }

    #[test]
    fn a_file_that_holds_no_key_is_refused_without_showing_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        fs::write(&path, "hunter2").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let error = load_or_create(&path).unwrap_err();
        assert!(matches!(error, KeyError::Malformed { .. }));
        assert!(!error.to_string().contains("hunter2"));
    }
}
