//! The state directory: one process's own.

use std::{
    fs::{self, DirBuilder, File},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use adit_reconciler::emit::FilesConfig;
use adit_tunnel::admin::AdminAddr;
use anyhow::{Context as _, bail};
use rustix::fs::{FlockOperation, flock};

use super::{LINGER, options::RunOptions};

/// `sun_path` has 108 bytes (unix(7)), the last for a zero.
const MAX_SOCKET_PATH: usize = 107;

/// What stands in the state directory.
pub(super) struct State {
    pub files: FilesConfig,
    pub dialer_socket: String,
    pub dialer_admin: AdminAddr,
    pub dialer_key: PathBuf,
    pub dialer_options: PathBuf,
    /// Held until the end.
    _lock: File,
}

impl State {
    /// Makes the directory and takes it.
    pub fn open(options: &RunOptions) -> anyhow::Result<Self> {
        let folder = options.state_dir()?;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .with_context(|| format!("make the state directory {}", folder.display()))?;
        let folder = folder.canonicalize().context("the state directory")?;
        let shown = folder.display();
        // Who can write here can tell Envoy and the dialer what to do.
        let mode = fs::metadata(&folder)?.mode();
        if mode & 0o022 != 0 {
            bail!("others may write to the state directory {shown}; run `chmod go-w {shown}`");
        }
        let lock =
            File::create(folder.join("lock")).with_context(|| format!("write to {shown}"))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            bail!(
                "another adit run uses the state directory {shown}; give each its own --state-dir"
            );
        }
        let files = FilesConfig {
            folder: folder.clone(),
            linger: LINGER,
        };
        fits(&files.admin_socket())?;
        let dialer_socket = match &options.dialer.socket {
            Some(socket) if socket.starts_with('@') => socket.clone(),
            Some(socket) => {
                let path = std::path::absolute(socket).context("--socket")?;
                fits(&path)?;
                path.to_string_lossy().into_owned()
            }
            None => {
                let path = folder.join("dialer.sock");
                fits(&path)?;
                path.to_string_lossy().into_owned()
            }
        };
        if options.dialer.state.is_some() {
            bail!("--state is written by adit run itself; leave it out, or run adit dialer alone");
        }
        let key = options.dialer.endpoint.key_file.clone();
        let default_admin = AdminAddr::Tcp(([127, 0, 0, 1], 9901).into());
        Ok(Self {
            dialer_socket,
            dialer_admin: options.dialer.admin.clone().unwrap_or(default_admin),
            dialer_key: key.unwrap_or_else(|| folder.join("dialer.key")),
            dialer_options: folder.join("dialer-options.json"),
            files,
            _lock: lock,
        })
    }
}

fn fits(path: &Path) -> anyhow::Result<()> {
    let len = path.as_os_str().len();
    if len > MAX_SOCKET_PATH {
        bail!(
            "the socket path {} has {len} bytes and a Unix socket's at most {MAX_SOCKET_PATH}; choose a shorter --state-dir",
            path.display()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(folder: &Path) -> anyhow::Result<State> {
        State::open(&RunOptions {
            state_dir: Some(folder.into()),
            ..RunOptions::default()
        })
    }

    #[test]
    fn a_state_directory_belongs_to_one_process() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let first = open(folder.path()).expect("opened");
        let error = open(folder.path())
            .map(|_| ())
            .expect_err("taken")
            .to_string();
        assert!(error.contains("another adit run"), "{error}");
        drop(first);
        assert!(open(folder.path()).is_ok());
    }

    #[test]
    fn a_socket_path_that_is_too_long_is_said_at_once() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let error = open(&folder.path().join("x".repeat(100)))
            .map(|_| ())
            .expect_err("refused")
            .to_string();
        assert!(
            error.contains("at most 107") && error.contains("--state-dir"),
            "{error}"
        );
    }

    #[test]
    fn a_directory_that_others_may_write_to_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::TempDir::new().expect("a folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).expect("set");
        let error = open(folder.path())
            .map(|_| ())
            .expect_err("refused")
            .to_string();
        assert!(error.contains("others may write"), "{error}");
    }
}
